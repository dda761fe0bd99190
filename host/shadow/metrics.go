package shadow

import "github.com/prometheus/client_golang/prometheus"

// metric is a metric of a policy that is tried.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(Status) float64
}

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("imgcache_shadow_"+name, help, []string{"policy", "plugin"}, nil)
}

var metrics = []metric{
	{describe("requests_total", "Requests that the policy's cache has seen; this and the other counters begin anew when the policy fails."), prometheus.CounterValue, func(s Status) float64 { return float64(s.Requests) }},
	{describe("hits_total", "Of these, those that it had the image for."), prometheus.CounterValue, func(s Status) float64 { return float64(s.Hits) }},
	{describe("requested_bytes_total", "Sizes of the requested images."), prometheus.CounterValue, func(s Status) float64 { return float64(s.RequestedBytes) }},
	{describe("hit_bytes_total", "Of these, those of hits."), prometheus.CounterValue, func(s Status) float64 { return float64(s.HitBytes) }},
	{describe("evictions_total", "Images that the policy let leave its cache."), prometheus.CounterValue, func(s Status) float64 { return float64(s.Evictions) }},
	{describe("lost_events_total", "Requests that it has not seen."), prometheus.CounterValue, func(s Status) float64 { return float64(s.Lost) }},
	{describe("restarts_total", "Times that the policy failed, and its cache began anew."), prometheus.CounterValue, func(s Status) float64 { return float64(s.Restarts) }},
	{describe("bytes", "Sizes of the images in its cache."), prometheus.GaugeValue, func(s Status) float64 { return float64(s.Bytes) }},
}

// Describe implements [prometheus.Collector].
func (s *Set) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range metrics {
		descs <- m.desc
	}
}

// Collect implements [prometheus.Collector].
func (s *Set) Collect(values chan<- prometheus.Metric) {
	for _, st := range s.Statuses() {
		for _, m := range metrics {
			values <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(st), st.Name, st.Plugin)
		}
	}
}
