// Package kv is the store of keys and values that the host gives to a module:
// one file for each plugin, with a quota.
package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// DefaultQuota is the limit of what a plugin stores, in bytes: the records
	// of half a million images.
	DefaultQuota = 128 << 20

	// overhead is what a pair counts besides its bytes, so that empty pairs
	// are not free.
	overhead = 16

	// lockTimeout is how long another process may hold the file: as long as
	// the kernel takes to end one that was killed.
	lockTimeout = 5 * time.Second
)

// The buckets of the file.
var (
	pairs = []byte("pairs")
	meta  = []byte("meta")
	used  = []byte("used") // in meta: bytes of all pairs, as a little-endian u64
)

// Store is an open store. Its methods may be called concurrently.
type Store struct {
	db    *bbolt.DB
	quota uint64
}

// Open opens the store in a file, which it creates if necessary; the directory
// must exist. quota is in bytes, 0 means [DefaultQuota]. A damaged file is
// renamed, because plugins can rebuild what they store; its new name is
// returned with an empty store. An error wraps sdk.ErrUnavailable.
func Open(ctx context.Context, path string, quota int64) (s *Store, aside string, err error) {
	s, err = open(path, quota)
	var d *damage
	if errors.As(err, &d) && ctx.Err() == nil {
		aside = fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000000"))
		if err := os.Rename(path, aside); err != nil {
			return nil, "", fmt.Errorf("%w: move the damaged store aside: %w", sdk.ErrUnavailable, err)
		}
		s, err = open(path, quota)
	}
	if err != nil {
		return nil, aside, fmt.Errorf("%w: open the store of keys and values: %w", sdk.ErrUnavailable, err)
	}
	return s, aside, nil
}

// damage says that a file does not contain a readable store.
type damage struct{ cause error }

func (d *damage) Error() string { return d.cause.Error() }

func open(path string, quota int64) (s *Store, err error) {
	if quota <= 0 {
		quota = DefaultQuota
	}
	// bbolt trusts the mapped file: damage shows as a panic, or as a memory
	// fault where the file ends too early.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var db *bbolt.DB
	defer func() {
		if r := recover(); r != nil {
			err = &damage{fmt.Errorf("%v", r)}
		}
		if err != nil && db != nil {
			_ = db.Close()
		}
	}()
	if info, serr := os.Lstat(path); serr == nil && !info.Mode().IsRegular() {
		return nil, &damage{fmt.Errorf("%s is not a regular file", path)}
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, asDamage(err)
	}
	s = &Store{db: db, quota: uint64(quota)}
	return s, s.prepare()
}

// asDamage tells errors about the content of a file from errors of opening it.
func asDamage(err error) error {
	const tooSmall = "file size too small" // bbolt has no name for this one
	if errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrVersionMismatch) ||
		errors.Is(err, bolterrors.ErrChecksum) || strings.Contains(err.Error(), tooSmall) {
		return &damage{err}
	}
	return err
}

// prepare makes the buckets, and reads all of them.
func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(pairs)
		if err != nil {
			return err
		}
		m, err := tx.CreateBucketIfNotExists(meta)
		if err != nil {
			return err
		}
		var sum uint64
		var last []byte
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if bytes.Compare(k, last) <= 0 {
				return &damage{errors.New("the keys are out of order")}
			}
			sum += cost(k, v)
			last = k
		}
		return setUsed(m, sum)
	})
}

func cost(key, value []byte) uint64 { return overhead + uint64(len(key)) + uint64(len(value)) }

func setUsed(m *bbolt.Bucket, n uint64) error {
	return m.Put(used, binary.LittleEndian.AppendUint64(nil, n))
}

// Close closes the file. No call may be running.
func (s *Store) Close() error { return s.db.Close() }

// Get calls use with the value of a key, which is valid until it returns. A key
// that is not there is sdk.ErrNotFound.
func (s *Store) Get(key []byte, use func(value []byte)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(pairs).Get(key)
		if v == nil {
			return sdk.ErrNotFound
		}
		use(v)
		return nil
	})
}

// Scan calls yield with the pairs whose keys begin with prefix and come after
// after, in the order of the bytes of their keys, until it returns false. A
// pair is valid until yield returns.
func (s *Store) Scan(prefix, after []byte, yield func(abi.Pair) bool) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(pairs).Cursor()
		from := prefix
		if bytes.Compare(after, prefix) > 0 {
			from = after
		}
		k, v := c.Seek(from)
		if len(after) > 0 && bytes.Equal(k, after) {
			k, v = c.Next()
		}
		for ; k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if !yield(abi.Pair{Key: k, Value: v}) {
				break
			}
		}
		return nil
	})
}

// Write carries out changes in their order, all or none, and returns when they
// are on disk. A change that the ABI does not allow is sdk.ErrInvalid; one that
// the quota or the disk has no room for is sdk.ErrUnavailable.
func (s *Store) Write(changes []byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b, m := tx.Bucket(pairs), tx.Bucket(meta)
		sum := binary.LittleEndian.Uint64(m.Get(used))
		for p, err := range abi.Pairs(changes) {
			if err == nil {
				sum, err = change(b, sum, p)
			}
			if err != nil {
				return err
			}
		}
		if sum > s.quota {
			return fmt.Errorf("%w: the plugin may store %d bytes, and this would make %d", sdk.ErrUnavailable, s.quota, sum)
		}
		return setUsed(m, sum)
	})
	if err != nil && !errors.Is(err, sdk.ErrInvalid) && !errors.Is(err, sdk.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", sdk.ErrUnavailable, err)
	}
	return err
}

// change carries out one change of a store of sum bytes, and returns the new
// sum.
func change(b *bbolt.Bucket, sum uint64, p abi.Pair) (uint64, error) {
	if err := p.Validate(); err != nil {
		return sum, err
	}
	if old := b.Get(p.Key); old != nil {
		sum -= cost(p.Key, old)
	}
	if p.Delete {
		return sum, b.Delete(p.Key)
	}
	return sum + cost(p.Key, p.Value), b.Put(p.Key, p.Value)
}
