package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// paceWindow is the time in which a prefetch must bring its least number of bytes. An
// origin gets an image from a tape or a bucket of its own in less time, and a dead
// transfer occupies a worker for no longer.
const paceWindow = time.Minute

// errNotStored says that the whole image was fetched, but is not in the cache.
var errNotStored = errors.New("the image could not be stored")

// wait waits until the fill is over. It returns nil if the image is stored. If the
// transfer brings fewer than least bytes a second, wait returns an error that wraps
// [origin.ErrSlow], and the transfer ends unless others follow it. What has come is
// kept.
func (f *fill) wait(ctx context.Context, least int64) error {
	const seconds = int64(paceWindow / time.Second)
	p := pace{least: min(least, math.MaxInt64/seconds) * seconds}
	defer p.stop()
	for {
		f.mu.Lock()
		over, stored, err, changed := f.state.over(), f.image != nil, f.state.err, f.changed
		have, moving := f.state.have, f.began && f.state.phase <= streaming
		f.mu.Unlock()
		switch {
		case stored:
			return nil
		case over && err != nil:
			return err
		case over:
			return errNotStored
		}
		select {
		case <-changed:
		case <-p.at(have, moving):
			if err := p.check(have); err != nil {
				f.giveUp(err)
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// giveUp ends a fill that the queue no longer wants, unless others follow it.
func (f *fill) giveUp(why error) {
	f.c.mu.Lock()
	f.mu.Lock()
	f.wanted = false
	alone := f.clients == 1
	if alone && f.c.fills[f.id] == f {
		delete(f.c.fills, f.id) // so that no other request follows it
	}
	f.mu.Unlock()
	f.c.mu.Unlock()
	if alone {
		f.cancel(why)
	}
}

// pace checks at the end of each window whether enough bytes have come.
type pace struct {
	least int64 // bytes in a window; 0: no bound
	had   int64 // at the beginning of the window
	timer *time.Timer
}

// at returns the channel that ends the window, or nil while no bytes are expected. A
// window begins when bytes are expected.
func (p *pace) at(have int64, moving bool) <-chan time.Time {
	switch {
	case p.least <= 0:
		return nil
	case !moving:
		p.stop()
		return nil
	case p.timer == nil:
		p.timer, p.had = time.NewTimer(paceWindow), have
	}
	return p.timer.C
}

// check ends a window and begins the next.
func (p *pace) check(have int64) error {
	p.timer = nil
	if came := have - p.had; came < p.least {
		return fmt.Errorf("%w of prefetch: %d bytes came in %v; expected at least %d", origin.ErrSlow, came, paceWindow, p.least)
	}
	return nil
}

func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}
