package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// RecorderConfig says where requests are recorded.
type RecorderConfig struct {
	Path    string // of the file that is written; older ones are Path.1, Path.2 and so on
	MaxSize int64  // bytes of one file
	Files   int    // number of files kept, including the one that is written; at least 2
	Log     *slog.Logger
}

// flushEvery is how long a request may wait before it is written to the file.
const flushEvery = time.Second

// Recorder writes requests to files, a bounded number of bounded size. Adding
// a request never waits: what the disk cannot take is lost, and counted.
type Recorder struct {
	cfg   RecorderConfig
	queue Queue
	stop  context.CancelFunc
	ended chan struct{}

	file *os.File // nil: to be opened. file and size are used only by run
	size int64
	buf  []byte

	mu    sync.Mutex
	stats RecorderStats
}

// RecorderStats count since the start.
type RecorderStats struct {
	Path     string `json:"path"`
	Recorded uint64 `json:"recorded"`
	Lost     uint64 `json:"lost"`
	Error    string `json:"error,omitempty"` // why nothing can be written now
}

// NewRecorder returns a recorder that continues the file at the path, if there
// is one. A file that cannot be written is not an error: it is tried again.
func NewRecorder(cfg RecorderConfig) *Recorder {
	ctx, stop := context.WithCancel(context.Background())
	r := &Recorder{cfg: cfg, stop: stop, ended: make(chan struct{}), stats: RecorderStats{Path: cfg.Path}}
	go r.run(ctx)
	return r
}

// Add records a request. It does not wait.
func (r *Recorder) Add(a Access) { r.queue.Add(a) }

// Stats returns how recording is doing.
func (r *Recorder) Stats() RecorderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Lost += r.queue.Lost()
	return s
}

// Close writes what was added and ends.
func (r *Recorder) Close() error {
	r.stop()
	<-r.ended
	return nil
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.ended)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var spare []Access
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		list, lost := r.queue.Take(spare)
		spare = list
		written, err := r.write(list)
		r.judge(written, lost+uint64(len(list)-written), err)
	}
	r.close()
}

// judge counts, and logs when recording begins to fail and when it works again.
func (r *Recorder) judge(written int, lost uint64, err error) {
	r.mu.Lock()
	before := r.stats
	r.stats.Recorded += uint64(written)
	r.stats.Lost += lost
	switch {
	case err != nil:
		r.stats.Error = err.Error()
	case written > 0:
		r.stats.Error = ""
	}
	now := r.stats
	r.mu.Unlock()
	switch {
	case now.Error != "" && before.Error == "":
		r.cfg.Log.Warn("requests cannot be recorded; they are counted instead", "path", r.cfg.Path, "error", err)
	case now.Error == "" && before.Error != "":
		r.cfg.Log.Info("requests are recorded again", "path", r.cfg.Path, "lost", now.Lost)
	case err == nil && lost > 0 && before.Lost == 0:
		r.cfg.Log.Warn("the disk is too slow to record all requests; those that are lost are counted", "path", r.cfg.Path, "lost", lost)
	}
}

// write appends the requests and returns how many of them are in a file.
func (r *Recorder) write(list []Access) (written int, err error) {
	for written < len(list) {
		if err := r.ready(); err != nil {
			return written, err
		}
		n := min(len(list)-written, max(1, int((r.cfg.MaxSize-r.size)/recordSize)))
		r.buf = r.buf[:0]
		for _, a := range list[written : written+n] {
			r.buf = Append(r.buf, a)
		}
		if _, err := r.file.Write(r.buf); err != nil {
			r.close() // the next attempt finds the end of the last whole record
			return written, fmt.Errorf("write trace: %w", err)
		}
		r.size += int64(len(r.buf))
		written += n
	}
	return written, nil
}

// ready makes sure that there is a file with room for a record.
func (r *Recorder) ready() error {
	if r.file == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	if r.size+recordSize <= r.cfg.MaxSize || r.size == headerSize {
		return nil
	}
	r.close()
	if err := r.rotate(); err != nil {
		return err
	}
	return r.open()
}

// open opens the file to append after its last whole record. A file that is
// not a trace of this version is renamed, as when the file is full.
func (r *Recorder) open() error {
	f, size, err := openForAppend(r.cfg.Path)
	if errors.Is(err, errForeign) {
		if err := r.rotate(); err != nil {
			return err
		}
		f, size, err = openForAppend(r.cfg.Path)
	}
	if err != nil {
		return fmt.Errorf("open trace: %w", err)
	}
	r.file, r.size = f, size
	return nil
}

// errForeign says that the existing file must not be appended to.
var errForeign = errors.New("it is not a trace of this version")

func openForAppend(path string) (_ *os.File, size int64, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, 0, err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, 0, errForeign // a FIFO would take what nobody reads
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, 0, err
	}
	if size, err = prepare(f); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// prepare cuts a torn record off, or begins an empty file, and moves to the end.
func prepare(f *os.File) (size int64, err error) {
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	want := AppendHeader(nil)
	have := make([]byte, min(size, headerSize))
	if _, err := f.ReadAt(have, 0); err != nil && len(have) > 0 {
		return 0, err
	}
	if !bytes.HasPrefix(want, have) {
		return 0, errForeign
	}
	if len(have) < headerSize { // a new file, or one with a torn header
		if _, err := f.WriteAt(want, 0); err != nil {
			return 0, err
		}
		size = headerSize
	}
	size -= (size - headerSize) % recordSize
	if err := f.Truncate(size); err != nil {
		return 0, err
	}
	return f.Seek(size, io.SeekStart)
}

// rotate makes the file the newest of the older ones, and removes the oldest.
func (r *Recorder) rotate() error {
	older := func(i int) string {
		if i == 0 {
			return r.cfg.Path
		}
		return fmt.Sprintf("%s.%d", r.cfg.Path, i)
	}
	last := r.cfg.Files - 1
	if err := os.Remove(older(last)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the oldest trace: %w", err)
	}
	for i := last; i > 0; i-- {
		if err := os.Rename(older(i-1), older(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep an older trace: %w", err)
		}
	}
	return nil
}

func (r *Recorder) close() {
	if r.file != nil {
		_ = r.file.Close() // an error means loss of what was written a while ago, and nobody waits for it
		r.file = nil
	}
}
