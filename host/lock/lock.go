// Package lock pins plugins: a lock file holds the sums of those that may run,
// and signatures say who made them.
package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgcache/imgcache-host/host/plainfile"
	"github.com/imgcache/imgcache-host/sdk"
)

// version is that of the format.
const version = 1

// Lock is the content of a lock file.
type Lock struct {
	Version int      `json:"version"`
	Plugins []Plugin `json:"plugins"` // by kind and name
}

// Plugin is a plugin that may run.
type Plugin struct {
	Name    string   `json:"name"`
	Kind    sdk.Kind `json:"kind"`
	Version string   `json:"version"` // what it says of itself
	SHA256  string   `json:"sha256"`  // of its file, lower-case hex

	// Signature says who has signed it; empty: that was not checked.
	Signature string `json:"signature,omitempty"`
}

// maxLock bounds a lock file, in bytes: that of some thousand plugins.
const maxLock = 1 << 20

// Read reads a lock file.
func Read(path string) (Lock, error) {
	text, err := plainfile.Read(path, maxLock)
	if errors.Is(err, fs.ErrNotExist) {
		return Lock{}, fmt.Errorf("there is no lock file %s; create it with imgcache-host plugin lock: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return Lock{}, fmt.Errorf("read the lock file: %w", err)
	}
	var l Lock
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(&l)
	if err == nil && d.More() {
		err = errors.New("there is something after its end")
	}
	if err != nil {
		return Lock{}, fmt.Errorf("read the lock file %s: %w: %w", path, sdk.ErrInvalid, err)
	}
	if l.Version != version {
		return Lock{}, fmt.Errorf("read the lock file %s: %w: it has the version %d, this program reads %d", path, sdk.ErrInvalid, l.Version, version)
	}
	return l, nil
}

// Write writes a lock file completely or not at all.
func (l Lock) Write(path string) error {
	l.Version = version
	slices.SortFunc(l.Plugins, func(a, b Plugin) int {
		return strings.Compare(string(a.Kind)+" "+a.Name, string(b.Kind)+" "+b.Name)
	})
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the lock file: %w", err)
	}
	return nil
}

// Find returns the entry of a plugin. With an empty kind the name alone
// decides.
func (l Lock) Find(kind sdk.Kind, name string) (Plugin, bool) {
	i := slices.IndexFunc(l.Plugins, func(p Plugin) bool { return p.Name == name && (kind == "" || p.Kind == kind) })
	if i < 0 {
		return Plugin{}, false
	}
	return l.Plugins[i], true
}

// Change is what a new lock changes about a plugin.
type Change struct {
	Plugin
	Change string `json:"change"` // "added", "changed", "unchanged" or "removed"
}

// Since compares a lock with an older one.
func (l Lock) Since(old Lock) []Change {
	list := []Change{}
	for _, p := range l.Plugins {
		before, ok := old.Find(p.Kind, p.Name)
		switch {
		case !ok:
			list = append(list, Change{p, "added"})
		case before.SHA256 != p.SHA256:
			list = append(list, Change{p, "changed"})
		default:
			list = append(list, Change{p, "unchanged"})
		}
	}
	for _, p := range old.Plugins {
		if _, ok := l.Find(p.Kind, p.Name); !ok {
			list = append(list, Change{p, "removed"})
		}
	}
	return list
}
