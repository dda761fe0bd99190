package host

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/httpd"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// openOrigins makes the origins of the configuration, with other nodes in front
// of them; peers may be nil.
func openOrigins(list []config.Origin, peers *origin.Peers, log *slog.Logger) (set *origin.Set, err error) {
	var mounts []origin.Mount
	for _, o := range list {
		m := origin.Mount{Prefix: o.Prefix, Query: origin.Query(o.Query)}
		if m.Origin, err = openOrigin(o, log); err != nil {
			return nil, fmt.Errorf("origin %q: %w", o.Name, err)
		}
		if peers != nil {
			m.Origin = peers.Before(m.Origin, func(name string) string { return set.ID(o.Name, name) })
		}
		mounts = append(mounts, m)
	}
	set, err = origin.New(mounts...)
	return set, err
}

// openOrigin makes one origin, within its bounds. Lists of checksums take no
// part in these: a transfer may wait for its list.
func openOrigin(o config.Origin, log *slog.Logger) (from origin.Origin, err error) {
	terms := originTerms(o)
	switch o.Type {
	case config.OriginDirectory:
		from = origin.NewDirectory(origin.DirectoryConfig{Name: o.Name, Path: o.Path, Settle: o.Settle, Terms: terms})
	case config.OriginHTTP:
		from, err = origin.NewHTTP(origin.HTTPConfig{
			Name: o.Name, Endpoint: o.Endpoint, ConnectTimeout: o.ConnectTimeout, IdleTimeout: o.IdleTimeout,
			Headers: o.Headers, AllowRedirects: o.AllowRedirects, RedirectTo: o.RedirectTo, Terms: terms,
		})
	case config.OriginS3:
		from, err = origin.NewS3(s3Config(o))
	default:
		err = fmt.Errorf("type %q is not known", o.Type)
	}
	if err == nil && o.Checksums.File != "" {
		var lists origin.ChecksumsConfig
		if lists, err = checksumsConfig(o.Checksums, log); err == nil {
			from, err = origin.Checksums(from, lists)
		}
	}
	if err != nil {
		return nil, err
	}
	return origin.Bound(from), nil
}

func s3Config(o config.Origin) origin.S3Config {
	return origin.S3Config{
		Name: o.Name, Endpoint: o.Endpoint, ConnectTimeout: o.ConnectTimeout, IdleTimeout: o.IdleTimeout,
		Bucket: o.Bucket, Prefix: o.KeyPrefix, Region: o.Region, PathStyle: o.PathStyle,
		AccessKey: o.AccessKey, SecretKey: o.SecretKey, Terms: originTerms(o),
	}
}

// checksumsConfig reads the keyring that a list must be signed by.
func checksumsConfig(c config.Checksums, log *slog.Logger) (origin.ChecksumsConfig, error) {
	cfg := origin.ChecksumsConfig{File: c.File, Required: c.Required, Signature: c.Signature.File, Log: log}
	if c.Signature.Keyring == "" {
		return cfg, nil
	}
	var err error
	if cfg.Keyring, err = origin.ReadKeyring(c.Signature.Keyring); err != nil {
		return cfg, fmt.Errorf("read keyring: %w", err)
	}
	return cfg, nil
}

// openPeers makes the way to other nodes; nil: they are not asked.
func (h *Host) openPeers() (*origin.Peers, error) {
	c := h.cfg.Peers
	if c.Name == "" {
		return nil, nil
	}
	token, err := c.Token()
	if err != nil {
		return nil, err
	}
	h.peers = origin.NewPeers(origin.PeersConfig{
		Name: c.Name, Self: h.cfg.Node.Advertise, Token: token, Lookup: h.nodes, LookupTimeout: c.LookupTimeout,
		AnswerTimeout: c.AnswerTimeout, IdleTimeout: c.IdleTimeout, MinRate: c.MinRate, Log: h.log,
	})
	h.closers = append(h.closers, h.peers.Close)
	return h.peers, nil
}

// nodes returns the nodes that hold an image. The error wraps
// sdk.ErrUnsupported when the driver does not know other nodes, or does not run.
func (h *Host) nodes(ctx context.Context, id string) ([]sdk.Node, error) {
	d, ok := h.driver.Load().Driver().(sdk.NodeLister)
	if !ok {
		return nil, fmt.Errorf("%w: the driver %s does not know other nodes", sdk.ErrUnsupported, h.cfg.Cache.Driver.Plugin)
	}
	return d.Nodes(ctx, id)
}

func originTerms(o config.Origin) origin.Terms {
	return origin.Terms{
		RevalidateAfter: o.RevalidateAfter, NegativeTTL: o.NegativeTTL, FailWhenDown: o.OnOriginDown == "fail",
		Concurrency: o.Concurrency, Bandwidth: o.Bandwidth, MinRate: o.MinRate,

		Immutable: o.Immutable, Validators: validators(o.Validators), Revalidate: origin.Revalidate(o.Revalidate),
		OnDenied: origin.OnDenied(o.OnDenied), IgnoreCacheControl: o.IgnoreCacheControl,
		Expect: origin.Expect{ContentTypes: o.Expect.ContentTypes, MinSize: o.Expect.MinSize, NotHTML: o.Expect.NotHTML},
	}
}

