package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const gib = 1 << 30

// warmUp is what a sample of hits leaves out, until all connections are at
// work and TCP has found its windows.
const warmUp = 300 * time.Millisecond

// sample is what was measured of one server in one round.
type sample struct {
	rate   float64 // GiB/s
	server float64 // seconds of CPU per GiB
	client float64 // the same, of this process
}

// target is what a server is asked for.
type target struct {
	*server
	path string
}

// hits measures downloads of an image that every server has.
func (p *plan) hits(ctx context.Context, s *stage, t *table) error {
	targets := []target{
		{s.static, "/big"},
		{s.host, "/sha256/big-hit"},
		{s.unpushed, "/big"},
		{s.proxy, "/sha256/big-hit"},
		{s.varnish, "/sha256/big-hit"},
		{s.bare, "/big"},
	}
	connections := []int{1, 8, 64}
	got := map[int]map[string][]sample{1: {}, 8: {}, 64: {}}
	var own, plugins []float64
	for range p.rounds {
		if err := verifyAll(targets, s.big); err != nil {
			return err
		}
		for _, n := range connections {
			for _, i := range rand.Perm(len(targets)) {
				target := targets[i]
				one, err := p.sampleHits(ctx, target, n, s.big.size)
				if err != nil {
					return fmt.Errorf("%s: %w", target.name, err)
				}
				got[n][target.name] = append(got[n][target.name], one.sample)
				if target.server == s.host && n == 64 {
					own, plugins = append(own, one.own), append(plugins, one.children)
				}
			}
		}
	}
	aims := map[int]float64{1: 1.0, 8: 1.2, 64: 1.2}
	for _, n := range connections {
		what := fmt.Sprintf("hits of %s, %d connections", sizeText(s.big.size), n)
		for _, target := range targets {
			r := rowOf(what, got[n][target.name], got[n][s.static.name])
			r.server = target.name
			if target.server == s.host {
				r.aimRate(aims[n])
				r.aimCPU(1.2)
			}
			t.add(r)
		}
	}
	memory := fmt.Sprintf("resident memory, 64 clients on %s", sizeText(s.big.size))
	t.add(row{what: memory, server: "imgcache-host", unit: "MiB", values: own}.under(150))
	t.add(row{what: memory, server: "its plugins", unit: "MiB", values: plugins})
	return nil
}

// verifyAll downloads the image from every server and checks each block.
func verifyAll(targets []target, want *image) error {
	for _, target := range targets {
		c, err := dial(target.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", target.name, err)
		}
		err = c.verify(target.path, want)
		_ = c.Close() // all was read
		if err != nil {
			return fmt.Errorf("%s: %w", target.name, err)
		}
	}
	return nil
}

// hitSample is a sample with the memory at its end, in MiB.
type hitSample struct {
	sample
	own, children float64
}

// sampleHits measures downloads over n connections, which repeat them all the
// time.
func (p *plan) sampleHits(ctx context.Context, to target, n int, size int64) (s hitSample, err error) {
	var (
		count atomic.Int64
		over  atomic.Bool
		wg    sync.WaitGroup
		errs  = make(chan error, n)
	)
	clients := make([]*conn, n)
	defer func() {
		over.Store(true)
		for _, c := range clients {
			if c != nil {
				_ = c.Close() // in the middle of a download
			}
		}
		wg.Wait()
	}()
	for i := range clients {
		if clients[i], err = dial(to.addr); err != nil {
			return s, err
		}
		wg.Go(func() {
			for !over.Load() {
				if _, err := clients[i].discard(to.path, size, &count); err != nil && !over.Load() {
					errs <- err
					return
				}
			}
		})
	}
	time.Sleep(warmUp)
	before, err := to.cpu()
	if err != nil {
		return s, err
	}
	own, bytes, start := ownCPU(), count.Load(), time.Now()
	select {
	case <-time.After(p.window):
	case <-ctx.Done():
		return s, ctx.Err()
	case err := <-errs:
		return s, err
	}
	sent, took, ownAfter := float64(count.Load()-bytes)/gib, time.Since(start).Seconds(), ownCPU()
	after, err := to.cpu()
	if err != nil {
		return s, err
	}
	s.sample = sample{rate: sent / took, server: (after - before) / sent, client: (ownAfter - own) / sent}
	s.own, s.children, err = to.resident()
	return s, err
}
