package origintest

import (
	"net/http"
	"strconv"
)

// spoil makes the answer wrong in a way that can be noticed.
func (a *answer) spoil() {
	rng := a.w.rng
	image := a.page == ""
	n := a.to - a.from
	switch kind := rng.IntN(20); {
	case kind < 3:
		a.fail()
	case kind == 3:
		a.reset = true
	case kind == 4:
		a.hang = true
	case kind == 5 && image && a.status == http.StatusOK:
		a.status, a.page = http.StatusOK, Page
		a.header = http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	case kind == 6 && image:
		a.header.Set("Content-Encoding", []string{"gzip", "br"}[rng.IntN(2)])
	case !image:
		a.fail()
	case a.head && kind < 14:
		a.refuse([]int{400, 403, 404, 405, 500, 501}[rng.IntN(6)])
	case a.head:
		a.lie([]int64{0, n + 1, n + 4096}[rng.IntN(3)])
	case kind < 12:
		a.cut = rng.Int64N(n + 1)
		if a.cut == n && a.framing == byLength {
			a.cut = 0
		}
	case kind < 14:
		a.stall = rng.Int64N(n)
	case kind == 14 && a.status == http.StatusPartialContent:
		a.header.Set("Content-Range", "bytes "+strconv.FormatInt(a.from+1, 10)+"-"+strconv.FormatInt(a.to, 10)+"/"+strconv.FormatInt(a.v.Size+1, 10))
	case kind == 15 && a.status == http.StatusOK && a.v.Style == Digest:
		a.flip = rng.Int64N(n)
		a.v.Excused = true
	case kind == 16 && a.status == http.StatusOK && a.v.Style == Digest:
		a.framing, a.to = byLength, a.to-1-rng.Int64N(n)
		a.lie(a.to)
	case kind == 17 && a.framing == byLength:
		a.lie(n + 1 + rng.Int64N(4096))
	case a.status == http.StatusOK:
		a.framing = byEnd
		if rng.IntN(2) == 0 {
			a.cut = rng.Int64N(n)
			a.v.endless.Store(true)
		}
	default:
		a.fail()
	}
}

// lie declares another length.
func (a *answer) lie(length int64) {
	a.framing, a.length = byLength, length
	a.v.Excused = true
}

// fail makes the answer an error that servers and proxies send.
func (a *answer) fail() {
	rng := a.w.rng
	a.refuse([]int{401, 403, 408, 429, 500, 502, 503, 504}[rng.IntN(8)])
	if rng.IntN(3) == 0 {
		a.header.Set("Retry-After", strconv.Itoa(1+rng.IntN(30)))
	}
}
