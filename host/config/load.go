package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/imgcache/imgcache-host/sdk"
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
	var sources []source
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
			dir, err := filepath.Abs(filepath.Dir(name))
			if err != nil {
				return nil, fmt.Errorf("read configuration: %w", err)
			}
			sources = append(sources, source{name, dir, text})
		}
	}
	return load(sources)
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
	d := &decoder{dirs: map[string]string{}}
	parser := hclparse.NewParser()
	var files []*hcl.File
	for _, s := range sources {
		if _, twice := d.dirs[s.name]; twice {
			continue // named on its own and through its directory
		}
		d.dirs[s.name] = s.dir
		parse := parser.ParseHCL
		if strings.HasSuffix(s.name, ".json") {
			parse = parser.ParseJSON
		}
		file, diags := parse(s.text, s.name)
		d.diags = append(d.diags, diags...)
		files = append(files, file)
	}
	d.files = parser.Files()
	if d.diags.HasErrors() { // what follows a syntax error is guesswork
		return nil, newDiagnostics(d.diags, d.files)
	}
	return d.config(files)
}

func (d *decoder) config(files []*hcl.File) (*Config, error) {
	c := &Config{
		Node:     defaultNode(),
		Cache:    defaultCache(),
		Log:      defaultLog(),
		Shutdown: defaultShutdown(),
	}
	d.top(c, hcl.MergeFiles(files))
	d.resolve()
	d.complete(c)

	if d.diags.HasErrors() {
		return nil, newDiagnostics(d.diags, d.files)
	}
	if len(d.warnings) > 0 {
		c.Warnings = newDiagnostics(d.warnings, d.files)
	}
	return c, nil
}

// top decodes the body of all files together.
func (d *decoder) top(c *Config, merged hcl.Body) {
	known := []string{}
	for _, b := range topLevel {
		known = append(known, b.Type)
	}
	want := c.body()
	schema := hcl.BodySchema{Blocks: topLevel}
	for _, a := range want.args {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: a.name})
		known = append(known, a.name)
	}
	content, diags := merged.Content(&schema)
	d.strangers = diags.HasErrors()
	d.diags = append(d.diags, d.improve(diags, known)...)
	for _, a := range want.args {
		if attr, ok := content.Attributes[a.name]; ok {
			d.decodeArg(a, attr)
		}
	}
	for _, b := range content.Blocks {
		if d.unique(b) {
			d.block(c, b)
		}
	}
}

// unique reports whether b is the first block with its header. Listeners,
// origins, drivers and policies are named by their last label alone, so that
// is what must differ.
func (d *decoder) unique(b *hcl.Block) bool {
	key := b.Type
	if n := len(b.Labels); n > 0 {
		key += " " + b.Labels[n-1]
		if !sdk.NamePattern.MatchString(b.Labels[n-1]) {
			d.errorAt(b.LabelRanges[n-1], "Bad name",
				"A name begins with a lower-case letter and goes on with at most 63 lower-case letters, digits, - or _; %q does not.", b.Labels[n-1])
		}
	}
	if first, ok := d.seen[key]; ok {
		d.errorAt(b.DefRange, "Duplicate block", "The block %s stands already at %s. Remove one, or give it another name.", key, where(first))
		return false
	}
	if d.seen == nil {
		d.seen = map[string]hcl.Range{}
	}
	d.seen[key] = b.DefRange
	return true
}

func (d *decoder) block(c *Config, b *hcl.Block) {
	switch b.Type {
	case "node":
		d.decode(b.Body, b.DefRange, c.Node.body())
	case "log":
		d.decode(b.Body, b.DefRange, c.Log.body())
	case "shutdown":
		d.decode(b.Body, b.DefRange, c.Shutdown.body())
	case "cache":
		d.cache(&c.Cache, b)
	case "listener":
		d.listener(c, b)
	case "origin":
		d.origin(c, b)
	case "plugin":
		d.plugin(c, b)
	case "driver", "policy":
		d.pluginConfig(b)
	}
}

