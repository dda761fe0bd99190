package sdk

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Kind is what a plugin is for.
type Kind string

// The kinds of plugin.
const (
	KindDriver Kind = "driver" // keeps records: implements [Driver]
	KindPolicy Kind = "policy" // advises eviction: implements [Scorer] or [Stateful]
)

// Capability names an optional ability that a plugin declares. The host calls
// an optional method only when its capability is declared.
type Capability string

// The capabilities known to this version. A host ignores those it does not
// know.
const (
	CapScore     Capability = "score"     // policy: [Scorer]
	CapStateful  Capability = "stateful"  // policy: [Stateful]
	CapSnapshot  Capability = "snapshot"  // policy: [Snapshotter]
	CapNodes     Capability = "nodes"     // driver: [NodeLister]
	CapHeartbeat Capability = "heartbeat" // driver: [Heartbeater]
)

// Grant names something that a module does not have by itself. The first two are
// granted in the plugin's block of the configuration, with grant = ["clock"].
type Grant string

// The grants known to this version.
const (
	GrantClock  Grant = "clock"  // the time of day, instead of a clock that only ticks
	GrantRandom Grant = "random" // random numbers that cannot be predicted, instead of ones that repeat
	GrantKV     Grant = "kv"     // a store of keys and values that survives a restart; every driver that requests it gets it
)

// Protocol is the version of the contract that this package describes. It
// counts incompatible changes; fields that are added change nothing.
const Protocol = 1

// Manifest is what a plugin says about itself before it is configured. It is
// constant: it must not depend on configuration or environment.
type Manifest struct {
	Name         string       `json:"name"`    // follows [NamePattern]
	Version      string       `json:"version"` // semantic version of the plugin, informative
	Kind         Kind         `json:"kind"`
	Capabilities []Capability `json:"capabilities,omitempty"`
	Options      []Option     `json:"options,omitempty"`  // the schema of its config block
	Requests     []Grant      `json:"requests,omitempty"` // what a module can use if it is granted

	// The first and the last version of the contract that the plugin speaks.
	// 0 as the first means version 1; 0 as the last means only the first.
	MinProtocol int `json:"min_protocol,omitempty"`
	MaxProtocol int `json:"max_protocol,omitempty"`
}

// Protocols returns the versions of the contract that the plugin speaks.
func (m Manifest) Protocols() (first, last int) {
	first = max(m.MinProtocol, 1)
	return first, max(m.MaxProtocol, first)
}

// Speaks reports, wrapping [ErrInvalid], that the plugin does not speak a
// version of the contract.
func (m Manifest) Speaks(version int) error {
	first, last := m.Protocols()
	speaks := strconv.Itoa(first)
	if last > first {
		speaks += " to " + strconv.Itoa(last)
	}
	switch {
	case version > last:
		return fmt.Errorf("%w: the plugin is too old: it speaks version %s of the plugin protocol, this host version %d; "+
			"install a newer build of the plugin", ErrInvalid, speaks, version)
	case version < first:
		return fmt.Errorf("%w: the plugin is too new: it speaks version %s of the plugin protocol, this host version %d; "+
			"update imgcache-host, or install an older build of the plugin", ErrInvalid, speaks, version)
	}
	return nil
}

// Has reports whether the manifest declares c.
func (m Manifest) Has(c Capability) bool {
	return slices.Contains(m.Capabilities, c)
}

// Asks reports whether the manifest requests g.
func (m Manifest) Asks(g Grant) bool { return slices.Contains(m.Requests, g) }

// NamePattern is the grammar of plugin and option names, as a regular
// expression. Names become parts of file names, log fields and metric labels.
const NamePattern = `[a-z][a-z0-9_-]{0,63}`

// ValidName reports whether name follows [NamePattern]. It is written out
// because package regexp would add half a megabyte to every module.
func ValidName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '_' || c == '-')) {
			return false
		}
	}
	return 0 < len(name) && len(name) <= 64
}

// Validate reports, wrapping [ErrInvalid], the first thing that is wrong with
// the manifest.
func (m Manifest) Validate() error {
	if !ValidName(m.Name) {
		return fmt.Errorf("%w: plugin name %q does not match %s", ErrInvalid, m.Name, NamePattern)
	}
	if m.Kind != KindDriver && m.Kind != KindPolicy {
		return fmt.Errorf("%w: expected the kind %q or %q, got %q", ErrInvalid, KindDriver, KindPolicy, m.Kind)
	}
	if m.Kind == KindPolicy && m.Has(CapScore) == m.Has(CapStateful) {
		return fmt.Errorf("%w: a policy must declare one of the capabilities %q and %q, and not both", ErrInvalid, CapScore, CapStateful)
	}
	if m.MinProtocol < 0 || m.MaxProtocol < 0 || m.MaxProtocol > 0 && m.MaxProtocol < max(m.MinProtocol, 1) {
		return fmt.Errorf("%w: the versions of the contract cannot go from %d to %d", ErrInvalid, m.MinProtocol, m.MaxProtocol)
	}
	seen := map[string]bool{}
	for _, o := range m.Options {
		if err := o.validate(); err != nil {
			return err
		}
		if seen[o.Name] {
			return fmt.Errorf("%w: option %q is declared twice", ErrInvalid, o.Name)
		}
		seen[o.Name] = true
	}
	return nil
}

