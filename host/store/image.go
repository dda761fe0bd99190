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

// Info describes an image. Without a block table Meta is empty and Verified
// false.
type Info struct {
	ID      string
	Size    int64     // bytes
	ModTime time.Time // of the file: when its last byte was written
	Meta
	Verified bool // a block table guards each read
}

func makeInfo(id string, fi fs.FileInfo, t *blockTable) Info {
	info := Info{ID: id, Size: fi.Size(), ModTime: fi.ModTime()}
	if t != nil {
		info.Meta, info.Verified = t.meta, true
	}
	return info
}

// Stat describes an image. The error is fs.ErrNotExist when there is none.
func (s *Store) Stat(id string) (Info, error) {
	if err := checkID(id); err != nil {
		return Info{}, err
	}
	fi, err := s.lstat("stat", id)
	if err != nil {
		return Info{}, fmt.Errorf("stat image: %w", err)
	}
	return makeInfo(id, fi, s.readTable(id, fi)), nil
}

// OpenImage opens an image for reading. The error is fs.ErrNotExist when
// there is none. An open image stays readable when it is replaced or leaves
// the cache.
func (s *Store) OpenImage(id string) (*Image, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	f, err := s.fs.OpenFile("image", id, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stat image: %w", err), f.Close())
	}
	t := s.readTable(id, fi)
	im := &Image{file: f, info: makeInfo(id, fi, t)}
	if t != nil {
		im.sums = t.sums
	}
	return im, nil
}

// Image is an open image. Several goroutines may read it at once.
type Image struct {
	file File
	info Info
	sums []uint32 // CRC32C by block; nil: not verified
}

// Info describes the image as it was when it was opened.
func (im *Image) Info() Info { return im.info }

// ReadBlock reads block n, that is the bytes from n*BlockSize, into buf,
// which must hold BlockSize bytes, and returns the part of buf that it
// filled. It checks them if the image has a block table. The error wraps
// [ErrCorrupt] when the bytes are wrong, missing or unreadable, and is io.EOF
// when n is past the last block.
func (im *Image) ReadBlock(n int64, buf []byte) ([]byte, error) {
	if n < 0 || n >= blockCount(im.info.Size) {
		return nil, io.EOF
	}
	want := min(BlockSize, im.info.Size-n*BlockSize)
	if int64(len(buf)) < want {
		return nil, io.ErrShortBuffer
	}
	buf = buf[:want]
	if got, err := im.file.ReadAt(buf, n*BlockSize); int64(got) < want {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%w: block %d of %s: %w", ErrCorrupt, n, im.info.ID, err)
	}
	if im.sums != nil && crc32.Checksum(buf, castagnoli) != im.sums[n] {
		return nil, fmt.Errorf("%w: block %d of %s has another checksum", ErrCorrupt, n, im.info.ID)
	}
	return buf, nil
}

// ReadAt reads without verifying.
func (im *Image) ReadAt(p []byte, off int64) (int, error) { return im.file.ReadAt(p, off) }

// Close ends the reading.
func (im *Image) Close() error { return im.file.Close() }
