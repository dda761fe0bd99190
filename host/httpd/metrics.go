package httpd

import (
	"net/http"
	"strconv"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what the service counts itself, and the handler that shows them
// together with what the cache knows.
type metrics struct {
	requests *prometheus.CounterVec
	aborted  *prometheus.CounterVec
	sent     *prometheus.CounterVec
	running  *prometheus.GaugeVec
	handler  http.Handler
}

func newMetrics(c Config) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "imgcache_http_" + name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("requests_total", "Requests that were answered, by class of status.", "face", "code"),
		aborted:  counter("aborted_total", "Requests whose connection was cut before the end of the answer.", "face"),
		sent:     counter("sent_bytes_total", "Bytes of the bodies of answers.", "face"),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgcache_http_requests_running", Help: "Requests that are being answered.",
		}, []string{"face"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imgcache_build_info", Help: "Always 1; its label names the version.",
		ConstLabels: prometheus.Labels{"version": c.Version},
	})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		m.requests, m.aborted, m.sent, m.running, build,
		&usageCollector{usage: c.Upkeep, peers: c.Peers},
	)
	registry.MustRegister(c.Metrics...)
	// Their successors in package collectors would link database/sql.
	//lint:ignore SA1019 see above
	registry.MustRegister(prometheus.NewGoCollector())
	//lint:ignore SA1019 see above
	registry.MustRegister(prometheus.NewProcessCollector(prometheus.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return m
}

// count notes an answer that has ended.
func (m *metrics) count(face string, rec *recorder, aborted bool) {
	m.sent.WithLabelValues(face).Add(float64(rec.bytes))
	if aborted {
		m.aborted.WithLabelValues(face).Inc()
		return
	}
	m.requests.WithLabelValues(face, strconv.Itoa(max(rec.status, http.StatusOK)/100)+"xx").Inc()
}

// usageMetric is a metric that a look at the usage gives.
type usageMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(cache.Usage) float64
}

var usageMetrics = []usageMetric{
	gauge("cache_bytes", "Bytes of images in the cache directory, wherever they lie, and reserved ones.",
		func(u cache.Usage) float64 { return float64(u.Bytes) }),
	gauge("cache_reserved_bytes", "Of the bytes of the cache, those reserved and not yet written.",
		func(u cache.Usage) float64 { return float64(u.Reserved) }),
	gauge("cache_max_bytes", "The configured limit of the cache.",
		func(u cache.Usage) float64 { return float64(u.MaxBytes) }),
	gauge("cache_images", "Cached images.",
		func(u cache.Usage) float64 { return float64(u.Images) }),
	gauge("cache_allocated_bytes", "Bytes of the disk that cached images take, fewer than they have where they have holes.",
		func(u cache.Usage) float64 { return float64(u.Allocated) }),
	gauge("cache_pinned_bytes", "Of the bytes of the cache, those of images that may not be evicted.",
		func(u cache.Usage) float64 { return float64(u.PinnedBytes) }),
	gauge("cache_disk_ok", "1 when images can be stored.",
		func(u cache.Usage) float64 { return truth(u.Disk == "ok") }),
	gauge("fills_running", "Transfers from origins into the cache.",
		func(u cache.Usage) float64 { return float64(u.Fills) }),
	gauge("writes_running", "Images that clients bring by the API.",
		func(u cache.Usage) float64 { return float64(u.Writes) }),
	gauge("queued_images", "Images that wait to be prefetched.",
		func(u cache.Usage) float64 { return float64(u.Queued) }),
	gauge("records_ready", "1 when the driver's records have been read.",
		func(u cache.Usage) float64 { return truth(u.Records == "ready") }),
	gauge("records_unsent", "Changes of records that the driver has not acknowledged.",
		func(u cache.Usage) float64 { return float64(u.Unsent) }),
	gauge("records_behind_seconds", "How long the oldest of these changes have been on their way; 0 when none are.",
		func(u cache.Usage) float64 { return behind(u.UnsentSince) }),
	gauge("origins_unconfirmed", "Origins that cannot confirm cached images, which are served stale.",
		func(u cache.Usage) float64 { return float64(len(u.Origins)) }),
	counter("cache_stale_total", "Requests answered by a cached image that its origin could not confirm.",
		func(u cache.Usage) float64 { return float64(u.Stale) }),
	counter("cache_hits_total", "Whole images handed out from the cache, in one response or in ranges.",
		func(u cache.Usage) float64 { return float64(u.Hits) }),
	counter("cache_misses_total", "Downloads that the cache could not answer.",
		func(u cache.Usage) float64 { return float64(u.Misses) }),
	counter("cache_quarantined_total", "Cached images that turned out to be corrupt.",
		func(u cache.Usage) float64 { return float64(u.Quarantined) }),
	counter("cache_served_bytes_total", "Bytes of images that clients were given.",
		func(u cache.Usage) float64 { return float64(u.BytesServed) }),
	counter("origin_fetched_bytes_total", "Bytes of images that came from origins.",
		func(u cache.Usage) float64 { return float64(u.BytesFetched) }),
}

// peerMetric is a metric of what other nodes sent.
type peerMetric struct {
	desc  *prometheus.Desc
	value func(origin.PeerStats) uint64
}

var peerMetrics = []peerMetric{
	{prometheus.NewDesc("imgcache_peer_transfers_total", "Transfers of images from other nodes.", nil, nil), func(s origin.PeerStats) uint64 { return s.Transfers }},
	{prometheus.NewDesc("imgcache_peer_fetched_bytes_total", "Bytes of images that came from other nodes.", nil, nil), func(s origin.PeerStats) uint64 { return s.Bytes }},
	{prometheus.NewDesc("imgcache_peer_failures_total", "Times that another node did not answer, or broke off.", nil, nil), func(s origin.PeerStats) uint64 { return s.Failures }},
	{prometheus.NewDesc("imgcache_peer_wrong_total", "Transfers from other nodes of which the bytes were wrong.", nil, nil), func(s origin.PeerStats) uint64 { return s.Wrong }},
}

func gauge(name, help string, value func(cache.Usage) float64) usageMetric {
	return usageMetric{prometheus.NewDesc("imgcache_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(cache.Usage) float64) usageMetric {
	return usageMetric{prometheus.NewDesc("imgcache_"+name, help, nil, nil), prometheus.CounterValue, value}
}

// behind is how long ago a time was, in seconds; 0 for the zero time.
func behind(since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(0, time.Since(since).Seconds())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// usage is what the metrics show of the cache.
type usage interface {
	Usage() cache.Usage
}

// usageCollector asks the cache, and the way to other nodes, when it is asked.
type usageCollector struct {
	usage usage
	peers func() origin.PeerStats
}

// Describe implements [prometheus.Collector].
func (c *usageCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range usageMetrics {
		descs <- m.desc
	}
	for _, m := range peerMetrics {
		descs <- m.desc
	}
}

// Collect implements [prometheus.Collector].
func (c *usageCollector) Collect(values chan<- prometheus.Metric) {
	now := c.usage.Usage()
	for _, m := range usageMetrics {
		values <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(now))
	}
	if c.peers != nil {
		stats := c.peers()
		for _, m := range peerMetrics {
			values <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.value(stats)))
		}
	}
}
