package storetest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// MemoryDir returns a directory that lasts until the test ends, in memory where
// the machine has room for it: a test that needs nothing to be synced then waits
// for no disk.
func MemoryDir(t testing.TB) string {
	t.Helper()
	parent, err := inMemory()
	if err != nil {
		parent = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir := filepath.Join(parent, "cache")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	return dir
}

func inMemory() (string, error) {
	const (
		shm  = "/dev/shm"
		room = 1 << 30 // bytes; the 64 MiB of many containers are too few for parallel tests
	)
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err != nil {
		return "", err
	}
	if int64(st.Bavail)*st.Frsize < room {
		return "", syscall.ENOSPC
	}
	return os.MkdirTemp(shm, "store")
}
