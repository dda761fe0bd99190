package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// smallDisk returns a directory that takes 8 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	return diskOf(t, 8*mib)
}

// diskOf returns a directory that takes so many bytes.
func diskOf(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("imgcache-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a file system of %d bytes at %s: %v", size, dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	_ = os.Chmod(dir, 0o755)
	return dir
}