// Fits returns an error, wrapping [ErrInvalid], unless the manifest is valid and
// impl implements what it declares: Driver if and only if it is a driver, and
// the interface of each capability.
func (m Manifest) Fits(impl any) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if _, driver := impl.(Driver); driver != (m.Kind == KindDriver) {
		return fmt.Errorf("%w: the manifest declares the kind %q, which does not fit %T: a driver implements sdk.Driver, a policy does not", ErrInvalid, m.Kind, impl)
	}
	for _, c := range m.Capabilities {
		ok := true
		switch c {
		case CapScore:
			_, ok = impl.(Scorer)
		case CapStateful:
			_, ok = impl.(Stateful)
		case CapSnapshot:
			_, ok = impl.(Snapshotter)
		case CapNodes:
			_, ok = impl.(NodeLister)
		case CapHeartbeat:
			_, ok = impl.(Heartbeater)
		}
		if !ok {
			return fmt.Errorf("%w: the manifest declares the capability %q, but %T does not implement it", ErrInvalid, c, impl)
		}
	}
	return nil
}

// OptionType is the type of a plugin's option, with the text in which its
// value travels.
type OptionType string

// The types of options.
const (
	TypeString   OptionType = "string"   // as it stands
	TypeNumber   OptionType = "number"   // decimal, as strconv.ParseFloat reads it
	TypeBool     OptionType = "bool"     // true or false
	TypeDuration OptionType = "duration" // as time.ParseDuration reads it, such as 1m30s
	TypeSize     OptionType = "size"     // bytes, decimal integer; the host accepts 10GiB and converts
)

// Access is what a plugin needs of the files that the value of an option names.
// The host lets a plugin use no others.
type Access string

// The kinds of access.
const (
	AccessNone  Access = ""      // the value names no file
	AccessRead  Access = "read"  // a file, or a directory and all below it
	AccessWrite Access = "write" // a file, and what lies beside it
)

// Option is one attribute of a plugin's config block. The host checks types,
// unknown names and required options before the plugin is configured, and
// fills in defaults.
type Option struct {
	Name        string     `json:"name"`
	Type        OptionType `json:"type"`
	Default     string     `json:"default,omitempty"` // in the text of Type; empty: no default
	Required    bool       `json:"required,omitempty"`
	Sensitive   bool       `json:"sensitive,omitempty"` // never shown
	Access      Access     `json:"access,omitempty"`    // to the absolute paths in the value
	Description string     `json:"description,omitempty"`
}

func (o Option) validate() error {
	if !ValidName(o.Name) {
		return fmt.Errorf("%w: option name %q does not match %s", ErrInvalid, o.Name, NamePattern)
	}
	if o.Default == "" {
		return o.Check("")
	}
	return o.Check(o.Default)
}

// Check returns an error, wrapping [ErrInvalid], unless the text is a value of
// the option's type. The empty text is a value of every known type: it means
// that the option is not set.
func (o Option) Check(text string) error {
	var err error
	switch o.Type {
	case TypeString:
	case TypeNumber:
		if text != "" {
			_, err = strconv.ParseFloat(text, 64)
		}
	case TypeBool:
		if text != "" && text != "true" && text != "false" {
			err = fmt.Errorf("expected true or false, got %q", text)
		}
	case TypeDuration:
		if text != "" {
			_, err = time.ParseDuration(text)
		}
	case TypeSize:
		if text != "" {
			_, err = strconv.ParseUint(text, 10, 63)
		}
	default:
		return fmt.Errorf("%w: option %q has the unknown type %q", ErrInvalid, o.Name, o.Type)
	}
	if err != nil {
		return fmt.Errorf("%w: option %q: %w", ErrInvalid, o.Name, err)
	}
	return nil
}

// Config holds the values of a plugin's options in the text of their types.
// An option that is not set and has no default is absent.
type Config map[string]string

// Settings is what a plugin is configured with. Only Options comes from the
// operator; the rest says in which service the plugin works.
type Settings struct {
	Options  Config
	CacheDir string // absolute path of the cache directory; empty for policies
	StateDir string // absolute path of a private directory of the plugin; empty for policies
	Node     string // name of this node
	URL      string // where other nodes reach this one, without a slash at its end; empty: nowhere
	Instance string // random id of this cache directory, stable over restarts
}

// Text returns the value of an option, or "" when it is absent.
func (c Config) Text(name string) string { return c[name] }

// Number returns the value of a number option, or 0 when it is absent. The
// host has checked the type.
func (c Config) Number(name string) float64 {
	f, _ := strconv.ParseFloat(c[name], 64)
	return f
}

// Bool returns the value of a bool option, or false when it is absent.
func (c Config) Bool(name string) bool { return c[name] == "true" }

// Duration returns the value of a duration option, or 0 when it is absent.
func (c Config) Duration(name string) time.Duration {
	d, _ := time.ParseDuration(c[name])
	return d
}

// Size returns the value of a size option in bytes, or 0 when it is absent.
func (c Config) Size(name string) int64 {
	n, _ := strconv.ParseInt(c[name], 10, 64)
	return n
}

// Noter is implemented by plugins that may have something to say to operators
// once they are configured, such as a promise that they cannot keep there. The
// host shows it in its status.
type Noter interface {
	// Notes is called after Configure; each note is a sentence. None is usual.
	Notes() []string
}

// Configurer is implemented by plugins that want their settings. Configure is
// called once, before any other method; an error, best wrapping [ErrInvalid]
// and naming the option, keeps the plugin from starting.
type Configurer interface {
	Configure(ctx context.Context, s Settings) error
}
