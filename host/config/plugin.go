package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/zclconf/go-cty/cty"
)

// String names the block as a reference does: driver.local. A driver without a
// block is named without its kind: glance-sqlite.
func (p PluginConfig) String() string {
	if p.fixed != nil {
		return p.Name
	}
	return string(p.Kind) + "." + p.Name
}

// glanceFormats are the drivers that also work on the records of Glance, by the
// names under which they do.
var glanceFormats = map[string]string{"glance-sqlite": "sqlite", "glance-xattr": "xattr"}

// OfGlance reports whether the records are those of Glance in the cache
// directory, which Glance may have changed since they were last seen.
func (p PluginConfig) OfGlance() bool { return p.fixed != nil }

// Driver returns the driver that a reference means: driver.NAME for a block, or
// for the default of a cache that names none; glance-sqlite and glance-xattr for
// the records of Glance in the cache directory.
func (c *Config) Driver(reference string) (PluginConfig, error) {
	known := slices.Sorted(maps.Keys(glanceFormats))
	for _, p := range append([]PluginConfig{c.Cache.Driver}, c.Drivers...) {
		if p.String() == reference {
			return p, nil
		}
		known = append(known, p.String())
	}
	if plugin, ok := glanceFormats[reference]; ok {
		return PluginConfig{Kind: sdk.KindDriver, Plugin: plugin, Name: reference, fixed: sdk.Config{"format": "glance"}}, nil
	}
	return PluginConfig{}, fmt.Errorf("there is no driver %q in the configuration.%s", reference, didYouMean(reference, known))
}

// PluginFile reads a file with the content of a plugin's config block. An
// error is a [*Diagnostics] unless the file cannot be read.
func PluginFile(name string) (PluginConfig, error) {
	sources, err := read([]string{name})
	if err != nil {
		return PluginConfig{}, err
	}
	d := newDecoder()
	files := d.parse(sources)
	if d.diags.HasErrors() {
		return PluginConfig{}, newDiagnostics(d.diags, d.files)
	}
	body := hcl.MergeFiles(files)
	return PluginConfig{
		files: d.files, dirs: d.dirs,
		config: &hcl.Block{Type: "config", Body: body, DefRange: body.MissingItemRange()},
	}, nil
}

// Decode reads the config block according to the options that the plugin
// declares, and fills in their defaults. The error is a [*Diagnostics].
func (p PluginConfig) Decode(options []sdk.Option) (sdk.Config, error) {
	d := newDecoder()
	d.files = p.files
	if p.dirs != nil {
		d.dirs = p.dirs
	}
	values := sdk.Config{}
	var want body
	for _, o := range options {
		if o.Default != "" {
			values[o.Name] = o.Default
		}
		want.args = append(want.args, arg{name: o.Name, into: optionValue{values, o}, required: o.Required})
	}
	content, header := hcl.EmptyBody(), p.block
	if p.config != nil {
		content, header = p.config.Body, p.config.DefRange
	}
	d.decode(content, header, want)
	for name, value := range p.fixed {
		if !slices.ContainsFunc(options, func(o sdk.Option) bool { return o.Name == name }) {
			d.errorAt(hcl.Range{}, "Unknown option", "The %s plugin %q has no option %s, but %s needs it.", p.Kind, p.Plugin, name, p)
		}
		values[name] = value
	}
	if len(d.diags) > 0 {
		return nil, newDiagnostics(d.diags, d.files)
	}
	return values, nil
}

// Unknown is the error that there is no such plugin. It names the block and
// proposes one of the known plugins.
func (p PluginConfig) Unknown(known []string) error {
	detail := fmt.Sprintf("There is no %s plugin %q: no block plugin %q, and nothing of that name in the plugin directories.%s",
		p.Kind, p.Plugin, p.Plugin, didYouMean(p.Plugin, known))
	return newDiagnostics(hcl.Diagnostics{diagnostic(hcl.DiagError, p.label, "Unknown plugin", detail)}, p.files)
}

// Missing is the error that the file which the plugin's own block names does
// not exist. It names the block that uses the plugin.
func (p PluginConfig) Missing(own Plugin) error {
	detail := fmt.Sprintf("The block plugin %q names the file %s, which does not exist.", p.Plugin, cmp.Or(own.hidden, own.Command, own.Wasm))
	return newDiagnostics(hcl.Diagnostics{diagnostic(hcl.DiagError, p.label, "Missing plugin", detail)}, p.files)
}

// Refused is the error that the plugin does not accept its configuration. It
// names the block and gives the plugin's own words, without the values of env()
// and file().
func (p PluginConfig) Refused(err error) error {
	at := p.block
	if p.config != nil {
		at = p.config.DefRange
	}
	summary := fmt.Sprintf("The %s plugin %q refuses its configuration", p.Kind, p.Plugin)
	return newDiagnostics(hcl.Diagnostics{diagnostic(hcl.DiagError, at, summary, sentence(errors.New(p.withoutSecrets(err.Error()))))}, p.files)
}

// optionValue is an option of a plugin, held as text.
type optionValue struct {
	values sdk.Config
	option sdk.Option
}

func (o optionValue) String() string { return strconv.Quote(o.values[o.option.Name]) }

func (o optionValue) expected() string {
	return fmt.Sprintf("a %s that the plugin accepts", o.option.Type)
}

func (o optionValue) set(v cty.Value, _ string) error {
	s, err := o.text(v)
	if err != nil {
		return err
	}
	if err := o.option.Check(s); err != nil {
		return err
	}
	o.values[o.option.Name] = s
	return nil
}

// text converts v into the text of the option's type.
func (o optionValue) text(v cty.Value) (string, error) {
	switch o.option.Type {
	case sdk.TypeString:
		return stringOf(v)
	case sdk.TypeNumber:
		f, err := numberOf(v)
		if err != nil {
			return "", fmt.Errorf("expected a number, got %s", describe(v))
		}
		return strconv.FormatFloat(f, 'g', -1, 64), nil
	case sdk.TypeBool:
		var b bool
		err := booleanValue{&b}.set(v, "")
		return strconv.FormatBool(b), err
	case sdk.TypeDuration:
		var d time.Duration
		err := durationValue{&d, 0}.set(v, "")
		return d.String(), err
	case sdk.TypeSize:
		var n int64
		err := sizeValue{&n, 0}.set(v, "")
		return strconv.FormatInt(n, 10), err
	default:
		return "", errors.New("the plugin declares a type that this version does not know: " + string(o.option.Type))
	}
}
