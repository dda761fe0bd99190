package shadow

import (
	"cmp"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// The states of a policy that is tried.
const (
	stateRunning = "running"
	stateWaiting = "waiting" // until the plugin runs
)

// Figures say how a cache has done since a point in time.
type Figures struct {
	Since          time.Time `json:"since"`
	Requests       uint64    `json:"requests"`
	Hits           uint64    `json:"hits"`
	RequestedBytes uint64    `json:"requested_bytes"`
	HitBytes       uint64    `json:"hit_bytes"`
	HitRatio       float64   `json:"hit_ratio"`      // of the requests; 0 without any
	ByteHitRatio   float64   `json:"byte_hit_ratio"` // of the bytes
	Images         int       `json:"images"`         // in the cache
	Bytes          uint64    `json:"bytes"`
	Evictions      uint64    `json:"evictions"`
	EvictedBytes   uint64    `json:"evicted_bytes"`
}

func (f *Figures) count(size uint64, hit bool) {
	f.Requests++
	f.RequestedBytes += size
	if hit {
		f.Hits++
		f.HitBytes += size
	}
}

// withRatios returns the figures with the ratios that follow from them.
func (f Figures) withRatios() Figures {
	if f.Requests > 0 {
		f.HitRatio = float64(f.Hits) / float64(f.Requests)
	}
	if f.RequestedBytes > 0 {
		f.ByteHitRatio = float64(f.HitBytes) / float64(f.RequestedBytes)
	}
	return f
}

// Status says how a policy is doing.
type Status struct {
	Name   string `json:"name"` // of its block
	Plugin string `json:"plugin"`
	Active bool   `json:"active"` // the real cache follows it
	State  string `json:"state"`  // "running" or "waiting"
	Figures
	Lost      uint64 `json:"lost_events"`          // requests that it has not seen; if there are any, the figures are not exact
	Restarts  uint64 `json:"restarts"`             // how often it failed; each time the figures start from zero
	LastError string `json:"last_error,omitempty"` // the last failure
	Foreign   uint64 `json:"foreign"`              // proposed victims that were not in its cache
	Helped    uint64 `json:"helped"`               // evictions that least-recently-used order decided for it
	Departed  Images `json:"would_have_evicted"`   // images in the real cache that it has evicted
}

// Images are some of a number of images.
type Images struct {
	Images int      `json:"images"`
	Bytes  int64    `json:"bytes"`
	IDs    []string `json:"ids"` // the largest, 50 at most
}

// Report compares policies.
type Report struct {
	Cache    Figures  `json:"cache"` // the real one; without its evictions
	Policies []Status `json:"policies"`
	// Trace says how recording is doing; nil: requests are not recorded.
	Trace *trace.RecorderStats `json:"trace,omitempty"`
}

// Statuses returns how the policies are doing, without looking at the real
// cache.
func (s *Set) Statuses() []Status {
	list := []Status{}
	for _, r := range s.runners {
		r.mu.Lock()
		st := r.status
		r.mu.Unlock()
		st.Figures = st.withRatios()
		st.Lost += r.queue.Lost()
		list = append(list, st)
	}
	return list
}

// Report compares the policies with a cache that holds these images.
func (s *Set) Report(cached []cache.ImageInfo) Report {
	s.mu.Lock()
	real := s.real.withRatios()
	s.mu.Unlock()
	keys := make([]sdk.Key, len(cached))
	for i, im := range cached {
		keys[i] = sdk.KeyOf(im.ID)
		real.Images++
		real.Bytes += uint64(im.Size)
	}
	report := Report{Cache: real, Policies: s.Statuses()}
	for i, r := range s.runners {
		report.Policies[i].Departed = r.departed(cached, keys)
	}
	return report
}

// maxDeparted is how many images are listed.
const maxDeparted = 50

// departed returns the images that were in the policy's cache once and have
// left it.
func (r *runner) departed(cached []cache.ImageInfo, keys []sdk.Key) Images {
	var gone []cache.ImageInfo
	r.mu.Lock()
	for i, key := range keys {
		if _, ok := r.evicted[key]; ok {
			gone = append(gone, cached[i])
		}
	}
	r.mu.Unlock()
	slices.SortFunc(gone, func(a, b cache.ImageInfo) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.ID, b.ID))
	})
	out := Images{Images: len(gone), IDs: []string{}}
	for i, im := range gone {
		out.Bytes += im.Size
		if i < maxDeparted {
			out.IDs = append(out.IDs, im.ID)
		}
	}
	return out
}
