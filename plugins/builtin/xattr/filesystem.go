package xattr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/imgcache/imgcache-host/sdk"
)

// probeSize is more than a record takes, and less than fits where the blocks of
// a file system have 1 KiB.
const probeSize = 768

// mustTakeAttributes refuses a file system that cannot store attributes, and
// says what to do.
func (d *directory) mustTakeAttributes() error {
	err := d.probe()
	if errors.Is(err, syscall.ENOTSUP) || tooLong(err) {
		return fmt.Errorf("%w: %s is on %s, which cannot store user attributes of %d bytes: use another driver, such as sqlite, "+
			"or move the directory to ext4, XFS, Btrfs, ZFS, or tmpfs since Linux 6.6 (%w)",
			sdk.ErrInvalid, d.path, fileSystem(d.path), probeSize, err)
	}
	if err != nil {
		return fmt.Errorf("try attributes in %s: %w", d.path, err)
	}
	return nil
}

// fileSystem names the one that a path lies on.
func fileSystem(path string) string {
	name := "a file system"
	if whole, err := filepath.EvalSymlinks(path); err == nil {
		path = whole
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	longest := 0
	for line := range strings.Lines(string(mounts)) {
		// 36 35 98:0 / /mnt/cache rw,noatime shared:1 - ext4 /dev/sda1 rw
		mount, source, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(source)
		if len(fields) < 5 || len(kind) == 0 {
			continue
		}
		at := fields[4]
		if below, ok := strings.CutPrefix(path, strings.TrimSuffix(at, "/")); ok && (below == "" || below[0] == '/') && len(at) >= longest {
			name, longest = fmt.Sprintf("%s (mounted at %s)", kind[0], at), len(at)
		}
	}
	return name
}
