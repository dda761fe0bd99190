package store

import (
	"errors"
	"fmt"
	"io"
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

// takeLock locks the lock file and writes our process id to it. The file is
// never removed: otherwise two processes could hold locks on two files of the
// same name.
func (l *layout) takeLock() error {
	f, err := l.fs.OpenFile("lock", lockFile, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := lock(f); err != nil {
		return errors.Join(err, f.Close())
	}
	l.lock = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

func lock(f File) error {
	l, ok := f.(locker)
	if !ok {
		return errors.New("lock: the file system does not support locks")
	}
	err := l.Lock()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		b, _ := io.ReadAll(io.LimitReader(f, smallFile)) // only for the message
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return &LockedError{PID: pid}
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}
