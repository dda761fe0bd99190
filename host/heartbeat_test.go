package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// beats counts heartbeats, and fails while down.
type beats struct {
	n    atomic.Int64
	down atomic.Bool
}

func (b *beats) Heartbeat(ctx context.Context) error {
	b.n.Add(1)
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("no deadline")
	}
	if b.down.Load() {
		return sdk.ErrUnavailable
	}
	return nil
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var there atomic.Bool
		b := &beats{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		h := &heartbeat{
			driver: func() sdk.Heartbeater {
				if !there.Load() {
					return nil
				}
				return b
			},
			log: slog.New(slog.NewTextHandler(&log, nil)),
		}
		go h.run(ctx)
		pass := func(d time.Duration) int64 {
			before := b.n.Load()
			time.Sleep(d)
			synctest.Wait()
			return b.n.Load() - before
		}
		if n := pass(time.Minute); n != 0 {
			t.Errorf("%d heartbeats of a driver that is not there", n)
		}
		there.Store(true)
		if n := pass(10 * time.Minute); n < 55 || n > 66 {
			t.Errorf("%d heartbeats in ten minutes", n)
		}
		b.down.Store(true)
		pass(time.Minute)
		if err := h.trouble(); !errors.Is(err, sdk.ErrUnavailable) {
			t.Errorf("in the outage: %v", err)
		}
		b.down.Store(false)
		pass(time.Minute)
		if err := h.trouble(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		cancel()
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines of one outage: %s", n, &log)
		}
	})
}
