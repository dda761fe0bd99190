// Package store keeps image files in the cache directory.
//
// The directory has the layout of Glance's image cache, so that an operator
// can hand a cache over in both directions. What Glance does not know of lies
// in one directory that no id can name:
//
//	<id>                        an image: whole, verified, ready to be served
//	incomplete/<id>~<nonce>     a file that this process writes ([Store.Stage]) or may go on with
//	incomplete/<id>             a foreign one: Glance writes it, or died over it
//	invalid/<id>                a file that failed, kept for inspection
//	queue/<id>                  a marker, empty or with a note: the image shall be fetched
//	.imgcache/lock              held by the process that owns the directory
//	.imgcache/format            version of everything below .imgcache
//	.imgcache/instance          random name of this cache, for ever
//	.imgcache/blocks/<id>~<n>   block table of the image in inode n (hexadecimal)
//	.imgcache/fills/<...>       checkpoint of the file of that name in incomplete/
//	.imgcache/trash/<id>~<...>  an image on its way out, not unlinked yet
//
// The files are the truth: an image is cached when its file is in the base
// directory. It comes there by one rename, after its bytes were synced, so
// that neither a crash nor a loss of power can leave a part of it.
//
// The block table of an image holds the CRC32C of each of its blocks and what
// the origin said of it. A table belongs to one inode. When it is damaged, or
// the file has another size than it was written for, nothing vouches for the
// file, which is then corrupt. An image without a table, as one that Glance
// stored, is served, but is not verified while it is read; [Image.Vouch] gives
// it one. The time of a table's file is that of the last check of the image.
//
// Only regular files are images. A symbolic link, directory, FIFO or device
// that bears the name of one does not exist for this package.
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
	"time"
)

// ErrBadID says that an id does not follow the grammar of [ValidID].
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

// Store is an open cache directory. This process alone owns it until Close.
type Store struct {
	dir      string
	fs       FS
	log      *slog.Logger
	now      func() time.Time
	instance string
	lock     File
	closer   io.Closer // of an FS that Open made; may be nil

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
// [*LockedError] when another process has it, and changes nothing when a
// newer version of the program has written it.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		dir: cfg.Dir, fs: cfg.FS, log: cfg.Logger, now: cfg.Now,
		staged: make(map[string]*Staged),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.fs == nil {
		fsys, err := OpenFS(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("open cache directory: %w", err)
		}
		s.fs, s.closer = fsys, fsys.(io.Closer)
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open cache directory %s: %w", cfg.Dir, err), s.Close())
	}
	return s, nil
}

// Close gives up the lock. Images and staged files that are open stay usable.
func (s *Store) Close() error {
	var errs []error
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.closer != nil {
		errs = append(errs, s.closer.Close())
	}
	return errors.Join(errs...)
}

// FS returns the operations on the cache directory, for those who keep files
// of their own in PrivateDir.
func (s *Store) FS() FS { return s.fs }

// PrivateDir is the directory, relative to the cache directory, that holds
// what is not an image. No id can name it.
func (s *Store) PrivateDir() string { return privateDir }

// Instance is the random name, 32 hexadecimal digits, that the cache got when
// it was made.
func (s *Store) Instance() string { return s.instance }

// Free returns the number of bytes that can still be written.
func (s *Store) Free() (int64, error) {
	free, err := s.fs.Free("free")
	if err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	return free, nil
}

// lstat is Lstat of a name that counts only as a regular file.
func (s *Store) lstat(op, name string) (fs.FileInfo, error) {
	fi, err := s.fs.Lstat(op, name)
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "stat", Path: name, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	return fi, nil
}

// remove is Remove, for which an absent file is no error.
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