// knownType reports whether the type in a block's first label is one of types,
// and complains if not.
func (d *decoder) knownType(b *hcl.Block, types ...string) bool {
	if slices.Contains(types, b.Labels[0]) {
		return true
	}
	d.errorAt(b.LabelRanges[0], "Unknown type of "+b.Type, "%s", sentence(oneOf(b.Labels[0], types)))
	return false
}

func (d *decoder) listener(c *Config, b *hcl.Block) {
	if !d.knownType(b, TCP, Unix) {
		return
	}
	l := defaultListener(b.Labels[0])
	l.Name = b.Labels[1]
	at := d.decode(b.Body, b.DefRange, l.body())
	d.checkListener(l, at)
	c.Listeners = append(c.Listeners, l)
}

func (d *decoder) cache(c *Cache, b *hcl.Block) {
	c.Name = b.Labels[0]
	if c.Name != "default" {
		d.errorAt(b.LabelRanges[0], "Unknown cache", `There is one cache, and it is called "default".`)
	}
	at := d.decode(b.Body, b.DefRange, c.body())
	d.checkCache(*c, at)
}

func (d *decoder) origin(c *Config, b *hcl.Block) {
	if b.Labels[0] == "glance" {
		d.errorAt(b.LabelRanges[0], "Unknown type of origin",
			`Origins of the type "glance" come later: serving Glance's images without asking Glance who may read them would be an open proxy. `+
				`Until then use origin "http" with an endpoint that needs no token, or origin "directory".`)
		return
	}
	if !d.knownType(b, OriginDirectory, OriginHTTP) {
		return
	}
	o := defaultOrigin(b.Labels[0])
	o.Name = b.Labels[1]
	at := d.decode(b.Body, b.DefRange, o.body())
	d.checkOrigin(&o, at)
	c.Origins = append(c.Origins, o)
}

func (d *decoder) plugin(c *Config, b *hcl.Block) {
	p := defaultPlugin()
	p.Name = b.Labels[0]
	at := d.decode(b.Body, b.DefRange, p.body())
	d.checkPlugin(&p, at)
	c.Plugins = append(c.Plugins, p)
}

// pluginConfig notes a driver or policy block. What its config block may
// contain is known when the plugin has been asked.
func (d *decoder) pluginConfig(b *hcl.Block) {
	p := PluginConfig{
		Kind:   sdk.Kind(b.Type),
		Plugin: b.Labels[0],
		Name:   b.Labels[1],
		block:  b.DefRange,
		label:  b.LabelRanges[0],
		files:  d.files,
		dirs:   d.dirs,
	}
	d.decode(b.Body, b.DefRange, p.blockBody())
	if !sdk.NamePattern.MatchString(p.Plugin) {
		d.errorAt(p.label, "Bad name of a plugin", "The first label is the name of a plugin, such as %q.", DefaultDriver)
	}
	d.configs = append(d.configs, &p)
}

// resolve points the references at their blocks.
func (d *decoder) resolve() {
	used := map[*PluginConfig]bool{}
	for _, r := range d.refs {
		var known []string
		var found *PluginConfig
		for _, p := range d.configs {
			if p.Kind != r.target.Kind {
				continue
			}
			known = append(known, p.Name)
			if p.Name == r.name {
				found = p
			}
		}
		kind := r.target.Kind
		if found == nil {
			d.errorAt(r.at, "Unknown "+string(kind), "There is no block %s \"PLUGIN\" %q.%s", kind, r.name, didYouMean(r.name, known))
			continue
		}
		used[found] = true
		*r.target = *found
	}
	for _, p := range d.configs {
		if !used[p] {
			d.warnAt(p.block, fmt.Sprintf("Unused %s", p.Kind),
				"Nothing refers to this block, so it has no effect. Write %s = %s.%s into the cache block to use it.", p.Kind, p.Kind, p.Name)
		}
	}
}
