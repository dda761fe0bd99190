package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The versions of Landlock's interface that introduced what is used here: see
// Documentation/userspace-api/landlock.rst of the kernel.
const (
	referABI    = 2
	truncateABI = 3
	tcpABI      = 4
	ioctlABI    = 5
	scopeABI    = 6
)

// The rights to files, as sets.
const (
	readFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	readDir  = unix.LANDLOCK_ACCESS_FS_READ_DIR
	// ofFile are the rights that a rule for a file may give. All others are for
	// directories.
	ofFile = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	first  = 1<<13 - 1 // the rights of the first version
)

// system are the files of the system that every program needs.
var system = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime", "/etc/timezone",
	"/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/kernel/mm", "/sys/devices/system/cpu", "/sys/fs/cgroup",
	"/dev/urandom", "/dev/random", "/dev/zero",
}

// names are the files that are needed to find the address of a host and to trust it.
var names = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
	"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/run/systemd/resolve",
}

// landlockABI returns the version of the interface; 0: there is none.
func landlockABI() int {
	abi, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if err != 0 {
		return 0
	}
	return int(abi)
}

// handled returns the rights to files that are forbidden unless a rule gives them.
func handled(abi int) uint64 {
	rights := uint64(first)
	for version, right := range map[int]uint64{
		referABI: unix.LANDLOCK_ACCESS_FS_REFER, truncateABI: unix.LANDLOCK_ACCESS_FS_TRUNCATE, ioctlABI: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
	} {
		if abi >= version {
			rights |= right
		}
	}
	return rights
}

// landlock forbids this thread, and what it executes, everything that the rules do
// not allow. If the kernel has no Landlock it does nothing.
func (r Rules) landlock() error {
	abi := landlockABI()
	if abi == 0 {
		return nil
	}
	all := handled(abi)
	attr := unix.LandlockRulesetAttr{Handled_access_fs: all}
	if abi >= tcpABI && !r.Network {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= scopeABI {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
		if !r.Network {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	// Later kernels accept longer structures, but the first fields are enough.
	const size = 3 * 8
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), uintptr(known(abi, size)), 0)
	if errno != 0 {
		return fmt.Errorf("make Landlock rules: %w", errno)
	}
	defer unix.Close(int(fd))
	read := append(append([]string{}, system...), r.Read...)
	if r.Network {
		read = append(read, names...)
	}
	for _, path := range read {
		if err := allow(int(fd), path, (readFile|readDir)&all); err != nil {
			return err
		}
	}
	for _, path := range append([]string{"/dev/null"}, r.Write...) {
		if err := allow(int(fd), path, all); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("apply Landlock rules: %w", errno)
	}
	return nil
}

// known returns how many bytes of the attributes a kernel with that version knows.
func known(abi, size int) int {
	switch {
	case abi < tcpABI:
		return 8
	case abi < scopeABI:
		return 16
	}
	return size
}

// allow gives rights to a file, or to a directory and everything below it. It ignores
// a path that does not exist.
func allow(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFile
	}
	// The kernel's structure is packed and so shorter than Go's; the kernel does
	// not read the rest.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow %s: %w", path, errno)
	}
	return nil
}
