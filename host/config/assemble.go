package config

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/sdk"
)

// top decodes the body of all files together.
func (d *decoder) top(c *Config, merged hcl.Body) {
	want := c.body()
	schema, known := want.schema()
	for _, b := range topLevel {
		schema.Blocks = append(schema.Blocks, b)
		known = append(known, b.Type)
	}
	content, diags := merged.Content(schema)
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

// unique reports whether b is the first block with its header. Only the last
// label names a listener, origin, driver or policy, so only that must differ.
func (d *decoder) unique(b *hcl.Block) bool {
	key := b.Type
	if n := len(b.Labels); n > 0 {
		key += " " + b.Labels[n-1]
		if !sdk.ValidName(b.Labels[n-1]) {
			d.errorAt(b.LabelRanges[n-1], "Bad name",
				"A name begins with a lower-case letter and goes on with at most 63 lower-case letters, digits, - or _; %q does not.", b.Labels[n-1])
		}
	}
	if first, ok := d.seen[key]; ok {
		d.errorAt(b.DefRange, "Duplicate block", "The block %s stands already at %s. Remove one, or give it another name.", key, where(first))
		return false
	}
	d.seen[key] = b.DefRange
	return true
}

func (d *decoder) block(c *Config, b *hcl.Block) {
	switch b.Type {
	case "node":
		d.nodeAt = d.decode(b.Body, b.DefRange, c.Node.body())
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
	case "pin":
		d.pin(c, b)
	case "schedule":
		d.schedule(c, b)
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
	d.listeners[l.Name] = at
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
	d.cacheAt = at
}

func (d *decoder) origin(c *Config, b *hcl.Block) {
	if b.Labels[0] == "glance" {
		d.errorAt(b.LabelRanges[0], "Unknown type of origin",
			`Origins of the type "glance" do not exist yet: serving Glance's images without asking Glance who may read them would be an open proxy. `+
				`Until then use origin "http" with an endpoint that needs no token, or origin "directory".`)
		return
	}
	if !d.knownType(b, OriginDirectory, OriginHTTP, OriginS3, OriginPeer) {
		return
	}
	if b.Labels[0] == OriginPeer {
		d.peers(c, b)
		return
	}
	o := defaultOrigin(b.Labels[0])
	o.Name = b.Labels[1]
	at := d.decode(b.Body, b.DefRange, o.body())
	d.origins[o.Name] = at
	d.checkOrigin(&o, at)
	c.Origins = append(c.Origins, o)
}

// peers takes the one block that says how other nodes are asked.
func (d *decoder) peers(c *Config, b *hcl.Block) {
	if c.Peers.Name != "" {
		d.errorAt(b.DefRange, "Other nodes twice", "One block origin \"peer\" is for all nodes, and there is one already, called %q.", c.Peers.Name)
		return
	}
	c.Peers = defaultPeers()
	c.Peers.Name = b.Labels[1]
	d.decode(b.Body, b.DefRange, c.Peers.body())
	d.peersAt = b.DefRange
}

func (d *decoder) pin(c *Config, b *hcl.Block) {
	p := Pin{Name: b.Labels[0]}
	at := d.decode(b.Body, b.DefRange, p.body())
	d.checkPin(p, at)
	d.wanted = append(d.wanted, wantedImages{p.Images, at})
	c.Pins = append(c.Pins, p)
}

func (d *decoder) schedule(c *Config, b *hcl.Block) {
	s := Schedule{Name: b.Labels[0]}
	at := d.decode(b.Body, b.DefRange, s.body())
	d.checkSchedule(s, at)
	d.wanted = append(d.wanted, wantedImages{s.Images, at})
	c.Schedules = append(c.Schedules, s)
}

func (d *decoder) plugin(c *Config, b *hcl.Block) {
	p := defaultPlugin()
	p.Name = b.Labels[0]
	at := d.decode(b.Body, b.DefRange, p.body())
	d.checkPlugin(&p, at)
	p.hidden = cmp.Or(at.hidden["command"], at.hidden["wasm"])
	c.Plugins = append(c.Plugins, p)
}

// pluginConfig notes a driver or policy block. Its config block is checked
// later, when the plugin has said which options it has.
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
	if !sdk.ValidName(p.Plugin) {
		d.errorAt(p.label, "Bad name of a plugin", "The first label is the name of a plugin, such as %q.", DefaultDriver)
	}
	d.configs = append(d.configs, &p)
}

// resolve points the references at their blocks.
func (d *decoder) resolve(c *Config) {
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
		if p.Kind == sdk.KindDriver {
			c.Drivers = append(c.Drivers, *p)
		}
		if used[p] {
			continue
		}
		but := fmt.Sprintf(" To try it beside the active one, write shadow = [policy.%s].", p.Name)
		if p.Kind == sdk.KindDriver {
			but = " Until then only imgcache-host driver migrate can use it."
		}
		d.warnAt(p.block, fmt.Sprintf("Unused %s", p.Kind),
			"Nothing refers to this block, so it has no effect. Write %s = %s.%s in the cache block to use it.%s", p.Kind, p.Kind, p.Name, but)
	}
}
