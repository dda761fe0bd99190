package plugin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/imgcache/imgcache-host/sdk"
)

// The metrics of plugins. Those of a process begin at zero with each new process.
var (
	callsDesc    = describe("calls_total", "Calls of the plugin, also those while it was down.", "method")
	errorsDesc   = describe("errors_total", "Calls of the plugin that failed.", "method")
	latencyDesc  = describe("call_duration_seconds", "How long the calls took that reached the plugin.", "method")
	restartsDesc = describe("restarts_total", "How often the plugin was started again after it had ended.")
	runningDesc  = describe("running", "1 if the plugin is running.")
	breakerDesc  = describe("breaker_open", "1 if the plugin has failed so often that it is only tried from time to time, 0.5 while it runs again but may still fail.")
	memoryDesc   = describe("memory_bytes", "Resident memory of the plugin's process.")
	cpuDesc      = describe("cpu_seconds_total", "Processor time of the plugin's process.")
)

func describe(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("imgcache_plugin_"+name, help, append([]string{"plugin", "kind"}, more...), nil)
}

// breakerValues are the states of a breaker as a metric.
var breakerValues = map[string]float64{breakerHalfOpen: .5, breakerOpen: 1}

// Describe implements [prometheus.Collector].
func (s *Supervisor) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		callsDesc, errorsDesc, latencyDesc, restartsDesc, runningDesc, breakerDesc, memoryDesc, cpuDesc,
	} {
		descs <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *Supervisor) Collect(metrics chan<- prometheus.Metric) {
	for _, st := range s.totals() {
		labels := []string{st.Name, string(st.Kind)}
		send := func(d *prometheus.Desc, t prometheus.ValueType, value float64, more ...string) {
			metrics <- prometheus.MustNewConstMetric(d, t, value, append(labels, more...)...)
		}
		send(restartsDesc, prometheus.CounterValue, float64(st.Restarts))
		send(breakerDesc, prometheus.GaugeValue, breakerValues[st.Breaker])
		send(memoryDesc, prometheus.GaugeValue, float64(st.Memory))
		send(cpuDesc, prometheus.CounterValue, st.CPU)
		running := 0.
		if st.State == stateRunning {
			running = 1
		}
		send(runningDesc, prometheus.GaugeValue, running)
		for _, m := range st.Methods {
			send(callsDesc, prometheus.CounterValue, float64(m.Calls), m.Name)
			send(errorsDesc, prometheus.CounterValue, float64(m.Errors), m.Name)
			metrics <- prometheus.MustNewConstHistogram(latencyDesc, m.Latency.Count, m.Latency.Seconds, m.Latency.cumulative(), append(labels, m.Name)...)
		}
	}
}

// cumulative returns how many calls took no longer than each bound.
func (l Latency) cumulative() map[float64]uint64 {
	below, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range latencyBounds {
		sum += l.Classes[i]
		below[bound] = sum
	}
	return below
}

// totals returns the plugins. Those with the same name and kind are added up: while
// records move from one database to another, two instances of a driver are running.
func (s *Supervisor) totals() []Status {
	type identity struct {
		name string
		kind sdk.Kind
	}
	var list []Status
	at := map[identity]int{}
	for _, st := range s.List() {
		id := identity{st.Name, st.Kind}
		i, known := at[id]
		if !known {
			at[id] = len(list)
			list = append(list, st)
			continue
		}
		total := &list[i]
		total.Restarts += st.Restarts
		total.Memory += st.Memory
		total.CPU += st.CPU
		total.Methods = merge(total.Methods, st.Methods)
		if breakerValues[st.Breaker] > breakerValues[total.Breaker] {
			total.Breaker = st.Breaker
		}
		if st.State != stateRunning {
			total.State = st.State
		}
	}
	return list
}
