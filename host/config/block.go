package config

import (
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk"
)

// body says what a block may contain, bound to the variables that receive it.
type body struct {
	args   []arg
	blocks []block
}

// arg is one option of a block.
type arg struct {
	name     string
	into     value
	required bool
}

// block is a nested block without labels that may occur once.
type block struct {
	name string
	body body
	raw  **hcl.Block // if not nil, the block is kept as it is instead
}

// schema returns the names that HCL is to accept, in its own form and as a list.
func (b body) schema() (*hcl.BodySchema, []string) {
	var schema hcl.BodySchema
	var known []string
	for _, a := range b.args {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: a.name})
		known = append(known, a.name)
	}
	for _, n := range b.blocks {
		schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: n.name})
		known = append(known, n.name)
	}
	return &schema, known
}

// The labels of the blocks at the top of a file. One that occurs once has
// none.
var topLevel = []hcl.BlockHeaderSchema{
	{Type: "node"},
	{Type: "listener", LabelNames: []string{"type", "name"}},
	{Type: "cache", LabelNames: []string{"name"}},
	{Type: "origin", LabelNames: []string{"type", "name"}},
	{Type: "pin", LabelNames: []string{"name"}},
	{Type: "schedule", LabelNames: []string{"name"}},
	{Type: "plugin", LabelNames: []string{"name"}},
	{Type: "driver", LabelNames: []string{"plugin", "name"}},
	{Type: "policy", LabelNames: []string{"plugin", "name"}},
	{Type: "log"},
	{Type: "shutdown"},
}

func (c *Config) body() body {
	return body{args: []arg{
		{name: "plugin_dir", into: path(&c.PluginDir)},
		{name: "plugin_lock", into: path(&c.PluginLock)},
		{name: "trusted_keys", into: paths(&c.TrustedKeys)},
		{name: "confinement", into: choice(&c.Confinement, "best-effort", "required", "none")},
	}}
}

func (n *Node) body() body {
	return body{args: []arg{
		{name: "name", into: text(&n.Name)},
		{name: "advertise", into: webAddress(&n.Advertise)},
		{name: "data_dir", into: path(&n.DataDir)},
		{name: "run_dir", into: path(&n.RunDir)},
	}}
}

func (l *Listener) body() body {
	serve := arg{name: "serve", into: choices(&l.Serve, FaceImages, FaceAdmin, FaceMetrics, FacePeers)}
	limits := block{name: "limits", body: l.Limits.body()}
	if l.Network == Unix {
		return body{
			args: []arg{
				{name: "path", into: path(&l.Path), required: true},
				{name: "mode", into: mode(&l.Mode)},
				{name: "group", into: text(&l.Group)},
				serve,
			},
			blocks: []block{limits},
		}
	}
	return body{
		args: []arg{
			{name: "address", into: text(&l.Address), required: true},
			serve,
			{name: "token_file", into: path(&l.TokenFile)},
			{name: "auth_file", into: path(&l.AuthFile)},
		},
		blocks: []block{limits},
	}
}

func (l *ListenerLimits) body() body {
	return body{args: []arg{
		{name: "max_connections", into: count(&l.MaxConnections, 1)},
		{name: "header_timeout", into: duration(&l.HeaderTimeout, positive)},
		{name: "idle_timeout", into: duration(&l.IdleTimeout, positive)},
		{name: "write_stall_timeout", into: duration(&l.WriteStallTimeout, positive)},
		{name: "min_rate", into: size(&l.MinRate, 0)},
	}}
}

func (c *Cache) body() body {
	return body{
		args: []arg{
			{name: "dir", into: path(&c.Dir), required: true},
			{name: "max_size", into: size(&c.MaxSize, 1)},
			{name: "limit", into: choice(&c.Limit, options.LimitHard, options.LimitPrune)},
			{name: "stall_time", into: duration(&c.StallTime, positive)},
			{name: "write_timeout", into: duration(&c.WriteTimeout, positive)},
			{name: "flush_interval", into: duration(&c.FlushInterval, minFlush)},
			{name: "max_image_size", into: size(&c.MaxImageSize, 0)},
			{name: "admit_after", into: count(&c.AdmitAfter, 1)},
			{name: "verify_reads", into: choice(&c.VerifyReads, options.VerifyAlways, options.VerifyFirst, options.VerifyNever)},
			{name: "driver", into: reference{&c.Driver}},
			{name: "policy", into: reference{&c.Policy}},
			{name: "shadow", into: references{sdk.KindPolicy, &c.Shadow}},
		},
		blocks: []block{
			{name: "prune", body: pruneBody(&c.Prune)},
			{name: "fill", body: fillBody(&c.Fill)},
			{name: "prefetch", body: prefetchBody(&c.Prefetch)},
			{name: "scrub", body: scrubBody(&c.Scrub)},
			{name: "trace", body: c.Trace.body()},
		},
	}
}

