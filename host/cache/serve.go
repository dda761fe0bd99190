package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// cachedContent serves a stored image.
type cachedContent struct {
	meta
	c      *Cache
	im     *index.Image
	file   *store.Image
	source origin.Origin // where to go on when a block is bad; may be nil
	name   string
	client string // who reads it; "": unknown
}

// CopyTo reads each block, checks it against the block table and writes it; or the
// kernel sends it unread, if the configuration says so. If a block is bad, the image
// is quarantined and the rest comes from the origin, if that still has the same
// version.
func (k *cachedContent) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	size := k.im.Size
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
	if k.c.handedOut.add(k.client, k.im, off, pos) {
		k.c.stats.hits.Add(1)
		k.c.index.Hit(k.im)
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
		var m int64
		var err error
		if unread := k.unread(w, pos, end); unread > 0 {
			m, err = k.sendUnread(w, pos, unread, buf)
		} else {
			m, err = k.copyBlock(w, pos, end, buf)
		}
		pos += m
		if err != nil {
			return pos, err
		}
	}
	return pos, nil
}

// copyBlock reads and checks the block that contains pos, and writes the part of it
// that is in [pos, end).
func (k *cachedContent) copyBlock(w io.Writer, pos, end int64, buf []byte) (int64, error) {
	n := pos / blockSize
	block, err := k.file.ReadBlock(n, buf)
	if err != nil {
		return 0, fmt.Errorf("read block %d: %w", n, err)
	}
	if k.c.cfg.VerifyReads == options.VerifyFirst && k.file.Info().Verified {
		k.im.Seen.Add(n, k.im.Size)
	}
	from := pos - n*blockSize
	m, err := w.Write(block[from:min(int64(len(block)), end-n*blockSize)])
	return int64(m), err
}

// unread returns how many bytes from pos on may be sent without being checked.
func (k *cachedContent) unread(w io.Writer, pos, end int64) int64 {
	if _, ok := w.(io.ReaderFrom); !ok {
		return 0
	}
	switch {
	case k.c.cfg.VerifyReads == options.VerifyNever, k.c.cfg.VerifyReads == options.VerifyFirst && !k.file.Info().Verified:
		return end - pos
	case k.c.cfg.VerifyReads == options.VerifyFirst:
		return min(k.im.Seen.Run(pos/blockSize)*blockSize, end) - pos
	default:
		return 0
	}
}

// sendUnread lets the kernel send n bytes from pos on. If that fails, the next block
// is read and written instead, which shows whether the file or the client causes the
// error. If the client took nothing until its deadline, that is not tried.
func (k *cachedContent) sendUnread(w io.Writer, pos, n int64, buf []byte) (int64, error) {
	m, err := k.file.Send(w.(io.ReaderFrom), pos, n)
	if m == n {
		return m, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return m, fmt.Errorf("send: %w", err)
	}
	rest, err := k.copyBlock(w, pos+m, pos+n, buf)
	return m + rest, err
}

// repair copies [pos, end) from the origin, which must have the same version. Each
// block is checked against the table.
func (k *cachedContent) repair(ctx context.Context, w io.Writer, pos, end int64) (int64, error) {
	if k.source == nil || k.info.Version == "" {
		return pos, fmt.Errorf("%w: the block at offset %d is corrupt, and no origin can replace it", ErrVerify, pos)
	}
	first := pos - pos%blockSize // only whole blocks can be checked
	last := min(k.im.Size, (end+blockSize-1)/blockSize*blockSize)
	_, body, err := k.source.Open(ctx, origin.Request{Name: k.name, Offset: first, Length: last - first, Version: k.info.Version})
	if err != nil {
		return pos, err
	}
	defer body.Close()
	buf := blocks.get()
	defer blocks.put(buf)
	for pos < end {
		at := pos - pos%blockSize
		block := buf[:min(blockSize, last-at)]
		if _, err := io.ReadFull(body, block); err != nil {
			return pos, fmt.Errorf("%w: replace corrupt block: %w", origin.ErrUnavailable, err)
		}
		if err := k.file.Check(at/blockSize, block); err != nil {
			return pos, fmt.Errorf("%w: the origin sends other bytes for this version than before: %w", ErrVerify, err)
		}
		m, err := w.Write(block[pos-at : min(int64(len(block)), end-at)])
		pos += int64(m)
		if err != nil {
			return pos, err
		}
	}
	return pos, nil
}

func (k *cachedContent) Close() error {
	err := k.file.Close()
	k.c.index.Close(k.im)
	return err
}
