package xattr

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// The attributes. Glance knows the second one, which has nothing but decimal
// digits.
const (
	recordName  = "user.imgcache.record"
	hitsName    = "user.hits"
	sourcesName = "user.imgcache.sources" // of .imgcache
)

// attributes are what is done to attributes of files. Tests let it fail.
type attributes interface {
	get(f *os.File, name string) ([]byte, error) // nil: there is none
	set(f *os.File, name string, value []byte) error
	remove(f *os.File, name string) error // that there is none is no error
}

type fileAttributes struct{}

func (fileAttributes) get(f *os.File, name string) ([]byte, error) {
	value, err := xattr.FGet(f, name)
	if errors.Is(err, xattr.ENOATTR) {
		return nil, nil
	}
	return value, err
}

func (fileAttributes) set(f *os.File, name string, value []byte) error {
	return xattr.FSet(f, name, value)
}

func (fileAttributes) remove(f *os.File, name string) error {
	if err := xattr.FRemove(f, name); !errors.Is(err, xattr.ENOATTR) {
		return err
	}
	return nil
}

// denied reports whether an error says that this process may not touch a file.
// It belongs to somebody else, or is immutable.
func denied(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}

// tooLong reports whether an error says that a file takes no attribute of that
// length, now or ever.
func tooLong(err error) bool {
	return errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ERANGE)
}

// errNoRoom says that a file does not take an attribute, now or ever.
var errNoRoom = errors.New("no room for attributes")

// set sets an attribute of an image. A file system without space for anything
// and a file without room give the same error: what a new file takes tells one
// from the other.
func (d *directory) set(im *image, name, value string) error {
	err := d.attrs.set(im.File, name, []byte(value))
	if tooLong(err) || errors.Is(err, syscall.ENOSPC) && d.probe() == nil {
		return fmt.Errorf("%w: %w", errNoRoom, err)
	}
	return err
}

// hits returns those that Glance sees, nil when there are none. What is no
// number counts nothing.
func (d *directory) hits(im *image) (*uint64, error) {
	value, err := d.attrs.get(im.File, hitsName)
	if err != nil || value == nil {
		return nil, err
	}
	hits, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		hits = 0
	}
	return &hits, nil
}

// setHits brings those that Glance sees from one number to another.
func (d *directory) setHits(im *image, from *uint64, to uint64) error {
	if from != nil && *from == to {
		return nil
	}
	return d.set(im, hitsName, strconv.FormatUint(to, 10))
}

// removeAll ends with the record: while that is there a batch that was cut
// short finds what is still to be removed.
func (d *directory) removeAll(im *image) error {
	for _, name := range []string{hitsName, recordName} {
		if err := d.attrs.remove(im.File, name); err != nil {
			return err
		}
	}
	return nil
}

// setAccessed moves the access time of a file and leaves its other time alone.
func (d *directory) setAccessed(im *image, at time.Time) error {
	accessed, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	times := []unix.Timespec{accessed, {Nsec: unix.UTIME_OMIT}}
	err = unix.UtimesNanoAt(int(d.images.Fd()), im.id, times, unix.AT_SYMLINK_NOFOLLOW)
	return os.NewSyscallError("utimensat", err)
}