func pruneBody(p *options.Prune) body {
	return body{args: []arg{
		{name: "interval", into: duration(&p.Interval, minPruneInterval)},
		{name: "high_watermark", into: fraction(&p.HighWatermark)},
		{name: "low_watermark", into: fraction(&p.LowWatermark)},
		{name: "min_age", into: duration(&p.MinAge, 0)},
		{name: "min_free", into: size(&p.MinFree, 0)},
	}}
}

func fillBody(f *options.Fill) body {
	return body{args: []arg{
		{name: "retries", into: count(&f.Retries, 1)},
		{name: "keep_filling", into: boolean(&f.KeepFilling)},
		{name: "concurrency", into: count(&f.Concurrency, 0)},
		{name: "bandwidth", into: size(&f.Bandwidth, 0)},
		{name: "ranges_in_fill", into: choice(&f.RangesInFill, options.RangesStream, options.RangesVerified)},
		{name: "cold_per_client", into: count(&f.ColdPerClient, 0)},
	}}
}

func prefetchBody(p *options.Prefetch) body {
	return body{args: []arg{
		{name: "workers", into: count(&p.Workers, 1)},
		{name: "min_rate", into: size(&p.MinRate, 0)},
	}}
}

func scrubBody(s *options.Scrub) body {
	return body{args: []arg{{name: "bandwidth", into: size(&s.Bandwidth, 0)}}}
}

func (t *Trace) body() body {
	return body{args: []arg{
		{name: "path", into: path(&t.Path), required: true},
		{name: "max_size", into: size(&t.MaxSize, minTrace)},
		{name: "files", into: count(&t.Files, 2)},
	}}
}

// minTrace keeps the files of a trace from changing several times a second.
const minTrace = 64 << 10

func (o *Origin) body() body {
	both := []arg{
		{name: "prefix", into: text(&o.Prefix)},
		{name: "on_origin_down", into: choice(&o.OnOriginDown, "serve", "fail")},
		{name: "concurrency", into: count(&o.Concurrency, 0)},
		{name: "bandwidth", into: size(&o.Bandwidth, 0)},
		{name: "min_rate", into: size(&o.MinRate, 0)},
		{name: "query", into: choice(&o.Query, o.queries()...)},
	}
	nested := []block{o.Checksums.block()}
	if o.Type == OriginDirectory {
		return body{args: append(both, []arg{
			{name: "path", into: path(&o.Path), required: true},
			{name: "settle", into: duration(&o.Settle, 0)},
		}...), blocks: nested}
	}
	asked := append(both, []arg{
		{name: "endpoint", into: text(&o.Endpoint), required: true},
		{name: "revalidate_after", into: duration(&o.RevalidateAfter, 0)},
		{name: "negative_ttl", into: duration(&o.NegativeTTL, 0)},
		{name: "connect_timeout", into: duration(&o.ConnectTimeout, positive)},
		{name: "idle_timeout", into: duration(&o.IdleTimeout, positive)},
		{name: "immutable", into: boolean(&o.Immutable)},
		{name: "validators", into: choices(&o.Validators, validators...)},
		{name: "revalidate", into: choice(&o.Revalidate, "before", "behind")},
		{name: "on_denied", into: choice(&o.OnDenied, "serve_stale", "refuse")},
		{name: "ignore_cache_control", into: boolean(&o.IgnoreCacheControl)},
	}...)
	nested = append(nested, block{name: "expect", body: o.Expect.body()})
	if o.Type == OriginS3 {
		return body{args: append(asked, o.s3Args()...), blocks: nested}
	}
	return body{args: append(asked, []arg{
		{name: "allow_redirects", into: boolean(&o.AllowRedirects)},
		{name: "redirect_to", into: texts(&o.RedirectTo)},
		{name: "headers", into: textMap(&o.Headers)},
	}...), blocks: nested}
}

// validators are the kinds that may count, the strongest first.
var validators = []string{"digest", "etag", "last_modified", "size"}

func (e *Expect) body() body {
	return body{args: []arg{
		{name: "content_types", into: texts(&e.ContentTypes)},
		{name: "min_size", into: size(&e.MinSize, 0)},
		{name: "not_html", into: boolean(&e.NotHTML)},
	}}
}

// queries are the words for what a query means; files and objects have none.
func (o *Origin) queries() []string {
	if o.Type == OriginHTTP {
		return []string{"refuse", "ignore", "identity"}
	}
	return []string{"refuse", "ignore"}
}

func (p *Peers) body() body {
	return body{args: []arg{
		{name: "token_file", into: path(&p.TokenFile)},
		{name: "lookup_timeout", into: duration(&p.LookupTimeout, positive)},
		{name: "answer_timeout", into: duration(&p.AnswerTimeout, positive)},
		{name: "idle_timeout", into: duration(&p.IdleTimeout, positive)},
		{name: "min_rate", into: size(&p.MinRate, 0)},
	}}
}

