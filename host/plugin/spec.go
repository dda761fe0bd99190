package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// Spec says which plugin to run, and how.
type Spec struct {
	Name    string
	Kind    sdk.Kind // empty: whatever the plugin is
	Path    string   // of an executable, or of a WebAssembly module: NAME.wasm
	Args    []string // of an executable
	Env     map[string]string
	SHA256  string        // lower-case hex of the file at Path; empty: not checked
	Memory  int64         // bytes: of a module's memory, where 0 is the runner's default; or of a process's data, where 0 is no limit
	Timeout time.Duration // of one call; 0: 5s for a policy, 30s for a driver
	State   int64         // bytes that a driver that is a module may store; 0: the runner's default
	Grants  []sdk.Grant   // of a module: the clock, random numbers
	Shadow  bool          // the policy is tried beside the active one, and its advice is not followed

	// Reattach, unless it is nil, says where the plugin is running already, for
	// debugging: no process is started.
	Reattach *serve.Reattach

	// What the plugin may do more than every plugin: Read are files that it may
	// read and execute, Write directories in which it may do anything, and
	// Network lets it use the network. They have no effect for a module. See
	// [Supervisor.rules].
	Read, Write []string
	Network     bool
}

// label returns the name of the plugin, with a mark for a policy that is tried.
func (s Spec) label() string {
	if s.Shadow {
		return s.Name + " (shadow)"
	}
	return s.Name
}

// The runtimes of plugins.
const (
	runtimeProcess = "process"
	runtimeWasm    = "wasm"
)

func (s Spec) runtime() string {
	if strings.HasSuffix(s.Path, ".wasm") {
		return runtimeWasm
	}
	return runtimeProcess
}

func (s Spec) timeout() time.Duration {
	switch {
	case s.Timeout > 0:
		return s.Timeout
	case s.Kind == sdk.KindDriver:
		return 30 * time.Second // a database under load takes seconds, and no request waits for it
	}
	return 5 * time.Second // a million candidates take a tenth of that
}

// String names the plugin in errors: "driver plugin sqlite".
func (s Spec) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s plugin %s", s.Kind, s.label()))
}

// fileNames returns the names under which a plugin is searched for, the preferred one
// first.
func fileNames(kind sdk.Kind, name string) []string {
	executable := fmt.Sprintf("imgcache-%s-%s", kind, name)
	if kind == sdk.KindPolicy {
		return []string{name + ".wasm", executable}
	}
	return []string{executable, executable + ".wasm"}
}

// pluginName returns the name of the plugin of that kind that a file holds, or
// "".
func pluginName(kind sdk.Kind, file string) string {
	if name := NameOf(file); slices.Contains(fileNames(kind, name), file) {
		return name
	}
	return ""
}

// NameOf returns the name of the plugin that follows from the name of a file, or
// "plugin" if there is none.
func NameOf(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".wasm")
	for _, kind := range []sdk.Kind{sdk.KindDriver, sdk.KindPolicy} {
		name = strings.TrimPrefix(name, fmt.Sprintf("imgcache-%s-", kind))
	}
	if sdk.ValidName(name) {
		return name
	}
	return "plugin"
}

// Find searches for a plugin by name in the plugin directories, in their order. The
// error wraps sdk.ErrNotFound if none has it.
func (s *Supervisor) Find(kind sdk.Kind, name string) (Spec, error) {
	for _, dir := range s.cfg.Dirs {
		for _, file := range fileNames(kind, name) {
			path := filepath.Join(dir, file)
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return Spec{}, fmt.Errorf("find %s plugin %s: %w", kind, name, err)
			}
			if info.Mode().IsRegular() {
				return Spec{Name: name, Kind: kind, Path: path}, nil
			}
		}
	}
	return Spec{}, fmt.Errorf("%s plugin %s: %w: no %s in %s", kind, name, sdk.ErrNotFound,
		strings.Join(fileNames(kind, name), " or "), strings.Join(s.cfg.Dirs, ", "))
}

// Available returns the names of the plugins of a kind in the plugin
// directories. A directory that cannot be read counts as empty.
func (s *Supervisor) Available(kind sdk.Kind) []string {
	var names []string
	for _, dir := range s.cfg.Dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if name := pluginName(kind, e.Name()); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// checkSum compares the sum of the bytes that are going to run with the one
// that the configuration pins.
func (s Spec) checkSum(sum string) error {
	if s.SHA256 == "" || sum == strings.ToLower(s.SHA256) {
		return nil
	}
	return fmt.Errorf("%s has the SHA-256 %s, but the configuration pins %s, so it is not started", s.Path, sum, s.SHA256)
}