// validators says in the words of the origin what counts.
func validators(words []string) (list []origin.Validator) {
	for _, w := range words {
		list = append(list, origin.Validator(w))
	}
	return list
}

// engineConfig translates the configuration for the engine. The caller adds the
// store, the plugins and the origins, and finds the pinned images.
func engineConfig(cfg *config.Config) cache.Config {
	c := cfg.Cache
	return cache.Config{
		Options: c.Options, DriverName: c.Driver.String(), ForeignDriver: c.Driver.OfGlance(),
		Fills: cfg.Shutdown.Fills, Pins: pins(cfg.Pins),
	}
}

// pins lists each pinned image with the end of its pin and the block that pins
// it. An image in several blocks is for the engine to resolve.
func pins(blocks []config.Pin) []cache.Pin {
	var list []cache.Pin
	for _, b := range blocks {
		for _, image := range b.Images {
			list = append(list, cache.Pin{ID: image, Until: b.Until, From: fmt.Sprintf("pin %q of the configuration", b.Name)})
		}
	}
	return list
}

// findPinned replaces what people wrote in the pins of the configuration by the
// ids and names of images. An image that no origin has may have an id all the same.
func findPinned(list []cache.Pin, origins *origin.Set) error {
	for i, p := range list {
		id, _, name, err := origins.Find(p.ID)
		switch {
		case err == nil:
			list[i].ID, list[i].Name = id, name
		case !sdk.ValidID(p.ID):
			return fmt.Errorf("%s: %w", p.From, err)
		}
	}
	return nil
}

// service makes the service that all listeners serve.
func (h *Host) service() *httpd.Service {
	return httpd.New(httpd.Config{
		Downloads: h.cache, Images: h.cache, Queue: h.cache, Pins: h.cache, Upkeep: h.cache, Writes: h.cache,
		Log: h.log, Version: h.version, Ready: h.ready,
		Resolve: func(path, query string) (string, error) {
			id, _, _, err := h.origins.ByURL(path, query)
			return id, err
		},
		Find:      h.findImage,
		Drivers:   h,
		Plugins:   h,
		Metrics:   h.metrics(),
		Schedules: h.schedules.Status,
		Nodes:     h.nodes,
		Peers:     h.peerStats,
	})
}

// findImage returns the id of the image that a person means.
func (h *Host) findImage(text string) (string, error) {
	id, _, _, err := h.origins.Find(text)
	return id, err
}

// peerStats counts what other nodes sent; it is zero when they are not asked.
func (h *Host) peerStats() origin.PeerStats {
	if h.peers == nil {
		return origin.PeerStats{}
	}
	return h.peers.Stats()
}

// handlers makes the handler of every listener.
func (h *Host) handlers() error {
	service := h.service()
	for i, f := range h.faces {
		tokens, err := f.Tokens()
		if err != nil {
			return fmt.Errorf("listener %q: %w", f.Name, err)
		}
		clients, err := f.Credentials()
		if err != nil {
			return err // it says where
		}
		faces := httpd.Faces{
			Images: f.Serves(config.FaceImages), Admin: f.Serves(config.FaceAdmin), Metrics: f.Serves(config.FaceMetrics),
			Peers:   f.Serves(config.FacePeers),
			Trusted: f.Network == config.Unix, Tokens: tokens,
		}
		if f.AuthFile != "" {
			faces.Clients = &httpd.Credentials{Tokens: clients.Tokens, Passwords: clients.Passwords}
		}
		h.faces[i].handler = service.Handler(faces)
	}
	return nil
}

// ready returns what keeps the service from doing all that it is configured to do.
// Images are served all the same.
func (h *Host) ready() []httpd.Lack {
	var lacks []httpd.Lack
	lack := func(what, why string) { lacks = append(lacks, httpd.Lack{What: what, Why: why}) }
	if h.offline {
		lack("service", "the service does not run")
	}
	u := h.cache.Usage()
	if u.Disk != "ok" {
		lack("disk", u.Disk)
	}
	if u.PinsFull {
		lack("pins", "pinned images fill the cache, so other images are not stored")
	}
	if u.Records != "ready" || u.RecordsError != "" {
		lack("records", strings.TrimSuffix(u.Records+": "+u.RecordsError, ": "))
	}
	for _, o := range u.Origins {
		lack("origin "+o.Origin, fmt.Sprintf("it has confirmed no cached image since %s, and they are served stale: %s", o.Since.Format(time.RFC3339), o.Error))
	}
	if err := h.heart.trouble(); err != nil {
		lack("heartbeat", err.Error())
	}
	for _, p := range h.plugins.List() {
		if p.State != "running" && !p.Shadow {
			why := strings.TrimSuffix(p.State+": "+p.LastError, ": ")
			lack(fmt.Sprintf("%s plugin %s", p.Kind, p.Name), fmt.Sprintf("%s; meanwhile %s", why, p.StandIn))
		}
	}
	return lacks
}
