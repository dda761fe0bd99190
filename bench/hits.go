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

// hitSamples are the samples of each load on each server, and what the service
// took of memory with 64 clients, in MiB.
type hitSamples struct {
	of           map[hitLoad]map[*server][]sample
	own, plugins []float64 // of the service itself, and of its plugins
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
	var loads []hitLoad
	for _, n := range []int{1, 8, 64} {
		loads = append(loads, hitLoad{n, false}, hitLoad{n, true})
	}
	got, err := p.allHits(ctx, s, targets, loads)
	if err != nil {
		return err
	}
	for _, l := range loads {
		err := p.profiled(ctx, s.host, l.profile(), func() error {
			_, err := p.sampleHits(ctx, targets[1], l, s.big)
			return err
		})
		if err != nil {
			return err
		}
	}
	got.addTo(t, s, targets, loads)
	return nil
}

// allHits takes a sample of each load on each server in each round, the servers
// in a random order.
func (p *plan) allHits(ctx context.Context, s *stage, targets []target, loads []hitLoad) (hitSamples, error) {
	got := hitSamples{of: map[hitLoad]map[*server][]sample{}}
	for _, l := range loads {
		got.of[l] = map[*server][]sample{}
	}
	if p.rounds > 0 {
		if err := verifyAll(targets, s.big); err != nil { // now all have it
			return got, err
		}
	}
	for range p.rounds {
		for _, l := range loads {
			for _, i := range rand.Perm(len(targets)) {
				target := targets[i]
				one, err := p.sampleHits(ctx, target, l, s.big)
				if err != nil {
					return got, fmt.Errorf("%s: %w", target.name, err)
				}
				got.of[l][target.server] = append(got.of[l][target.server], one.sample)
				if target.server == s.host && l.connections == 64 {
					got.own, got.plugins = append(got.own, one.own), append(got.plugins, one.children)
				}
			}
		}
	}
	return got, nil
}

// addTo adds the rows of all samples to the table.
func (h hitSamples) addTo(t *table, s *stage, targets []target, loads []hitLoad) {
	aims := map[int]float64{1: 1.0, 8: 1.2, 64: 1.2}
	for _, l := range loads {
		for _, target := range targets {
			r := rowOf("hits of "+sizeText(s.big.size)+", "+l.String(), h.of[l][target.server], h.of[l][s.static])
			r.server = target.name
			if target.server == s.host {
				r.aimRate(aims[l.connections])
				r.aimCPU(1.2)
			}
			t.add(r)
		}
	}
	memory := fmt.Sprintf("resident memory, 64 clients on %s", sizeText(s.big.size))
	t.add(row{what: memory, server: "imgcache-host", unit: "MiB", values: h.own}.under(150))
	t.add(row{what: memory, server: "its plugins", unit: "MiB", values: h.plugins})
}

// hitLoad is what clients do at once.
type hitLoad struct {
	connections int
	verified    bool // the client checks each block, instead of only counting bytes
}

func (l hitLoad) String() string {
	s := fmt.Sprintf("%d connections", l.connections)
	if l.connections == 1 {
		s = "1 connection"
	}
	if l.verified {
		s += ", each block verified by the client"
	}
	return s
}

// profile names the profile taken under the load; none is of what a client
// slows down.
func (l hitLoad) profile() string {
	if l.verified {
		return ""
	}
	return fmt.Sprintf("hits-%d", l.connections)
}

// verifyAll downloads the image from every server and checks each block.
func verifyAll(targets []target, want *image) error {
	for _, target := range targets {
		c, err := dial(target.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", target.name, err)
		}
		err = c.verify(target.path, want, new(atomic.Int64))
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

// sampleHits measures downloads over connections that repeat them all the time.
func (p *plan) sampleHits(ctx context.Context, to target, l hitLoad, of *image) (s hitSample, err error) {
	var (
		count atomic.Int64
		over  atomic.Bool
		wg    sync.WaitGroup
		errs  = make(chan error, l.connections)
	)
	clients := make([]*conn, l.connections)
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
				if err := clients[i].download(to.path, of, l.verified, &count); err != nil && !over.Load() {
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
