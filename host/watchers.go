package host

import (
	"github.com/imgcache/imgcache-host/host/trace"
)

// openWatchers makes those who are told of each request. A single command has
// none.
func (h *Host) openWatchers() {
	t := h.cfg.Cache.Trace
	if t.Path == "" || h.offline {
		return
	}
	h.trace = trace.NewRecorder(trace.RecorderConfig{Path: t.Path, MaxSize: t.MaxSize, Files: t.Files, Log: h.log})
	h.closers = append(h.closers, h.trace.Close)
}

// watch tells all of them; nil: there are none.
func (h *Host) watch() func(trace.Access) {
	if h.trace == nil {
		return nil
	}
	return h.trace.Add
}
