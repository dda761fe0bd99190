package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// misses measures downloads of an image that a cache does not have. The origin
// is the same for all.
func (p *plan) misses(ctx context.Context, s *stage, t *table) error {
	lines := []struct {
		name string
		target
	}{
		{"nginx proxy_cache, unverified", target{s.proxy, "/sha256/"}},
		{"imgcache-host, SHA-256", target{s.host, "/sha256/"}},
		{"imgcache-host, MD5", target{s.host, "/md5/"}},
		{"direct from the origin", target{s.origin, "/sha256/"}},
	}
	got := make([][]sample, len(lines))
	for round := range p.rounds {
		for _, i := range rand.Perm(len(lines)) {
			l := lines[i]
			l.path += fmt.Sprintf("%s-miss%d", s.big.name, round)
			one, err := p.sampleMiss(ctx, s, l.target, "")
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			got[i] = append(got[i], one)
		}
	}
	for i, name := range map[int]string{1: "miss-sha256", 2: "miss-md5"} {
		if p.profiles == "" {
			break
		}
		l := lines[i].target
		l.path += s.big.name + "-profile"
		if _, err := p.sampleMiss(ctx, s, l, name); err != nil {
			return err
		}
	}
	what := "miss of " + sizeText(s.big.size)
	for i, l := range lines {
		r := rowOf(what, got[i], got[0])
		r.server = l.name
		switch i {
		case 1:
			r.aimRate(1.2)
		case 2:
			r.aimRate(1.0)
		}
		t.add(r)
	}
	return nil
}

// sampleMiss downloads an image that the server does not have, then downloads
// it once more to verify it, and takes it away again. The first download may be
// profiled under a name.
func (p *plan) sampleMiss(ctx context.Context, s *stage, to target, profile string) (m sample, err error) {
	if err := recycle(5 * p.image / 2); err != nil {
		return m, err
	}
	c, err := dial(to.addr)
	if err != nil {
		return m, err
	}
	defer c.Close()
	before, err := to.cpu()
	if err != nil {
		return m, err
	}
	var count atomic.Int64
	var took, client float64
	err = p.profiled(ctx, s.host, profile, func() error {
		own, start := ownCPU(), time.Now()
		_, err := c.discard(to.path, s.big.size, &count)
		took, client = time.Since(start).Seconds(), ownCPU()-own
		return err
	})
	if err != nil {
		return m, err
	}
	after, err := to.cpu()
	if err != nil {
		return m, err
	}
	sent := float64(s.big.size) / gib
	m = sample{rate: sent / took, server: (after - before) / sent, client: client / sent}
	if err := c.verify(to.path, s.big, &count); err != nil {
		return m, err
	}
	return m, s.forget(ctx, to)
}

// forget makes a server cold again.
func (s *stage) forget(ctx context.Context, to target) error {
	switch to.server {
	case s.host:
		id := strings.ReplaceAll(strings.TrimPrefix(to.path, "/"), "/", ".")
		if err := to.api.Delete(ctx, id); err != nil {
			return err
		}
		return to.settle(ctx, -1)
	case s.proxy, s.varnish:
		return to.anew()
	}
	return nil
}

// recycle touches and frees memory and lets all writes end. On a virtual
// machine the page cache takes fresh memory several times slower than memory
// that was in use before, and the first one to need it would pay.
func recycle(bytes int64) error {
	b, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return fmt.Errorf("touch memory: %w", err)
	}
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	syscall.Sync()
	return syscall.Munmap(b)
}

// crowdSize is how many clients want the same cold image at once.
const crowdSize = 32

// crowd measures what many clients get that want the same cold image at once.
func (p *plan) crowd(ctx context.Context, s *stage, t *table) error {
	servers := []*server{s.proxy, s.varnish, s.host}
	transfers, slowest, all := map[*server][]float64{}, map[*server][]float64{}, map[*server][]float64{}
	for round := range p.rounds {
		for _, i := range rand.Perm(len(servers)) {
			to := target{servers[i], fmt.Sprintf("/sha256/%s-crowd%d-%d", s.small.name, round, i)}
			if err := s.cool(to); err != nil {
				return err
			}
			first, last, err := askAll(to, s.small.size)
			if err != nil {
				return fmt.Errorf("%s: %w", to.name, err)
			}
			n, err := s.transfers(to.path)
			if err != nil {
				return err
			}
			transfers[to.server] = append(transfers[to.server], float64(n))
			slowest[to.server] = append(slowest[to.server], first.Seconds())
			all[to.server] = append(all[to.server], last.Seconds())
			if err := s.forget(ctx, to); err != nil {
				return err
			}
		}
	}
	what := fmt.Sprintf("%d clients on a cold image of %s", crowdSize, sizeText(s.small.size))
	for _, one := range servers {
		count := row{what: what + ", transfers", server: one.name, unit: "", values: transfers[one]}
		first := row{what: what + ", slowest first byte", server: one.name, unit: "s", values: slowest[one], base: slowest[s.proxy]}
		if one == s.host {
			count, first = count.atMost(1), first.under(0.1)
		}
		t.add(count)
		t.add(first)
		t.add(row{what: what + ", all done", server: one.name, unit: "s", values: all[one], base: all[s.proxy]})
	}
	return nil
}

// cool empties a peer before the crowd comes: what it holds from the hits would
// leave it no room.
func (s *stage) cool(to target) error {
	if err := recycle(2 * s.small.size); err != nil {
		return err
	}
	if to.server == s.host {
		return nil
	}
	return to.anew()
}

// askAll lets all clients ask for one image, and returns when the last of them
// had its first byte and when all had everything.
func askAll(to target, size int64) (first, last time.Duration, err error) {
	clients := make([]*conn, crowdSize)
	for i := range clients {
		if clients[i], err = dial(to.addr); err != nil {
			return 0, 0, err
		}
		defer clients[i].Close()
	}
	var (
		wg    sync.WaitGroup
		count atomic.Int64
		mu    sync.Mutex // guards first and err
	)
	start := time.Now()
	for _, c := range clients {
		wg.Go(func() {
			at, e := c.discard(to.path, size, &count)
			mu.Lock()
			defer mu.Unlock()
			first = max(first, at.Sub(start))
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	return first, time.Since(start), err
}

// transfers returns how often the origin sent bytes of an image.
func (s *stage) transfers(path string) (int, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(s.originLog)
		if err != nil {
			return 0, err
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			var method, asked string
			var sent int64
			if _, err := fmt.Sscan(line, &method, &asked, &sent); err == nil && method == "GET" && asked == path && sent > 0 {
				n++
			}
		}
		if n > 0 {
			return n, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("the origin knows of no transfer of %s", path)
		}
	}
}
