package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// The directories, relative to the cache directory.
const (
	incompleteDir = "incomplete"
	invalidDir    = "invalid"
	queueDir      = "queue"
	privateDir    = ".imgcache"
	blocksDir     = privateDir + "/blocks"
	trashDir      = privateDir + "/trash"
	fillsDir      = privateDir + "/fills"
)

// The files in the private directory.
const (
	lockFile     = privateDir + "/lock"
	formatFile   = privateDir + "/format"
	instanceFile = privateDir + "/instance"
)

// format is the version of everything in the private directory. It rises
// when an older program would misread it.
const format = 1

// Modes of what is created. The group may read, so that an operator or
// Glance, running as another user, can.
const (
	filePerm fs.FileMode = 0o640
	dirPerm  fs.FileMode = 0o750
)

func join(dir, name string) string { return path.Join(dir, name) }

// prepare checks the format, takes the lock, and makes what is missing, in an
// order that changes nothing in a directory that is not ours to change.
func (s *Store) prepare() error {
	if _, err := s.readFormat(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.fs.Mkdir("open.mkdir", privateDir, dirPerm); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	for _, dir := range []string{blocksDir, trashDir, fillsDir, incompleteDir, invalidDir, queueDir} {
		if err := s.fs.Mkdir("open.mkdir", dir, dirPerm); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := s.ensureFormat(); err != nil {
		return err
	}
	return s.ensureInstance()
}

func (s *Store) readFormat() (int, error) {
	b, err := s.readSmall("open.format", formatFile)
	if err != nil {
		return 0, fmt.Errorf("read format: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || v < 1 {
		return 0, fmt.Errorf("%s holds %q, want the version of the format, %d", formatFile, b, format)
	}
	if v > format {
		return 0, fmt.Errorf("the directory has format %d, this program knows formats up to %d: use the newer program", v, format)
	}
	return v, nil
}

// ensureFormat reads the format again, now under the lock, or writes it.
func (s *Store) ensureFormat() error {
	_, err := s.readFormat()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.writeSmall("open.format", formatFile, strconv.Itoa(format)); err != nil {
		return fmt.Errorf("write format: %w", err)
	}
	return nil
}

func (s *Store) ensureInstance() error {
	b, err := s.readSmall("open.instance", instanceFile)
	if err == nil {
		s.instance = strings.TrimSpace(string(b))
		if raw, err := hex.DecodeString(s.instance); err == nil && len(raw) == 16 {
			return nil
		}
		s.log.Warn("the name of this cache is damaged, it gets a new one", "file", instanceFile)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read instance: %w", err)
	}
	s.instance = randomHex(16)
	if err := s.writeSmall("open.instance", instanceFile, s.instance); err != nil {
		return fmt.Errorf("write instance: %w", err)
	}
	return nil
}

// smallFile bounds what is read of a file that holds a line.
const smallFile = 256

func (s *Store) readSmall(op, name string) ([]byte, error) {
	f, err := s.fs.OpenFile(op, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, smallFile))
}

// writeSmall puts a line into a file, all of it or nothing.
func (s *Store) writeSmall(op, name, line string) error {
	tmp := name + ".new"
	if err := s.writeFile(op, tmp, append([]byte(line), '\n')); err != nil {
		return err
	}
	if err := s.fs.Rename(op+".rename", tmp, name); err != nil {
		return err
	}
	return s.fs.SyncDir(op+".syncdir", path.Dir(name))
}

// writeFile makes or replaces a file and syncs its bytes.
func (s *Store) writeFile(op, name string, b []byte) error {
	f, err := s.fs.OpenFile(op, name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, filePerm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(b))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// randomHex returns n random bytes as 2n hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
