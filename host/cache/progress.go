package cache

import (
	"slices"
	"time"
)

// Fills returns how far the running fills and the writes of clients are, in the
// order of their start, and after them the fills that were interrupted.
func (c *Cache) Fills() []FillInfo {
	c.mu.Lock()
	list := make([]FillInfo, 0, len(c.fills))
	for _, f := range c.fills {
		list = append(list, f.progress())
	}
	c.mu.Unlock()
	list = append(list, c.writes.progress()...)
	slices.SortFunc(list, func(a, b FillInfo) int { return a.Started.Compare(b.Started) })
	for i, f := range list {
		list[i].Name = c.nameOf(f.ID, "")
	}
	for _, p := range c.parked.list() {
		list = append(list, FillInfo{ID: p.ID, Name: c.nameOf(p.ID, ""), Phase: Interrupted, Size: p.obj.Size, Written: p.Size, Resumed: p.Size, URL: p.obj.URL})
	}
	return list
}

// progress returns how far the fill is. The caller holds the cache's mutex.
func (f *fill) progress() FillInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := FillInfo{
		ID: f.id, Phase: f.state.phase.String(), Size: f.state.size, Written: f.state.have, Resumed: f.resumedBytes,
		Clients: f.clients, Started: f.started, URL: f.obj.URL,
	}
	if !f.began && !f.state.over() {
		info.Phase = "waiting"
	}
	if took := time.Since(f.started).Seconds(); took > 0 {
		info.Rate = int64(float64(f.state.have-f.resumedBytes) / took)
	}
	return info
}
