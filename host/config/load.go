package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// source is one configuration file.
type source struct {
	name string // as people know it
	dir  string // absolute; relative paths start here
	text []byte
}

// Load reads configuration files, and the *.hcl and *.hcl.json files of
// directories in lexical order, and merges them. An error is a [*Diagnostics]
// unless a path cannot be read.
func Load(paths []string) (*Config, error) {
	sources, err := read(paths)
	if err != nil {
		return nil, err
	}
	return load(sources)
}

// read returns the text of the files that paths stand for.
func read(paths []string) (sources []source, err error) {
	sum := 0
	for _, p := range paths {
		names, err := expand(p)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		for _, name := range names {
			text, err := readFile(name)
			if err != nil {
				return nil, fmt.Errorf("read configuration: %w", err)
			}
			if sum += len(text); sum > maxSources {
				return nil, fmt.Errorf("read configuration: the files up to %s have more than %s together", name, FormatSize(maxSources))
			}
			dir, err := filepath.Abs(filepath.Dir(name))
			if err != nil {
				return nil, fmt.Errorf("read configuration: %w", err)
			}
			sources = append(sources, source{name, dir, text})
		}
	}
	return sources, nil
}

// expand returns the files that a path stands for.
func expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		hidden := strings.HasPrefix(e.Name(), ".") // an editor's swap file, or a volume's bookkeeping
		if !hidden && !e.IsDir() && (strings.HasSuffix(e.Name(), ".hcl") || strings.HasSuffix(e.Name(), ".hcl.json")) {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("directory %s holds no *.hcl or *.hcl.json file", path)
	}
	return names, nil
}

// load parses, decodes and checks.
func load(sources []source) (*Config, error) {
	d := newDecoder()
	files := d.parse(sources)
	if d.diags.HasErrors() { // what follows a syntax error is guesswork
		return nil, newDiagnostics(d.diags, d.files)
	}
	c, err := d.config(files)
	if err != nil {
		return nil, err
	}
	if c.Locked = c.PluginLock != ""; !c.Locked {
		c.PluginLock = filepath.Join(sources[0].dir, lockFile)
		_, absent := os.Lstat(c.PluginLock)
		c.Locked = absent == nil
	}
	return c, nil
}

// lockFile is the name of the lock file of a configuration that names none.
const lockFile = "plugins.lock.json"

func (d *decoder) parse(sources []source) (files []*hcl.File) {
	parser, refused := hclparse.NewParser(), map[string]*hcl.File{}
	for _, s := range sources {
		if _, twice := d.dirs[s.name]; twice {
			continue // named on its own and through its directory
		}
		d.dirs[s.name] = s.dir
		isJSON := strings.HasSuffix(s.name, ".json")
		if !d.takes(s, isJSON) {
			refused[s.name] = &hcl.File{Bytes: s.text}
			continue
		}
		parse := parser.ParseHCL
		if isJSON {
			parse = parser.ParseJSON
		}
		file, diags := parse(s.text, s.name)
		d.diags = append(d.diags, diags...)
		if body, ok := file.Body.(*hclsyntax.Body); ok {
			_ = hclsyntax.Walk(body, meter{}) // it finds nothing wrong
		}
		files = append(files, file)
	}
	d.files = parser.Files()
	maps.Copy(d.files, refused) // for the snippets
	return files
}

func (d *decoder) config(files []*hcl.File) (*Config, error) {
	c := &Config{
		Confinement: defaultConfinement,
		Node:        defaultNode(),
		Cache:       defaultCache(),
		Log:         defaultLog(),
		Shutdown:    defaultShutdown(),
	}
	d.top(c, hcl.MergeFiles(files))
	d.resolve(c)
	d.complete(c)

	if d.diags.HasErrors() {
		return nil, newDiagnostics(d.diags, d.files)
	}
	if len(d.warnings) > 0 {
		c.Warnings = newDiagnostics(d.warnings, d.files)
	}
	return c, nil
}
