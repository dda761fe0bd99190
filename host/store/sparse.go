package store

import (
	"bytes"
	"io/fs"
	"syscall"
)

// holeUnit is the unit, in bytes, in which a file is searched for zeros, from its
// beginning on. It is a multiple of the blocks and clusters of file systems, so
// that a hole frees what it spans, and large enough that a file does not fall into
// pieces for a page of zeros here and there.
const holeUnit = 64 << 10

var zeros [holeUnit]byte

// span is a part of a buffer: zeros, or what is to be written.
type span struct {
	from, to int
	hole     bool
}

// spans divides what belongs at off in a file at the bounds of units, of which
// neighbours of one kind are one span. The part of a unit that a buffer has is
// zeros or not by itself: the rest may come with the next buffer, and bytes that
// nobody wrote are zeros all the same.
func spans(p []byte, off int64) []span {
	var list []span
	for from := 0; from < len(p); {
		to := min(len(p), from+holeUnit-int((off+int64(from))%holeUnit))
		hole := bytes.Equal(p[from:to], zeros[:to-from])
		if last := len(list) - 1; last >= 0 && list[last].hole == hole {
			list[last].to = to
		} else {
			list = append(list, span{from, to, hole})
		}
		from = to
	}
	return list
}

// put writes p at off, and leaves out holes. ZerosFrom is where the zeros begin
// that are known to end at off. It returns how many bytes of p are part of the
// file, and where the zeros begin that end there.
func (st *Staged) put(p []byte, off, zerosFrom int64) (n int, zeros int64, err error) {
	list, end := spans(p, off), st.end.Load()
	for _, s := range list {
		at := off + int64(s.from)
		var m int
		switch {
		case !s.hole:
			m, err = st.lay(p[s.from:s.to], at)
		case at < end: // somebody may have written there, and given up
			m, err = st.clear(p[s.from:s.to], at)
		default:
			continue
		}
		if m > 0 {
			n = s.from + m
		}
		if err != nil {
			return n, off + int64(n), err
		}
	}
	if n < len(p) { // else the file would end before its last hole
		if err := st.extend(off + int64(len(p))); err != nil {
			return n, off + int64(n), err
		}
	}
	return len(p), st.punch(list, off, zerosFrom), nil
}

// lay writes bytes.
func (st *Staged) lay(p []byte, at int64) (int, error) {
	st.extending.RLock()
	defer st.extending.RUnlock()
	n, err := st.file.WriteAt(p, at)
	if n > 0 {
		st.reaches(at + int64(n))
	}
	return n, err
}

// clear makes zeros of what may be bytes.
func (st *Staged) clear(blank []byte, at int64) (int, error) {
	f, ok := st.file.(puncher)
	if !ok || f.Punch(at, int64(len(blank))) != nil {
		return st.lay(blank, at)
	}
	if err := st.extend(at + int64(len(blank))); err != nil {
		return 0, err
	}
	return len(blank), nil
}

// extend makes the file at least so long.
func (st *Staged) extend(end int64) error {
	st.extending.Lock()
	defer st.extending.Unlock()
	if st.end.Load() >= end {
		return nil
	}
	if err := st.file.Truncate(end); err != nil {
		return err
	}
	st.reaches(end)
	return nil
}

// reaches notes that the file is at least so long.
func (st *Staged) reaches(end int64) {
	for {
		now := st.end.Load()
		if now >= end || st.end.CompareAndSwap(now, end) {
			return
		}
	}
}

// punch gives back what Preallocate reserved for holes, which lie before the end
// of the file by now, and returns where the zeros begin that end with the last of
// them. It is an attempt. A file system frees whole blocks only, so a hole begins
// with the zeros that came before it in the same unit.
func (st *Staged) punch(list []span, off, zerosFrom int64) int64 {
	f, ok := st.file.(puncher)
	for _, s := range list {
		from, to := off+int64(s.from), off+int64(s.to)
		if !s.hole {
			zerosFrom = to
			continue
		}
		if !ok || from >= st.allocated.Load() {
			continue
		}
		from = max(zerosFrom, from-from%holeUnit)
		if err := f.Punch(from, to-from); err != nil {
			st.s.log.Debug("what was reserved for zeros stays reserved", "image", st.id, "offset", from, "error", err)
		}
	}
	return zerosFrom
}

// allocated is how many bytes of the disk a file takes, fewer than its size if it
// has holes.
func allocated(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // whatever the block size of the file system is
	}
	return fi.Size()
}
