package cache

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// reach remembers which origins cannot confirm cached images, so that each change
// of that is logged once and not with each hit.
type reach struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	failing map[string]OriginTrouble // by the origin's name
}

// OriginTrouble says that an origin does not confirm cached images, which are
// served stale meanwhile.
type OriginTrouble struct {
	Origin string    `json:"origin"`
	Since  time.Time `json:"since"`
	Error  string    `json:"error"`
}

func (r *reach) failed(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.failing[name]
	if !known {
		r.log.Warn("the origin cannot confirm cached images; they are served stale", "origin", name, "error", err)
		old = OriginTrouble{Origin: name, Since: r.now().UTC()}
	}
	if r.failing == nil {
		r.failing = map[string]OriginTrouble{}
	}
	old.Error = err.Error()
	r.failing[name] = old
}

func (r *reach) answered(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, known := r.failing[name]; known {
		r.log.Info("the origin confirms cached images again", "origin", name, "after", r.now().Sub(old.Since))
		delete(r.failing, name)
	}
}

// why returns why an origin does not confirm cached images, or "".
func (r *reach) why(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failing[name].Error
}

// list returns the origins that fail, in the order of their names.
func (r *reach) list() []OriginTrouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []OriginTrouble
	for _, t := range r.failing {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b OriginTrouble) int { return strings.Compare(a.Origin, b.Origin) })
	return list
}
