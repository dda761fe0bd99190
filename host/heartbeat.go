package host

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// beatEvery is the time between two heartbeats: a node counts as away after
	// several are missing.
	beatEvery = 10 * time.Second
	// beatTimeout bounds one heartbeat; the next comes soon.
	beatTimeout = 5 * time.Second
)

// heartbeat tells a driver which several nodes share that this node is alive.
type heartbeat struct {
	driver  func() sdk.Heartbeater // returns nil if the driver wants none, or has never run
	log     *slog.Logger
	failing atomic.Pointer[error] // why the last heartbeat failed; nil: it did not
}

// run sends heartbeats until the context ends, at random times, so that nodes
// which were started together do not send at once. It logs once that heartbeats
// fail, and once that they succeed again.
func (h *heartbeat) run(ctx context.Context) {
	for {
		if d := h.driver(); d != nil {
			h.beat(ctx, d)
		} else {
			h.failing.Store(nil)
		}
		select {
		case <-time.After(beatEvery*9/10 + rand.N(beatEvery/5)):
		case <-ctx.Done():
			return
		}
	}
}

func (h *heartbeat) beat(ctx context.Context, d sdk.Heartbeater) {
	limited, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	err := d.Heartbeat(limited)
	if ctx.Err() != nil {
		return
	}
	failing := h.trouble() != nil
	switch {
	case err != nil:
		if !failing {
			h.log.Warn("heartbeats do not reach the driver's store; other nodes will think that this one is down", "error", err)
		}
		h.failing.Store(&err)
	case failing:
		h.log.Info("heartbeats reach the driver's store again")
		h.failing.Store(nil)
	}
}

// trouble returns why heartbeats fail; nil if they do not, or if the driver
// wants none.
func (h *heartbeat) trouble() error {
	if err := h.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// heartbeater returns the driver if it is known to want heartbeats.
func (h *Host) heartbeater() sdk.Heartbeater {
	d, _ := h.driver.Load().Driver().(sdk.Heartbeater)
	return d
}
