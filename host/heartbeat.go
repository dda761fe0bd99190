package host

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// beatEvery is how often a driver that wants heartbeats gets one: a node
	// counts as away after several are missing.
	beatEvery = 10 * time.Second
	// beatTimeout bounds one; the next comes soon.
	beatTimeout = 5 * time.Second
)

// heartbeat tells a driver that several nodes share that this one lives.
type heartbeat struct {
	driver func() sdk.Heartbeater // nil: it runs not, or wants none
	log    *slog.Logger
}

// run beats until the context ends, at times that differ between nodes which
// were started together. It says once that it does not get through, and once
// that it does again.
func (h heartbeat) run(ctx context.Context) {
	trouble := false
	for {
		if d := h.driver(); d != nil {
			limited, cancel := context.WithTimeout(ctx, beatTimeout)
			err := d.Heartbeat(limited)
			cancel()
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !trouble:
				h.log.Warn("heartbeats do not reach the driver's store; other nodes will take this one for away", "error", err)
			case err == nil && trouble:
				h.log.Info("heartbeats reach the driver's store again")
			}
			trouble = err != nil
		}
		select {
		case <-time.After(beatEvery*9/10 + rand.N(beatEvery/5)):
		case <-ctx.Done():
			return
		}
	}
}

// heartbeater returns the driver if it runs and wants heartbeats.
func (h *Host) heartbeater() sdk.Heartbeater {
	d, _ := h.driver.Load().Driver().(sdk.Heartbeater)
	return d
}
