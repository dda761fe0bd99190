package origin

import "sync"

// recent is a bounded memory of what was put into it of late. The zero value
// is empty and of no use: see newRecent.
type recent[V any] struct {
	atLeast int // so many of the newest are known

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

// get returns what was put last, or the zero value.
func (r *recent[V]) get(key string) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.newer[key]; ok {
		return v
	}
	return r.older[key]
}
