package xattr

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
)

// directory is a cache directory as this driver sees it: the images directly
// in it, and what the driver keeps in .imgcache. Nothing is opened through a
// symbolic link.
type directory struct {
	path    string
	images  *os.File // the directory itself
	private *os.File // its .imgcache
	own     *os.Root // .imgcache/xattr
	lock    *os.File // a file there
	attrs   attributes
}

// Modes of what is created, as those of everything in .imgcache.
const (
	dirPerm  fs.FileMode = 0o750
	filePerm fs.FileMode = 0o640
)

func openDirectory(path string, attrs attributes) (_ *directory, err error) {
	d := &directory{path: path, attrs: attrs}
	defer func() {
		if err != nil {
			_ = d.close()
		}
	}()
	own := filepath.Join(path, ".imgcache", "xattr")
	if err := os.MkdirAll(filepath.Join(own, versionsDir), dirPerm); err != nil {
		return nil, err
	}
	if d.images, err = os.Open(path); err != nil {
		return nil, err
	}
	if d.private, err = os.Open(filepath.Dir(own)); err != nil {
		return nil, err
	}
	if d.own, err = os.OpenRoot(own); err != nil {
		return nil, err
	}
	d.lock, err = d.own.OpenFile("lock", os.O_RDWR|os.O_CREATE, filePerm)
	return d, err
}

func (d *directory) close() error {
	var errs []error
	for _, f := range []*os.File{d.images, d.private, d.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if d.own != nil {
		errs = append(errs, d.own.Close())
	}
	return errors.Join(errs...)
}

// image is an open image file.
type image struct {
	*os.File
	id   string
	stat *syscall.Stat_t
}

// errNoImage says that there is no file in which a record could be.
var errNoImage = fmt.Errorf("no image: %w", fs.ErrNotExist)

// open opens the file of an image. A name that is no id, a link, and whatever
// is no regular file are as absent.
func (d *directory) open(id string) (*image, error) {
	if !sdk.ValidID(id) {
		return nil, errNoImage
	}
	fd, err := unix.Openat(int(d.images.Fd()), id, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
	case unix.ENOENT, unix.ELOOP, unix.ENXIO: // the latter two: a link, a socket
		return nil, errNoImage
	default:
		return nil, &fs.PathError{Op: "open", Path: id, Err: err}
	}
	f := os.NewFile(uintptr(fd), id)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNoImage
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &image{f, id, info.Sys().(*syscall.Stat_t)}, nil
}

// with does something with the file of an image, unless there is none.
func (d *directory) with(id string, do func(*image) error) error {
	im, err := d.open(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer im.Close()
	return do(im)
}

func (im *image) accessed() time.Time { return time.Unix(im.stat.Atim.Unix()).UTC() }
func (im *image) modified() time.Time { return time.Unix(im.stat.Mtim.Unix()).UTC() }

// entry is the record that Glance would make of the file.
func (im *image) entry(hits uint64) sdk.Entry {
	return sdk.Entry{ID: im.id, Size: im.stat.Size, Hits: hits, LastAccessed: im.accessed(), LastModified: im.modified()}
}

// ids returns the names in the directory that may be images.
func (d *directory) ids() ([]string, error) {
	list, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	ids := names[:0]
	for _, name := range names {
		if sdk.ValidID(name) {
			ids = append(ids, name)
		}
	}
	return ids, nil
}

// lockPause is the time between attempts to get a lock that another process
// has, which lasts as long as a batch.
const lockPause = 10 * time.Millisecond

// exclude waits until no other process writes records here. Two may run for a
// moment, when a host was killed and the next one starts.
func (d *directory) exclude(ctx context.Context) (release func() error, err error) {
	for {
		err := d.flock(unix.LOCK_EX | unix.LOCK_NB)
		if err == nil {
			return func() error { return d.flock(unix.LOCK_UN) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

func (d *directory) flock(how int) error {
	return os.NewSyscallError("flock", unix.Flock(int(d.lock.Fd()), how))
}

// probe finds out whether a new file here takes an attribute.
func (d *directory) probe() error {
	const name = "probe"
	f, err := d.own.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, filePerm)
	if err != nil {
		return err
	}
	defer f.Close()
	var value, got []byte
	value = make([]byte, probeSize)
	rand.Read(value) // never fails; what another file has could be shared with it
	if err = d.attrs.set(f, recordName, value); err == nil {
		got, err = d.attrs.get(f, recordName)
	}
	if err == nil && !bytes.Equal(got, value) {
		err = errors.New("an attribute does not have the value that was written")
	}
	return errors.Join(err, d.own.Remove(name))
}