func (p *Pin) body() body {
	return body{args: []arg{
		{name: "images", into: images(&p.Images), required: true},
		{name: "until", into: timestamp(&p.Until)},
	}}
}

func (s *Schedule) body() body {
	return body{args: []arg{
		{name: "cron", into: crontab(&s.Cron)},
		{name: "every", into: duration(&s.Every, minEvery)},
		{name: "jitter", into: duration(&s.Jitter, 0)},
		{name: "run", into: choices(&s.Run, TaskPrune, TaskClean, TaskPrefetch, TaskScrub), required: true},
		{name: "images", into: images(&s.Images)},
	}}
}

func (p *Plugin) body() body {
	return body{
		args: []arg{
			{name: "kind", into: choice(&p.Kind, sdk.KindDriver, sdk.KindPolicy), required: true},
			{name: "command", into: path(&p.Command)},
			{name: "args", into: texts(&p.Args)},
			{name: "wasm", into: path(&p.Wasm)},
			{name: "env", into: textMap(&p.Env)},
			{name: "sha256", into: text(&p.SHA256)},
			{name: "read", into: paths(&p.Read)},
			{name: "write", into: paths(&p.Write)},
			{name: "network", into: boolean(&p.Network)},
			{name: "grant", into: choices(&p.Grants, sdk.GrantClock, sdk.GrantRandom)},
		},
		blocks: []block{{name: "limits", body: p.Limits.body()}},
	}
}

func (l *PluginLimits) body() body {
	return body{args: []arg{
		{name: "memory", into: size(&l.Memory, minPluginMemory)},
		{name: "timeout", into: duration(&l.Timeout, positive)},
		{name: "state", into: size(&l.State, minState)},
	}}
}

// minPruneInterval keeps the look at the index from taking all of a core.
const minPruneInterval = 100 * time.Millisecond

// minFlush is how often the record log is written.
const minFlush = time.Second

// minEvery keeps work that looks at all files from taking all of a core.
const minEvery = time.Second

// minPluginMemory is what the smallest policy of a Go program needs to start
// as a module.
const minPluginMemory = 4 << 20

// minState is what the records of a few thousand images take.
const minState = 1 << 20

func (p *PluginConfig) blockBody() body {
	return body{blocks: []block{{name: "config", raw: &p.config}}}
}

func (l *Log) body() body {
	return body{args: []arg{
		{name: "level", into: choice(&l.Level, "debug", "info", "warn", "error")},
		{name: "format", into: choice(&l.Format, "json", "text")},
	}}
}

func (s *Shutdown) body() body {
	return body{args: []arg{
		{name: "drain_timeout", into: duration(&s.DrainTimeout, 0)},
		{name: "fills", into: choice(&s.Fills, options.FillsCheckpoint, options.FillsAbort)},
	}}
}

// place is a block and what it may contain, with the defaults in the
// variables.
type place struct {
	name string // as a person would write it, such as: listener "tcp"
	body body
}

// places returns the whole language.
func places() []place {
	c := Config{Confinement: defaultConfinement, Node: defaultNode(), Cache: defaultCache(), Log: defaultLog(), Shutdown: defaultShutdown()}
	tcp, unix := defaultListener(TCP), defaultListener(Unix)
	directory, web, objects := defaultOrigin(OriginDirectory), defaultOrigin(OriginHTTP), defaultOrigin(OriginS3)
	plugin, pin, schedule, peers := defaultPlugin(), Pin{}, Schedule{}, defaultPeers()
	list := []place{
		{"", c.body()},
		{"node", c.Node.body()},
		{`listener "tcp"`, tcp.body()},
		{`listener "unix"`, unix.body()},
		{"cache", c.Cache.body()},
		{`origin "directory"`, directory.body()},
		{`origin "http"`, web.body()},
		{`origin "s3"`, objects.body()},
		{`origin "peer"`, peers.body()},
		{"pin", pin.body()},
		{"schedule", schedule.body()},
		{"plugin", plugin.body()},
		{"driver", c.Cache.Driver.blockBody()},
		{"policy", c.Cache.Policy.blockBody()},
		{"log", c.Log.body()},
		{"shutdown", c.Shutdown.body()},
	}
	for i := 0; i < len(list); i++ { // grows as nested blocks are found
		for _, b := range list[i].body.blocks {
			if b.raw == nil {
				list = append(list, place{list[i].name + " / " + b.name, b.body})
			}
		}
	}
	return list
}

// belongsTo returns a sentence, with a space in front, that says in which
// block an option is at home; "" for an unknown one.
func belongsTo(option string) string {
	for _, p := range places() {
		for _, a := range p.body.args {
			if a.name == option && p.name != "" {
				return " It belongs in a block " + p.name + "."
			}
		}
	}
	return ""
}
