package origin

import "sync"

// recent is a map that is bounded: it forgets what was put into it long ago. Use
// newRecent; the zero value cannot be used.
type recent[V any] struct {
	atLeast int // how many of the newest keys are never forgotten

	mu           sync.Mutex
	newer, older map[string]V
}

func newRecent[V any](atLeast int) *recent[V] {
	return &recent[V]{atLeast: atLeast, newer: map[string]V{}}
}

// put remembers v. When one map is full, the one before it is forgotten.
func (r *recent[V]) put(key string, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.newer) >= r.atLeast {
		r.newer, r.older = map[string]V{}, r.newer
	}
	r.newer[key] = v
}

// get returns the last value of a key, or the zero value.
func (r *recent[V]) get(key string) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.newer[key]; ok {
		return v
	}
	return r.older[key]
}
