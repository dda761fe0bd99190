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

// layoutDirs are all of them but the private one, which comes first.
var layoutDirs = []string{blocksDir, trashDir, fillsDir, incompleteDir, invalidDir, queueDir}

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

// layout is a cache directory that is being opened, or put in order.
type layout struct {
	fs       FS
	log      *slog.Logger
	upgrades []upgrade

	locks    locks
	instance string // "": not known yet
}

// prepare checks the format, takes the locks, and makes what is missing, in an
// order that changes nothing in a directory that is not ours to change.
func (l *layout) prepare() error {
	if _, err := l.hasDir(privateDir); err != nil {
		return err
	}
	if _, err := l.readFormat(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.lockDir(); err != nil {
		return err
	}
	if _, err := l.ensureDir(privateDir); err != nil {
		return err
	}
	if err := l.lockTheFile(); err != nil {
		return err
	}
	for _, dir := range layoutDirs {
		if _, err := l.ensureDir(dir); err != nil {
			return err
		}
	}
	if _, err := l.ensureFormat(); err != nil {
		return err
	}
	_, err := l.ensureInstance()
	return err
}

// mend makes what is missing of the layout of a directory that was in order and
// is locked, and returns its names.
func (l *layout) mend() (made []string, err error) {
	steps := []struct {
		name   string
		ensure func() (bool, error)
	}{
		{privateDir, func() (bool, error) { return l.ensureDir(privateDir) }},
		{lockFile, l.ensureLockFile},
		{formatFile, l.ensureFormat},
		{instanceFile, l.ensureInstance},
	}
	for _, dir := range layoutDirs {
		steps = append(steps, struct {
			name   string
			ensure func() (bool, error)
		}{dir, func() (bool, error) { return l.ensureDir(dir) }})
	}
	for _, step := range steps {
		missing, err := step.ensure()
		if err != nil {
			return made, err
		}
		if missing {
			made = append(made, step.name)
		}
	}
	return made, nil
}

// ensureDir makes a directory of the layout if it is missing, and reports whether
// it was.
func (l *layout) ensureDir(dir string) (missing bool, err error) {
	if there, err := l.hasDir(dir); err != nil || there {
		return false, err
	}
	if err := l.fs.Mkdir("open.mkdir", dir, dirPerm); err != nil {
		return true, fmt.Errorf("make directory: %w", err)
	}
	return true, nil
}

// hasDir reports whether there is a directory. What bears its name and is none is
// an error that says what it is.
func (l *layout) hasDir(dir string) (bool, error) {
	fi, err := l.fs.Lstat("open.lstat", dir)
	switch {
	case err == nil && fi.IsDir():
		return true, nil
	case err == nil && fi.Mode().Type() == fs.ModeSymlink:
		return false, fmt.Errorf("%s is a symbolic link, expected a directory: images move between it and the cache directory, "+
			"which one file system must hold; remove the link, and to use another disk, link or mount the cache directory as a whole", dir)
	case err == nil:
		return false, fmt.Errorf("%s is %s, expected a directory: remove it or give it another name", dir, l.kind(dir))
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("look at directory: %w", err)
	}
	return false, nil
}

// kind says for people what a name is that is not what it should be.
func (l *layout) kind(name string) string {
	fi, err := l.fs.Lstat("open.kind", name)
	if err != nil {
		return "nothing that can be looked at"
	}
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
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

// ensureFormat reads the format again, now under the lock, and brings the
// directory to the newest one. It reports whether there was none, as in a new
// directory.
func (l *layout) ensureFormat() (missing bool, err error) {
	v, err := l.readFormat()
	if errors.Is(err, fs.ErrNotExist) {
		return true, l.writeFormat(l.format())
	}
	if err != nil {
		return false, err
	}
	for ; v < l.format(); v++ {
		if err := l.upgrades[v-1](l.fs); err != nil {
			return false, fmt.Errorf("upgrade from format %d: %w", v, err)
		}
		if err := l.writeFormat(v + 1); err != nil {
			return false, err
		}
		l.log.Info("the cache directory was upgraded", "format", v+1)
	}
	return false, nil
}

func (l *layout) writeFormat(v int) error {
	if err := writeSmall(l.fs, "open.format", formatFile, strconv.Itoa(v)); err != nil {
		return fmt.Errorf("write format: %w", err)
	}
	return nil
}

// ensureInstance reads the name of this cache, or gives it one, which is the one
// that is known already, if any. It reports whether the file was missing or
// damaged.
func (l *layout) ensureInstance() (missing bool, err error) {
	b, err := readSmall(l.fs, "open.instance", instanceFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read instance: %w", err)
	}
	if err == nil {
		name := strings.TrimSpace(string(b))
		if raw, err := hex.DecodeString(name); err == nil && len(raw) == 16 {
			l.instance = name
			return false, nil
		}
		l.log.Warn("the name of this cache is damaged and is written again", "file", instanceFile)
	}
	if l.instance == "" {
		l.instance = randomHex(16)
	}
	if err := writeSmall(l.fs, "open.instance", instanceFile, l.instance); err != nil {
		return true, fmt.Errorf("write instance: %w", err)
	}
	return true, nil
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
