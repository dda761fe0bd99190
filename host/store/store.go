// Package store keeps image files in the cache directory.
//
// The directory has the layout of Glance's image cache, so that an operator
// can hand a cache over in both directions. What Glance does not know is in one
// directory that no id can name:
//
//	<id>                        an image: whole, verified, ready to be served
//	incomplete/<id>~<nonce>     a file that this process writes ([Store.Stage]) or may continue
//	incomplete/<id>             a foreign file: Glance writes it, or crashed while it did
//	invalid/<id>                a file that failed, kept for inspection
//	queue/<id>                  a marker, empty or with a note: the image is to be fetched
//	.imgcache/lock              locked, like the directory itself, by the process that owns it
//	.imgcache/format            version of everything below .imgcache
//	.imgcache/instance          random name of this cache, for ever
//	.imgcache/blocks/<id>~<n>   block table of the image in inode n (hexadecimal)
//	.imgcache/fills/<...>       checkpoint of the file of that name in incomplete/
//	.imgcache/trash/<id>~<...>  an image on its way out, not unlinked yet
//
// The files are the truth: an image is cached when its file is in the base
// directory. One rename puts it there, after its bytes were synced, so neither
// a crash nor a loss of power can leave a part of it.
//
// The block table of an image holds the CRC32C of each of its blocks and what
// the origin said about it. A table belongs to one inode. If the table is
// damaged, or the file does not have the size in the table, the image counts as
// corrupt. An image without a table, such as one that Glance stored, is served,
// but is not verified while it is read; [Image.Vouch] gives it a table. The
// modification time of a table is the time of the last check of the image.
//
// Only regular files are images. For this package a symbolic link, directory,
// FIFO or device with the name of an image does not exist.
//
// All methods may be called by several goroutines at once, except those of
// [Staged] and [Image], which say so themselves.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBadID says that [ValidID] is false for an id.
var ErrBadID = errors.New("bad image id")

// ErrCorrupt says that bytes of an image cannot be read, or are not those
// that were stored.
var ErrCorrupt = errors.New("image is corrupt")

// Config says which directory a [Store] keeps. Only Dir is required.
type Config struct {
	Dir    string           // made if it does not exist
	FS     FS               // operations on Dir; nil: the real ones
	Logger *slog.Logger     // nil: slog.Default()
	Now    func() time.Time // nil: time.Now
}

// ErrNotOpen says that the cache directory could not be opened yet, and why.
var ErrNotOpen = errors.New("the cache directory is not open")

// Store is a cache directory. Once it is open, this process alone owns it until
// Close.
type Store struct {
	cfg      Config
	upgrades []upgrade
	fs       *gate
	log      *slog.Logger
	now      func() time.Time

	instance atomic.Pointer[string] // nil: not open

	// opening is held while the directory is opened or put in order, and guards
	// what follows. It may be taken under publishing and queueing.
	opening sync.Mutex
	real    FS        // behind the gate; nil: not open
	locks   locks     // of the directory
	closer  io.Closer // of an FS that Open made; may be nil
	made    []string  // of the layout, anew, since Mend was asked
	known   string    // the name of the cache, if it was open once
	ended   bool      // by Close

	// publishing is held while names in the base directory change, which
	// takes several renames. It is never held for a sync, nor for an unlink
	// that frees space.
	publishing sync.Mutex

	mu     sync.Mutex
	staged map[string]*Staged // by name in incomplete/: those of this process

	queueing sync.Mutex
	newest   time.Time // of the queue's markers; zero: not read yet
}

// Open takes the lock of a cache directory and lays it out. It fails with a
// [*LockedError] when another process has it, and with a [*NewerError], having
// changed nothing, when a newer version of the program has written it.
func Open(cfg Config) (*Store, error) {
	s := New(cfg)
	if err := s.Open(); err != nil {
		return nil, err
	}
	return s, nil
}

// New returns a store whose directory is not open yet. Until [Store.Open] has
// succeeded its methods fail with [ErrNotOpen].
func New(cfg Config) *Store { return newStore(cfg, upgrades) }

func newStore(cfg Config, upgrades []upgrade) *Store {
	s := &Store{
		cfg: cfg, upgrades: upgrades, fs: &gate{}, log: cfg.Logger, now: cfg.Now,
		staged: make(map[string]*Staged),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.fs.shut(errors.New("it was not opened yet"))
	return s
}

// Open opens the directory like the function [Open]. It can be tried again after
// an error, and does nothing when the directory is open.
func (s *Store) Open() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.real != nil {
		return nil
	}
	return s.openLocked()
}

// openLocked needs the mutex opening.
func (s *Store) openLocked() error {
	fsys := s.cfg.FS
	var closer io.Closer
	if fsys == nil {
		real, err := OpenFS(s.cfg.Dir)
		if err != nil {
			err = fmt.Errorf("open cache directory: %w", err)
			s.fs.shut(err)
			return err
		}
		fsys, closer = real, real.(io.Closer)
	}
	l := &layout{fs: fsys, log: s.log, upgrades: s.upgrades, instance: s.known}
	if err := l.prepare(); err != nil {
		err = fmt.Errorf("open cache directory %s: %w", s.cfg.Dir, err)
		s.fs.shut(err)
		return errors.Join(err, l.locks.release(), closeIf(closer))
	}
	s.real, s.locks, s.closer = fsys, l.locks, closer
	s.known, s.ended = l.instance, false
	s.instance.Store(&l.instance)
	s.fs.open(fsys, s.mendForUse)
	return nil
}

// leaveLocked gives the directory up. It needs the mutex opening.
func (s *Store) leaveLocked() error {
	err := errors.Join(s.locks.release(), closeIf(s.closer))
	s.real, s.closer = nil, nil
	return err
}

func closeIf(c io.Closer) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// Now is the clock on the wall, by which files get their times.
func (s *Store) Now() time.Time { return s.now() }

// IsOpen reports whether [Store.Open] has succeeded, and the directory was not
// lost since.
func (s *Store) IsOpen() bool { return s.instance.Load() != nil }

// Close gives up the lock. Images and staged files that are open stay usable.
func (s *Store) Close() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.ended = true
	return s.leaveLocked()
}

// FS returns the operations on the cache directory, for callers that keep files
// of their own in PrivateDir.
func (s *Store) FS() FS { return s.fs }

// PrivateDir is the directory, relative to the cache directory, for everything
// that is not an image. No id can name it.
func (s *Store) PrivateDir() string { return privateDir }

// Instance is the random name, 32 hexadecimal digits, that the cache got when
// it was made; "" while the directory is not open.
func (s *Store) Instance() string {
	if name := s.instance.Load(); name != nil {
		return *name
	}
	return ""
}

// Free returns the number of bytes that can still be written.
func (s *Store) Free() (int64, error) {
	free, err := s.fs.Free("free")
	if err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	return free, nil
}

// lstat is Lstat where only a regular file counts as existing.
func (s *Store) lstat(op, name string) (fs.FileInfo, error) {
	fi, err := s.fs.Lstat(op, name)
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "stat", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		return nil, err
	}
	return fi, nil
}

// remove is Remove, where an absent file is not an error.
func (s *Store) remove(op, name string) error {
	err := s.fs.Remove(op, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// files calls f for each regular file of a directory, in no order. A file
// that vanishes meanwhile is left out.
func (s *Store) files(op, dir string, f func(fs.FileInfo) error) error {
	entries, err := s.fs.ReadDir(op, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := s.lstat(op+".stat", join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		if err := f(fi); err != nil {
			return err
		}
	}
	return nil
}

func isExist(err error) bool { return errors.Is(err, os.ErrExist) }
