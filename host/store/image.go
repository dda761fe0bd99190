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

// Info describes an image. Without a block table that fits, Meta is empty and
// Verified is false.
type Info struct {
	ID      string
	Size    int64     // bytes
	ModTime time.Time // of the file: when its last byte was written
	Inode   uint64    // of the file; it stays the same when the file is changed or moved
	OnDisk  int64     // bytes of the disk that the file takes; fewer than Size if it has holes
	Meta
	Verified   bool  // each read is checked against a block table
	Unreadable error // why a scan could not open an adopted image; nil: it could, or did not try
}

func makeInfo(id string, fi fs.FileInfo, t *blockTable) Info {
	info := Info{ID: id, Size: fi.Size(), ModTime: fi.ModTime(), Inode: inode(fi), OnDisk: allocated(fi)}
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
	return makeInfo(id, fi, s.peekTable(id, fi)), nil
}

// OpenImage opens an image for reading. The error is fs.ErrNotExist when
// there is none, and wraps [ErrCorrupt] when the block table is damaged or the
// size of the image has changed. An open image stays readable when it is
// replaced or leaves the cache.
func (s *Store) OpenImage(id string) (*Image, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	for {
		im, current, err := s.openImage(id)
		if err != nil {
			return nil, fmt.Errorf("open image: %w", err)
		}
		if im.table != nil || current {
			return im, nil
		}
		// It was replaced after it was opened, and its table dropped.
		im.Close()
	}
}

// openImage also reports whether the file that it opened is still the image.
func (s *Store) openImage(id string) (im *Image, current bool, err error) {
	f, err := s.fs.OpenFile("image", id, os.O_RDONLY, 0)
	if err != nil {
		return nil, false, err
	}
	im = &Image{s: s, file: f}
	im.stat, err = f.Stat()
	if err == nil {
		im.table, err = s.loadTable(id, im.stat)
	}
	if err == nil && im.table == nil {
		current, err = s.isImage(id, im.stat)
	}
	if err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	im.info = makeInfo(id, im.stat, im.table)
	return im, current, nil
}

// isImage reports whether a file is the image of that id. The error is
// fs.ErrNotExist when there is none.
func (s *Store) isImage(id string, fi fs.FileInfo) (bool, error) {
	now, err := s.lstat("image.lstat", id)
	return err == nil && os.SameFile(fi, now), err
}

// Image is an open image. Several goroutines may read it at once.
type Image struct {
	s     *Store
	file  File
	stat  fs.FileInfo // when it was opened
	info  Info
	table *blockTable // nil: not verified
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
	if err := im.Check(n, buf); err != nil {
		return nil, err
	}
	return buf, nil
}

// Check compares bytes from any source with the checksum of block n. The error
// wraps [ErrCorrupt] when they differ. Without a block table it returns nil.
func (im *Image) Check(n int64, block []byte) error {
	if im.table != nil && crc32.Checksum(block, castagnoli) != im.table.sums[n] {
		return fmt.Errorf("%w: block %d of %s has the wrong checksum", ErrCorrupt, n, im.info.ID)
	}
	return nil
}

// Forget says that block n will not be read again soon and need not stay in
// memory.
func (im *Image) Forget(n int64) {
	if f, ok := im.file.(forgetter); ok {
		_ = f.Forget(n*BlockSize, BlockSize) // only saves memory
	}
}

// Close ends the reading.
func (im *Image) Close() error { return im.file.Close() }
