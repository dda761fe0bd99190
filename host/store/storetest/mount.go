package storetest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts a file system in memory with options as those of mount(8), such as
// "size=8m,nr_inodes=60", and returns its directory. It is unmounted when the test
// ends. Only root can do that: for anybody else the test fails.
func Mount(t testing.TB, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("imgcache-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a file system in memory, which root can do: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Remount makes what Mount has mounted read-only, or writable again.
func Remount(t testing.TB, dir string, readOnly bool) {
	t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", dir, "", flags, ""); err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}
