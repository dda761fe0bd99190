package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// LockedError says that another process has the cache directory.
type LockedError struct {
	PID int // of the holder; 0: not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "in use by another process"
	}
	return fmt.Sprintf("in use by process %d", e.PID)
}

// locks are what keeps other processes out of a cache directory. The directory
// itself is locked, which no unlink can undo. The lock file is locked as well:
// older programs look there only, and people find our process id in it.
type locks struct {
	dir  io.Closer // nil: the file system does not lock directories
	file File
}

// release gives both up.
func (l *locks) release() error {
	var errs []error
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	if l.dir != nil {
		errs = append(errs, l.dir.Close())
	}
	*l = locks{}
	return errors.Join(errs...)
}

// lockDir locks the directory. It changes nothing in it.
func (l *layout) lockDir() error {
	d, err := l.fs.Lock("lock.dir")
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		l.log.Info("the file system does not lock directories; the lock file alone keeps other processes out", "file", lockFile, "error", err)
		return nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return &LockedError{PID: l.holder()}
	case err != nil:
		return fmt.Errorf("lock directory: %w", err)
	}
	l.locks.dir = d
	return nil
}

// holder is the process id in the lock file; 0: there is none.
func (l *layout) holder() int {
	b, _ := readSmall(l.fs, "lock.holder", lockFile) // for the message alone
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// lockTheFile locks the lock file, which is made if need be, in place of one
// that was locked and is not there any more, and writes our process id into it.
// The file stays for ever: were it removed, an older program could lock another
// one of the same name.
func (l *layout) lockTheFile() error {
	f, err := l.openLockFile()
	if err != nil {
		return err
	}
	if err := l.lockFile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if l.locks.file != nil {
		l.locks.file.Close()
	}
	l.locks.file = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// openLockFile opens the lock file. What bears its name and is no file, such as a
// link, is set aside: no program of ours has ever locked it.
func (l *layout) openLockFile() (File, error) {
	open := func() (File, error) { return l.fs.OpenFile("lock", lockFile, os.O_RDWR|os.O_CREATE, filePerm) }
	f, err := open()
	if errors.Is(err, ErrNotRegular) {
		const aside = lockFile + ".damaged"
		if err := l.fs.Rename("lock.setaside", lockFile, aside); err != nil {
			return nil, fmt.Errorf("%s is %s, expected a file, and cannot be set aside: remove it: %w", lockFile, l.kind(lockFile), err)
		}
		l.log.Warn("the lock is no file; it was set aside, and made anew", "is", l.kind(aside), "now", aside)
		f, err = open()
	}
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

// lockFile locks the open lock file.
func (l *layout) lockFile(f File) error {
	k, ok := f.(locker)
	if !ok {
		return errors.New("lock: the file system does not support locks")
	}
	err := k.Lock()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return &LockedError{PID: l.holder()}
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// ensureLockFile locks the lock file anew when the one that is locked has lost
// its name. It reports whether that was so.
func (l *layout) ensureLockFile() (bool, error) {
	locked, err := l.locks.file.Stat()
	if err != nil {
		return false, fmt.Errorf("stat lock: %w", err)
	}
	named, err := l.fs.Lstat("lock.lstat", lockFile)
	switch {
	case err == nil && os.SameFile(locked, named):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("stat lock: %w", err)
	}
	return true, l.lockTheFile()
}
