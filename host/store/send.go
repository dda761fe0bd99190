package store

import "io"

// Send writes n bytes from off on to w, unverified. If w is a connection, the
// kernel sends them, and they do not pass through this process. It returns
// fewer than n when the file ends before. One goroutine at a time may send.
func (im *Image) Send(w io.ReaderFrom, off, n int64) (int64, error) {
	f, ok := im.file.(io.ReadSeeker)
	if !ok {
		return w.ReadFrom(io.NewSectionReader(im.file, off, n))
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	return w.ReadFrom(&io.LimitedReader{R: f, N: n})
}
