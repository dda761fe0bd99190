package trace

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// lines is a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// recorder returns one of files of four records.
func recorder(path string) (*Recorder, *lines) {
	log := &lines{}
	return NewRecorder(RecorderConfig{Path: path, MaxSize: headerSize + 4*recordSize, Files: 3, Log: slog.New(slog.NewTextHandler(log, nil))}), log
}

// numbered returns the requests from the first to before the last.
func numbered(first, last int) (list []Access) {
	for i := first; i < last; i++ {
		list = append(list, Access{At: int64(i), Key: sdk.Key(i), Size: uint64(i), Outcome: Hit})
	}
	return list
}

func wantFile(t *testing.T, path string, want []Access) {
	t.Helper()
	if got, err := ReadFile(path, "", Columns{}); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s holds %v, %v, want %v", filepath.Base(path), got, err, want)
	}
}

func record(t *testing.T, path string, list []Access) RecorderStats {
	t.Helper()
	r, _ := recorder(path)
	for _, a := range list {
		r.Add(a)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return r.Stats()
}

// TestRecorder fills files, goes on with one whose end is torn, and keeps no
// more than it should.
func TestRecorder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "requests")
	record(t, path, numbered(0, 3))
	wantFile(t, path, numbered(0, 3))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("torn"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, numbered(0, 3))
	if s := record(t, path, numbered(3, 5)); s != (RecorderStats{Path: path, Recorded: 2}) {
		t.Errorf("%+v", s)
	}
	wantFile(t, path+".1", numbered(0, 4))
	wantFile(t, path, numbered(4, 5))
	record(t, path, numbered(5, 18))
	wantFile(t, path+".2", numbered(8, 12))
	wantFile(t, path+".1", numbered(12, 16))
	wantFile(t, path, numbered(16, 18))
	if _, err := os.Stat(path + ".3"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a fourth file: %v", err)
	}
}

// TestRecorderLeavesStrangers: what is no trace is kept as an older file.
func TestRecorderLeavesStrangers(t *testing.T) {
	for _, content := range []string{"dear diary", strings.Repeat("dear diary", 10)} {
		path := filepath.Join(t.TempDir(), "requests")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		record(t, path, numbered(0, 2))
		wantFile(t, path, numbered(0, 2))
		if old, err := os.ReadFile(path + ".1"); err != nil || string(old) != content {
			t.Errorf("%q, %v", old, err)
		}
	}
}

// TestRecorderInTheWay: so is what is no file, and nobody waits for a FIFO.
func TestRecorderInTheWay(t *testing.T) {
	for name, place := range map[string]func(path string) error{
		"directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return os.Symlink(os.DevNull, path) },
	} {
		path := filepath.Join(t.TempDir(), "requests")
		if err := place(path); err != nil {
			t.Fatal(err)
		}
		if s := record(t, path, numbered(0, 2)); s.Lost != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		wantFile(t, path, numbered(0, 2))
		if info, err := os.Stat(path + ".1"); err != nil || info.Mode().IsRegular() {
			t.Errorf("%s: then there is %v, %v", name, info, err)
		}
	}
}

// TestRecorderWithoutDisk: what cannot be written is counted, said once, and
// recording goes on when it can.
func TestRecorderWithoutDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "traces", "requests")
		if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r, log := recorder(path)
		for _, a := range numbered(0, 3) {
			r.Add(a)
			time.Sleep(2 * time.Second)
		}
		if s := r.Stats(); s.Lost != 3 || s.Recorded != 0 || s.Error == "" {
			t.Errorf("%+v", s)
		}
		if n := log.count("cannot be recorded"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
		if err := os.Remove(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		r.Add(numbered(3, 4)[0])
		time.Sleep(2 * time.Second)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if s := r.Stats(); s.Lost != 3 || s.Recorded != 1 || s.Error != "" || log.count("recorded again") != 1 {
			t.Errorf("%+v", s)
		}
		wantFile(t, path, numbered(3, 4))
	})
}

// TestQueue: nobody waits for a queue that is full.
func TestQueue(t *testing.T) {
	var q Queue
	for _, a := range numbered(0, QueueSize+7) {
		q.Add(a)
	}
	<-q.Ready()
	if n := q.Lost(); n != 7 {
		t.Errorf("%d are lost, want 7", n)
	}
	list, lost := q.Take(nil)
	if !slices.Equal(list, numbered(0, QueueSize)) || lost != 7 {
		t.Errorf("%d, and %d lost", len(list), lost)
	}
	q.Add(Access{Key: 1})
	if list, lost = q.Take(list); len(list) != 1 || lost != 0 || q.Lost() != 0 {
		t.Errorf("%d, and %d lost", len(list), lost)
	}
}

// FuzzTorn: of a trace that is cut off anywhere the whole records are read.
func FuzzTorn(f *testing.F) {
	f.Add(uint8(3), uint16(50))
	f.Fuzz(func(t *testing.T, n uint8, cut uint16) {
		whole := own(numbered(1, 1+int(n))...)
		part := whole[:min(int(cut), len(whole))]
		got, err := readAll(bytes.NewReader(part), "x", Own, Columns{}, 1000)
		want := max(0, len(part)-headerSize) / recordSize
		if len(got) != want || (err == nil) != (want > 0) {
			t.Errorf("%d bytes: %d requests, %v", len(part), len(got), err)
		}
	})
}
