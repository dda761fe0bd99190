package origin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// slowBody gives one byte at a time, each after a pause, or the error of its
// request.
type slowBody struct {
	ctx   context.Context
	pause time.Duration
	rest  io.Reader
}

func (s *slowBody) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.pause):
		return s.rest.Read(p[:1])
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

func (s *slowBody) Close() error { return nil }

// Only the time in which the server owes a byte counts.
func TestIdleTime(t *testing.T) {
	for _, c := range []struct {
		server, reader time.Duration
		ok             bool
	}{
		{0, time.Hour, true},
		{9 * time.Second, time.Hour, true},
		{11 * time.Second, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			rctx, cancel := context.WithCancelCause(t.Context())
			b := &httpBody{
				ctx: t.Context(), cancel: cancel, idle: 10 * time.Second, left: 100,
				rc: &slowBody{rctx, c.server, bytes.NewReader(make([]byte, 100))},
			}
			defer b.Close()
			var err error
			got := 0
			for err == nil {
				time.Sleep(c.reader)
				var n int
				n, err = b.Read(make([]byte, 10))
				got += n
			}
			if c.ok && (err != io.EOF || got != 100) {
				t.Errorf("server %v, reader %v: %d bytes, %v, want 100 and io.EOF", c.server, c.reader, got, err)
			}
			if !c.ok && !(errors.Is(err, ErrUnavailable) && errors.Is(err, errStalled)) {
				t.Errorf("server %v, reader %v: %v, want a stall", c.server, c.reader, err)
			}
		})
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, v := range []string{"bytes 0-9/100", "bytes */100", "bytes 0-0/1", "bytes 5-4/9", "bytes +1-2/3", "bytes 0-9/*", "", "bytes 0-/1"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		r, err := parseContentRange(v)
		if err != nil {
			return
		}
		if unsatisfied := r.first == -1 && r.last == -1; !unsatisfied && (r.first < 0 || r.first > r.last || r.total >= 0 && r.last >= r.total) {
			t.Errorf("%q is %+v", v, r)
		}
		if r.total < 0 && r.first < 0 {
			t.Errorf("%q says nothing and is taken", v)
		}
	})
}
