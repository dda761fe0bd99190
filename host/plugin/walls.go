package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgcache/imgcache-host/host/plugin/confine"
	"github.com/imgcache/imgcache-host/sdk"
)

// Confinement says what to do with a plugin that cannot be confined completely.
type Confinement string

// The kinds of confinement.
const (
	BestEffort Confinement = "best-effort" // it runs with the walls that are available
	Required   Confinement = "required"    // it is not started
	None       Confinement = "none"        // no plugin is confined
)

// Wall is one of the walls around a plugin.
type Wall struct {
	Name  string `json:"name"`
	Holds bool   `json:"holds"` // it works on this kernel, for this user
}

// confined reports whether plugins are confined.
func (s *Supervisor) confined() bool {
	return s.cfg.Confinement != None && s.cfg.Executable != ""
}

// rules returns what a plugin may do. Every process may read its own directory, where
// an interpreter may find modules. The runner of a WebAssembly module may read the
// host's binary and write compiled modules.
func (s *Supervisor) rules(spec Spec, bin *binary, g grants) confine.Rules {
	if spec.runtime() == runtimeWasm {
		return confine.Rules{Read: []string{s.cfg.Executable}, Write: present(append(slices.Clone(g.write), s.cfg.CacheDir))}
	}
	r := confine.Rules{
		Read: slices.Concat(spec.Read, g.read), Write: slices.Concat(spec.Write, g.write),
		Network: spec.Network, Memory: spec.Memory, Foreign: spec.Kind == sdk.KindDriver,
	}
	r.Read = append(r.Read, filepath.Dir(spec.Path))
	if bin.interpreter != nil {
		r.Read = append(r.Read, filepath.Dir(bin.path), filepath.Dir(filepath.Dir(bin.interpreter[0])))
	}
	r.Read, r.Write = present(r.Read), present(r.Write)
	return r
}

// present leaves out empty paths, and the root directory, which would allow
// everything.
func present(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == "" || p == "/" })
}

// walls returns the walls that the rules need, and an error if one is not available
// and confinement is required.
func (s *Supervisor) walls(r confine.Rules) (list []Wall, err error) {
	for _, l := range r.Layers() {
		list = append(list, Wall(l))
		if !l.Holds && s.cfg.Confinement == Required {
			err = errors.Join(err, fmt.Errorf("%w: confinement is required, but the wall %s is not available with this kernel and user", sdk.ErrUnsupported, l.Name))
		}
	}
	return list, err
}

// wrap makes a command run the host's binary, which confines the process and then
// executes the command in it. sockets is the directory in which the process makes its
// socket.
func (s *Supervisor) wrap(cmd *exec.Cmd, r confine.Rules, sockets string) error {
	r.Write = append(r.Write, present([]string{sockets})...)
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	cmd.Args = append([]string{s.cfg.Executable, confine.Command, string(text), cmd.Path}, cmd.Args...)
	cmd.Path = s.cfg.Executable
	return nil
}

// grants are the paths in settings to which a plugin needs access.
type grants struct{ read, write []string }

// grants returns the paths to which the settings of a plugin give it access: its own
// directories, and the files in options that its manifest declares as such. The
// default of an option comes from the plugin itself and gives no access. The runner of
// a module needs only the directory in which it stores the module's data.
func (spec Spec) grants(m sdk.Manifest, s sdk.Settings) (g grants) {
	if spec.runtime() == runtimeWasm {
		return grants{write: present([]string{s.StateDir})}
	}
	g.write = present([]string{s.CacheDir, s.StateDir})
	for _, o := range m.Options {
		if s.Options[o.Name] == o.Default {
			continue
		}
		for _, path := range pathsIn(s.Options[o.Name]) {
			switch o.Access {
			case sdk.AccessRead:
				g.read = append(g.read, path)
			case sdk.AccessWrite: // the whole directory, since there may be a journal beside the file
				g.write = append(g.write, filepath.Dir(path))
			}
		}
	}
	return g
}

// tellUngranted logs which files the plugin names in defaults of options, so that an
// operator can grant them.
func (p *Plugin) tellUngranted(m sdk.Manifest, s sdk.Settings) {
	for _, o := range m.Options {
		if paths := pathsIn(o.Default); o.Access != sdk.AccessNone && s.Options[o.Name] == o.Default && len(paths) > 0 {
			p.log.Warn("the default of an option names files that the plugin may not use; to allow it, add them to read or write in its block",
				"option", o.Name, "default", cut(o.Default, maxQuoted))
		}
	}
}

// pathsIn returns the absolute paths in the text of an option, which may be a
// list or a URL with parameters.
func pathsIn(text string) []string {
	parts := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("=&?,; ", r) })
	return slices.DeleteFunc(parts, func(p string) bool { return !filepath.IsAbs(p) || strings.HasPrefix(p, "//") })
}

// cover reports whether g gives all that other does.
func (g grants) cover(other grants) bool {
	in := func(list []string) func(string) bool {
		return func(p string) bool { return !slices.Contains(list, p) }
	}
	return !slices.ContainsFunc(other.read, in(g.read)) && !slices.ContainsFunc(other.write, in(g.write))
}

// prepare makes the private directory of a plugin, which is not allowed to make it
// itself.
func prepare(s sdk.Settings) error {
	if s.StateDir == "" {
		return nil
	}
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	return nil
}
