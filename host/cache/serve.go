package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// cachedContent serves a stored image.
type cachedContent struct {
	meta
	c       *Cache
	im      *image
	file    *store.Image
	source  origin.Origin // where to go on when a block is bad; may be nil
	name    string
	counted bool
}

// CopyTo checks each block against the block table in the read that serves
// it. When a block is bad the image is quarantined and the rest comes from
// the origin, if that still has the same version.
func (k *cachedContent) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	size := k.im.size
	end := size
	if n >= 0 {
		end = min(size, off+n)
	}
	pos, err := k.copyBlocks(ctx, w, off, end)
	if errors.Is(err, store.ErrCorrupt) {
		k.c.quarantine(k.im, err)
		pos, err = k.repair(ctx, w, pos, end)
	}
	k.c.stats.served.Add(uint64(pos - off))
	if err == nil && end == size && !k.counted {
		k.counted = true
		k.c.stats.hits.Add(1)
		k.c.index.hit(k.im)
	}
	return pos - off, err
}

func (k *cachedContent) copyBlocks(ctx context.Context, w io.Writer, pos, end int64) (int64, error) {
	buf := blocks.get()
	defer blocks.put(buf)
	for pos < end {
		if err := ctx.Err(); err != nil {
			return pos, err
		}
		n := pos / blockSize
		block, err := k.file.ReadBlock(n, buf)
		if err != nil {
			return pos, fmt.Errorf("read block %d: %w", n, err)
		}
		from := pos - n*blockSize
		to := min(int64(len(block)), end-n*blockSize)
		m, err := w.Write(block[from:to])
		pos += int64(m)
		if err != nil {
			return pos, err
		}
	}
	return pos, nil
}

// repair copies [pos, end) from the origin's copy of the same version.
func (k *cachedContent) repair(ctx context.Context, w io.Writer, pos, end int64) (int64, error) {
	if k.source == nil || k.info.Version == "" {
		return pos, fmt.Errorf("%w: block at %d is corrupt and no origin can replace it", ErrVerify, pos)
	}
	n, err := copyRange(ctx, w, k.source, origin.Request{Name: k.name, Offset: pos, Length: end - pos, Version: k.info.Version})
	return pos + n, err
}

func (k *cachedContent) Close() error {
	err := k.file.Close()
	k.c.index.release(k.im)
	return err
}
