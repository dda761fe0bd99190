// Package confine takes away from a process the rights that a plugin does not need,
// and then executes the plugin in the same process, which cannot get them back. It
// uses what Linux offers to all users (no-new-privileges, Landlock, resource limits)
// and what it offers to root (capabilities, a network of its own).
package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Command is the first argument by which a supervisor tells its own program to call
// [Main].
const Command = "plugin-exec"

// Rules say what a plugin may do. It may always read and execute the system's
// programs and libraries.
type Rules struct {
	Read    []string `json:"read,omitempty"`    // files and directories that it may read and execute
	Write   []string `json:"write,omitempty"`   // files and directories in which it may do anything
	Network bool     `json:"network,omitempty"` // it may connect and listen
	Memory  int64    `json:"memory,omitempty"`  // bytes of data; 0: no limit
	// Foreign lets plugins of root use files of other users among those that
	// they may read and write. A driver needs this in a cache directory that was
	// Glance's.
	Foreign bool `json:"foreign,omitempty"`
}

// A Layer is one of the walls around a plugin.
type Layer struct {
	Name  string
	Holds bool // it works on this kernel, for the user of this process
}

// Layers returns the walls that the rules ask for.
func (r Rules) Layers() []Layer {
	abi, root := landlockABI(), os.Geteuid() == 0
	list := []Layer{
		{"no-new-privileges", true},
		{"resource-limits", true},
		{"landlock-files", abi >= 1},
		{"landlock-signals", abi >= scopeABI},
	}
	if !r.Network {
		list = append(list, Layer{"no-network", able(unix.CAP_SYS_ADMIN) || abi >= tcpABI})
	}
	if root {
		list = append(list, Layer{"no-capabilities", true})
	}
	return list
}

// Main confines this process and executes a program in it. args are the rules as
// JSON, the path of the program, and its arguments, of which the first is its name.
// Main returns only if that fails: it writes a line to stderr and returns the exit
// code.
func Main(args []string, stderr io.Writer) int {
	if len(args) < 3 {
		fmt.Fprintf(stderr, "%s: got %d arguments; expected rules, a program, and its name\n", Command, len(args))
		return 2
	}
	runtime.LockOSThread() // rights are taken from one thread; exec ends the others
	var rules Rules
	err := json.Unmarshal([]byte(args[0]), &rules)
	if err == nil {
		err = rules.apply()
	}
	if err != nil {
		fmt.Fprintf(stderr, "confine %s: %v\n", args[2], err)
		return 1
	}
	err = unix.Exec(args[1], args[2:], os.Environ())
	fmt.Fprintf(stderr, "run %s: %v\n", args[2], err)
	return 1
}

// apply confines this thread. It is an error if a layer that works according to
// [Rules.Layers] cannot be applied.
func (r Rules) apply() error {
	if err := r.limit(); err != nil {
		return err
	}
	if !r.Network && able(unix.CAP_SYS_ADMIN) {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil && landlockABI() < tcpABI { // a container may forbid it even to root
			return fmt.Errorf("make a network of its own: %w", err)
		}
	}
	if os.Geteuid() == 0 {
		if err := r.dropCapabilities(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no-new-privileges: %w", err)
	}
	return r.landlock()
}

// able reports whether this process has a capability.
func able(capability uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[capability/32].Effective&(1<<(capability%32)) != 0
}

// maxFiles bounds how many files a plugin may have open, so that it leaves some for
// others.
const maxFiles = 1024

func (r Rules) limit() error {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: maxFiles}
	if r.Memory > 0 {
		limits[unix.RLIMIT_DATA] = uint64(r.Memory)
	}
	for resource, value := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return fmt.Errorf("read a resource limit: %w", err)
		}
		value = min(value, now.Max)
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("set a resource limit: %w", err)
		}
	}
	return nil
}

// dropCapabilities takes all capabilities from root, except those that Foreign needs.
func (r Rules) dropCapabilities() error {
	var keep uint32
	if r.Foreign {
		keep = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_CHOWN
	}
	for c := range 64 {
		if !able(unix.CAP_SETPCAP) {
			break // no-new-privileges keeps the process from getting any back
		}
		if c < 32 && keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // there are no more
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	keep &= have[0].Permitted // a container may have taken some
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
