package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"
)

// Info is what the store knows of a complete image.
type Info struct {
	ID       string
	Size     int64 // bytes
	ModTime  time.Time
	Meta          // zero when there is no block table
	Verified bool // there is a block table: each read is checked
}

// Image is an open image. It stays readable when its name is taken away.
type Image struct {
	file  File
	info  Info
	table *table // nil: unverified
}

// Stat returns what there is under id. The error wraps fs.ErrNotExist when
// that is no image; what is no regular file is none.
func (s *Store) Stat(id string) (Info, error) {
	if !ValidID(id) {
		return Info{}, fmt.Errorf("%w: %.40q", ErrBadID, id)
	}
	fi, err := s.fs.Lstat("stat", id)
	if err != nil {
		return Info{}, err
	}
	if !fi.Mode().IsRegular() {
		return Info{}, &fs.PathError{Op: "stat", Path: id, Err: errNotRegular}
	}
	info, _ := s.describe(id, fi)
	return info, nil
}

// describe joins a file with its block table, if that is there and fits.
func (s *Store) describe(id string, fi fs.FileInfo) (Info, *table) {
	info := Info{ID: id, Size: fi.Size(), ModTime: fi.ModTime()}
	t, err := s.readTable(id)
	if err != nil || !t.describes(fi) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("block table is ignored; reads are not verified", "image", id, "error", err)
		}
		return info, nil
	}
	info.Meta, info.Verified = t.meta(), true
	return info, t
}

func (s *Store) readTable(id string) (*table, error) {
	f, err := s.fs.OpenFile("table", dirBlocks+"/"+id, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return parseTable(b)
}

// OpenImage opens a complete image. The error wraps fs.ErrNotExist when there
// is none.
func (s *Store) OpenImage(id string) (*Image, error) {
	if !ValidID(id) {
		return nil, fmt.Errorf("%w: %.40q", ErrBadID, id)
	}
	f, err := s.fs.OpenFile("image", id, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	im := &Image{file: f}
	im.info, im.table = s.describe(id, fi)
	return im, nil
}

// Info describes the image as it was when it was opened.
func (im *Image) Info() Info { return im.info }

// ReadBlock reads block n, of BlockSize bytes except for the last one, into
// buf, which must hold as much, and returns it. With a block table the bytes
// were checked; without one only that they are all there. Errors wrap
// ErrCorrupt when the file is not what was committed, a failing disk
// included: neither may be served.
func (im *Image) ReadBlock(n int64, buf []byte) ([]byte, error) {
	off := n * BlockSize
	if n < 0 || off >= im.info.Size {
		return nil, fmt.Errorf("block %d of an image of %d bytes: %w", n, im.info.Size, fs.ErrInvalid)
	}
	p := buf[:min(BlockSize, im.info.Size-off)]
	if got, err := im.file.ReadAt(p, off); got < len(p) {
		return nil, fmt.Errorf("%w: block %d has %d of %d bytes: %w", ErrCorrupt, n, got, len(p), err)
	}
	if im.table != nil {
		if got, want := crc32.Checksum(p, castagnoli), im.table.sums[n]; got != want {
			return nil, fmt.Errorf("%w: block %d has CRC32C %08x, committed was %08x", ErrCorrupt, n, got, want)
		}
	}
	return p, nil
}

// Close ends the use of the image.
func (im *Image) Close() error { return im.file.Close() }
