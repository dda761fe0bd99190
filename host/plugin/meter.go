package plugin

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// latencyBounds are the upper bounds of the classes of latency, in seconds. A call
// normally takes a tenth of a millisecond, and most calls may take at most thirty
// seconds.
var latencyBounds = [...]float64{
	.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30,
}

// Latency says how long the calls took that reached a process.
type Latency struct {
	Count   uint64   `json:"count"`
	Seconds float64  `json:"seconds"` // of all calls together
	Classes []uint64 `json:"classes"` // number of calls by their latency: up to 0.1 ms, 0.25 ms, 0.5 ms, 1 ms and so on up to 30 s, and longer ones
}

// add adds the calls of another Latency.
func (l *Latency) add(other Latency) {
	l.Count += other.Count
	l.Seconds += other.Seconds
	if l.Classes == nil {
		l.Classes = make([]uint64, len(latencyBounds)+1)
	}
	for i, n := range other.Classes {
		l.Classes[i] += n
	}
}

// within returns the time within which a share of the calls ended, as exactly as the
// classes allow; 0: there were no calls.
func (l Latency) within(share float64) time.Duration {
	left := float64(l.Count) * share
	for i, n := range l.Classes {
		if left -= float64(n); left <= 0 && n > 0 {
			bound := latencyBounds[min(i, len(latencyBounds)-1)]
			return time.Duration(bound * float64(time.Second))
		}
	}
	return 0
}

// Method counts the calls of one method of a plugin.
type Method struct {
	Name    string  `json:"name"`
	Calls   uint64  `json:"calls"`
	Errors  uint64  `json:"errors"` // number of calls that failed, also because there was no process
	Latency Latency `json:"latency"`
}

func (m *Method) add(other Method) {
	m.Calls += other.Calls
	m.Errors += other.Errors
	m.Latency.add(other.Latency)
}

// meter counts the calls of a plugin, of all of its processes.
type meter struct {
	mu       sync.Mutex
	byMethod map[string]*Method
}

func newMeter() *meter { return &meter{byMethod: map[string]*Method{}} }

// method returns the counters of a method. The caller holds mu.
func (m *meter) method(name string) *Method {
	if m.byMethod[name] == nil {
		m.byMethod[name] = &Method{Name: name, Latency: Latency{Classes: make([]uint64, len(latencyBounds)+1)}}
	}
	return m.byMethod[name]
}

// count notes a call that has ended.
func (m *meter) count(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	method := m.method(name)
	method.Calls++
	if err != nil {
		method.Errors++
	}
}

// took notes how long a call to a process took.
func (m *meter) took(name string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.method(name).Latency
	l.Count++
	l.Seconds += d.Seconds()
	class, _ := slices.BinarySearch(latencyBounds[:], d.Seconds())
	l.Classes[class]++
}

// methods returns a copy of all counters, by name.
func (m *meter) methods() []Method {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []Method{}
	for _, name := range slices.Sorted(maps.Keys(m.byMethod)) {
		method := *m.byMethod[name]
		method.Latency.Classes = slices.Clone(method.Latency.Classes)
		list = append(list, method)
	}
	return list
}

// merge adds the counters of other methods to those of the same name.
func merge(list, others []Method) []Method {
	for _, o := range others {
		i, found := slices.BinarySearchFunc(list, o.Name, func(m Method, name string) int { return cmp.Compare(m.Name, name) })
		if !found {
			list = slices.Insert(list, i, Method{Name: o.Name})
		}
		list[i].add(o)
	}
	return list
}

// footprint returns the memory in bytes and the processor time in seconds that a
// process uses; zeros if it has ended.
func footprint(pid int) (memory uint64, cpu float64) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0
	}
	stat, err := proc.Stat()
	if err != nil {
		return 0, 0
	}
	return uint64(stat.ResidentMemory()), stat.CPUTime()
}
