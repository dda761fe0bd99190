// Package store keeps image files in a directory of Glance's layout and makes
// sure that a file which carries an image's name is that image, whole.
//
//	<id>                     a complete image
//	incomplete/<id>~<nonce>  being written by us; <id> alone is somebody else's
//	invalid/<id>             a failed write, kept for inspection
//	queue/<id>               an empty marker: to be fetched
//	.imgcache/               everything of ours: lock, format, block tables, trash
//
// The package holds no lock while it waits for the disk. It is not safe for a
// directory on a network file system without working locks.
package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	dirIncomplete = "incomplete"
	dirInvalid    = "invalid"
	dirQueue      = "queue"
	dirPrivate    = ".imgcache"
	dirBlocks     = ".imgcache/blocks"
	dirTrash      = ".imgcache/trash"
	fileLock      = ".imgcache/lock"
	fileFormat    = ".imgcache/format"
	fileInstance  = ".imgcache/instance"
)

// format is the version of what lies in .imgcache.
const format = "1\n"

// Config says where the images are.
type Config struct {
	Dir string           // absolute; created if absent
	FS  FS               // nil: the real one
	Log *slog.Logger     // nil: nothing is logged
	Now func() time.Time // nil: time.Now; the time of queue markers
}

// Store is an opened cache directory. Its methods may be called concurrently.
type Store struct {
	dir      string
	fs       FS
	log      *slog.Logger
	now      func() time.Time
	lock     *flock.Flock
	instance string

	mu       sync.Mutex
	owned    map[string]bool // names in incomplete/ that this process writes
	lastMark time.Time       // newest time of a queue marker
}

// LockedError says that another process works on the directory.
type LockedError struct {
	Dir string
	PID string // of the holder, as far as it is known
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("the cache directory %s is in use by the process with pid %s", e.Dir, e.PID)
}

// Open takes the lock of the directory and prepares its layout. The error is
// a *LockedError when another process has it. A directory of a newer format
// is left as it is.
func Open(cfg Config) (*Store, error) {
	s := &Store{dir: cfg.Dir, fs: cfg.FS, log: cfg.Log, now: cfg.Now, owned: map[string]bool{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	if s.fs == nil {
		if s.fs, err = OpenFS(cfg.Dir); err != nil {
			return nil, fmt.Errorf("open cache directory: %w", err)
		}
	}
	if err := s.fs.Mkdir("open.mkdir", dirPrivate, dirMode); err != nil {
		return nil, fmt.Errorf("create %s: %w", dirPrivate, err)
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		s.lock.Unlock()
		return nil, err
	}
	return s, nil
}

func (s *Store) takeLock() error {
	name := filepath.Join(s.dir, fileLock)
	s.lock = flock.New(name, flock.SetFlag(os.O_RDWR|os.O_CREATE), flock.SetPermissions(fileMode))
	got, err := s.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock cache directory: %w", err)
	}
	if !got {
		pid, _ := os.ReadFile(name)
		holder := strings.TrimSpace(string(pid))
		if holder == "" {
			holder = "unknown"
		}
		return &LockedError{s.dir, holder}
	}
	return os.WriteFile(name, fmt.Appendf(nil, "%d\n", os.Getpid()), fileMode)
}

func (s *Store) prepare() error {
	have, err := s.readSmall("open.format", fileFormat)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read format: %w", err)
	case have != format:
		return fmt.Errorf("%s/%s says format %q and this program knows %q: use a newer program, or another directory; nothing was changed",
			s.dir, fileFormat, strings.TrimSpace(have), strings.TrimSpace(format))
	}
	for _, d := range []string{dirIncomplete, dirInvalid, dirQueue, dirBlocks, dirTrash} {
		if err := s.fs.Mkdir("open.mkdir", d, dirMode); err != nil {
			return fmt.Errorf("create %s: %w", d, err)
		}
	}
	if have == "" {
		if err := s.writeSmall("open.format", fileFormat, format); err != nil {
			return fmt.Errorf("write format: %w", err)
		}
	}
	if s.instance, err = s.readSmall("open.instance", fileInstance); err != nil || len(s.instance) != 33 {
		s.instance = nonce(16) + "\n"
		if err := s.writeSmall("open.instance", fileInstance, s.instance); err != nil {
			return fmt.Errorf("write instance: %w", err)
		}
	}
	s.instance = strings.TrimSpace(s.instance)
	return nil
}

func (s *Store) readSmall(op, name string) (string, error) {
	f, err := s.fs.OpenFile(op, name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<10))
	return string(b), err
}

func (s *Store) writeSmall(op, name, text string) error {
	return s.replaceFile(op, name, []byte(text))
}

// replaceFile makes name hold b, durably, or leaves it as it was.
func (s *Store) replaceFile(op, name string, b []byte) error {
	tmp := name + "~" + nonce(4)
	f, err := s.fs.OpenFile(op, tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = s.fs.Rename(op+".rename", tmp, name)
	}
	if err == nil {
		return s.fs.SyncDir(op+".syncdir", path.Dir(name))
	}
	_ = s.fs.Remove(op+".undo", tmp)
	return err
}

// nonce returns n random bytes in hex.
func nonce(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Close gives the lock back. Open images stay readable.
func (s *Store) Close() error { return s.lock.Unlock() }

// FS returns the file system of the directory, for the other keepers of
// private files.
func (s *Store) FS() FS { return s.fs }

// PrivateDir returns the name, in the file system, of the directory for
// everything that is not an image.
func (s *Store) PrivateDir() string { return dirPrivate }

// Dir returns the path of the cache directory.
func (s *Store) Dir() string { return s.dir }

// Instance returns the random id of the directory: 32 hex digits, the same
// for its whole life.
func (s *Store) Instance() string { return s.instance }

// Free returns how many bytes of the file system can still be written.
func (s *Store) Free() (int64, error) { return s.fs.Free("free") }
