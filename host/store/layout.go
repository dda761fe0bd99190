package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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

// upgrade changes a directory from one format to the next. It may be
// interrupted, and is then called again.
type upgrade func(FS) error

// upgrades lead from format 1 to the current one, which is one more than their
// number. The format rises when an older program would misread the private
// directory. There is only one format so far.
var upgrades []upgrade

// Modes of what is created. The group may read, so that an operator or
// Glance, running as another user, can.
const (
	filePerm fs.FileMode = 0o640
	dirPerm  fs.FileMode = 0o750
)

func join(dir, name string) string { return path.Join(dir, name) }

// NewerError says that a newer version of the program has written the cache
// directory. Nothing in it was changed.
type NewerError struct {
	Format int // of the directory
	Known  int // the newest that this program knows
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the directory has format %d, this program knows formats up to %d: use the newer program", e.Format, e.Known)
}

// layout prepares a cache directory while it is opened.
type layout struct {
	fs       FS
	log      *slog.Logger
	upgrades []upgrade

	lock     File
	instance string
}

// prepare checks the format, takes the lock, and creates what is missing. The
// order makes sure that it changes nothing in a directory of another process or
// of a newer program.
func (l *layout) prepare() error {
	if _, err := l.readFormat(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.fs.Mkdir("open.mkdir", privateDir, dirPerm); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := l.takeLock(); err != nil {
		return err
	}
	for _, dir := range []string{blocksDir, trashDir, fillsDir, incompleteDir, invalidDir, queueDir} {
		if err := l.fs.Mkdir("open.mkdir", dir, dirPerm); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := l.ensureFormat(); err != nil {
		return err
	}
	return l.ensureInstance()
}

// release gives up the lock, and closes what else was opened.
func (l *layout) release(others io.Closer) error {
	var errs []error
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	if others != nil {
		errs = append(errs, others.Close())
	}
	return errors.Join(errs...)
}

// format is the newest format that is known.
func (l *layout) format() int { return len(l.upgrades) + 1 }

func (l *layout) readFormat() (int, error) {
	b, err := readSmall(l.fs, "open.format", formatFile)
	if err != nil {
		return 0, fmt.Errorf("read format: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || v < 1 {
		return 0, fmt.Errorf("%s contains %q; expected the version of the format, such as %d", formatFile, b, l.format())
	}
	if v > l.format() {
		return 0, &NewerError{Format: v, Known: l.format()}
	}
	return v, nil
}

// ensureFormat reads the format again, now under the lock, and upgrades the
// directory to the newest one. A directory without a format is new.
func (l *layout) ensureFormat() error {
	v, err := l.readFormat()
	if errors.Is(err, fs.ErrNotExist) {
		return l.writeFormat(l.format())
	}
	if err != nil {
		return err
	}
	for ; v < l.format(); v++ {
		if err := l.upgrades[v-1](l.fs); err != nil {
			return fmt.Errorf("upgrade from format %d: %w", v, err)
		}
		if err := l.writeFormat(v + 1); err != nil {
			return err
		}
		l.log.Info("the cache directory was upgraded", "format", v+1)
	}
	return nil
}

func (l *layout) writeFormat(v int) error {
	if err := writeSmall(l.fs, "open.format", formatFile, strconv.Itoa(v)); err != nil {
		return fmt.Errorf("write format: %w", err)
	}
	return nil
}

func (l *layout) ensureInstance() error {
	b, err := readSmall(l.fs, "open.instance", instanceFile)
	if err == nil {
		l.instance = strings.TrimSpace(string(b))
		if raw, err := hex.DecodeString(l.instance); err == nil && len(raw) == 16 {
			return nil
		}
		l.log.Warn("the name of this cache is damaged; the cache gets a new one", "file", instanceFile)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read instance: %w", err)
	}
	l.instance = randomHex(16)
	if err := writeSmall(l.fs, "open.instance", instanceFile, l.instance); err != nil {
		return fmt.Errorf("write instance: %w", err)
	}
	return nil
}

// smallFile bounds how much is read of a file that contains one line.
const smallFile = 256

func readSmall(fsys FS, op, name string) ([]byte, error) {
	f, err := fsys.OpenFile(op, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, smallFile))
}

// writeSmall writes a line to a file, completely or not at all.
func writeSmall(fsys FS, op, name, line string) error {
	return replaceFile(fsys, op, name, append([]byte(line), '\n'))
}

// replaceFile creates or replaces a file durably, completely or not at all.
func replaceFile(fsys FS, op, name string, b []byte) error {
	tmp := name + ".new"
	if err := writeFile(fsys, op, tmp, b); err != nil {
		return err
	}
	if err := fsys.Rename(op+".rename", tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(op+".syncdir", path.Dir(name))
}

// writeFile makes or replaces a file and syncs its bytes.
func writeFile(fsys FS, op, name string, b []byte) error {
	f, err := fsys.OpenFile(op, name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, filePerm)
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
