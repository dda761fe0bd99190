package main

import (
	"os"
	"syscall"
	"testing"
)

// smallDisk returns a directory that takes 8 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("imgcache-test", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small file system at %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	_ = os.Chmod(dir, 0o755)
	return dir
}
