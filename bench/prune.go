package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// entrySize is the size of an image in a cache that is pruned. Each takes a
// block of the file system, whatever its size.
const entrySize = 1 << 10

// prune measures how long a tenth of a cache takes to leave, with the driver
// and the policy that ship, and the memory of a cache of so many images.
func (p *plan) prune(ctx context.Context, s *stage, t *table) error {
	s.stop() // what they hold is not to be in the way
	took := map[int][]float64{}
	for _, n := range p.entries {
		var own, plugins []float64
		host, err := prepareEntries(p, s.bin, n)
		if err != nil {
			return err
		}
		for range p.rounds {
			one, err := p.samplePrune(ctx, host, s.bin, n, "")
			if err != nil {
				return fmt.Errorf("%d entries: %w", n, err)
			}
			took[n] = append(took[n], one.took)
			own, plugins = append(own, one.own), append(plugins, one.plugins)
		}
		if p.profiles != "" {
			if _, err := p.samplePrune(ctx, host, s.bin, n, fmt.Sprintf("prune-%d", n)); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(host.dir); err != nil {
			return err
		}
		r := row{what: fmt.Sprintf("prune of 10 %% of %d entries", n), server: "imgcache-host", unit: "s", values: took[n]}
		if n == 100_000 {
			r = r.under(1)
		}
		t.add(r)
		memory := fmt.Sprintf("resident memory, %d entries", n)
		t.add(row{what: memory, server: "imgcache-host", unit: "MiB", values: own})
		t.add(row{what: memory, server: "its plugins", unit: "MiB", values: plugins})
	}
	for i, n := range p.entries[1:] {
		from := p.entries[i]
		growth := math.Log(median(took[n])/median(took[from])) / math.Log(float64(n)/float64(from))
		r := row{what: fmt.Sprintf("prune, growth exponent from %d to %d entries", from, n), server: "imgcache-host", values: []float64{growth}}
		t.add(r.atMost(1.3))
	}
	return nil
}

// prepareEntries makes a server of which nothing runs yet.
func prepareEntries(p *plan, bin string, n int) (*server, error) {
	origin := filepath.Join(p.dir, "empty")
	if err := os.MkdirAll(origin, 0o755); err != nil {
		return nil, err
	}
	how := imgcache(bin, fmt.Sprintf("origin \"directory\" \"empty\" { path = %q }\n", origin))
	host, err := prepare(fmt.Sprintf("entries-%d", n), p.dir, how)
	if err == nil {
		host.process.stop()
	}
	return host, err
}

// pruneSample is one prune, and the memory in MiB before it.
type pruneSample struct{ took, own, plugins float64 }

// samplePrune fills the cache up to n images, starts the service, and lets a
// tenth leave, with a profile of that name.
func (p *plan) samplePrune(ctx context.Context, s *server, bin string, n int, profile string) (one pruneSample, err error) {
	if err := fillUp(filepath.Join(s.dir, "images"), n); err != nil {
		return one, err
	}
	if err := s.serve(bin, filepath.Join(s.dir, "config.hcl")); err != nil {
		return one, err
	}
	defer s.process.stop()
	if err := s.settle(ctx, n); err != nil {
		return one, err
	}
	if one.own, one.plugins, err = s.resident(); err != nil {
		return one, err
	}
	target := int64(n-n/10) * entrySize
	err = p.profiled(ctx, s, profile, func() error {
		start := time.Now()
		done, err := s.api.Prune(ctx, cache.PruneOptions{MaxSize: &target})
		one.took = time.Since(start).Seconds()
		if err == nil && done.Files != n/10 {
			err = fmt.Errorf("%d images left, want %d", done.Files, n/10)
		}
		return err
	})
	if err != nil {
		return one, err
	}
	return one, s.settle(ctx, n-n/10)
}

// fillUp puts images into a cache directory as another program would, those
// that are missing.
func fillUp(dir string, n int) error {
	content := make([]byte, entrySize)
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("image-%06d", i))
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		copy(content, path)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
		if os.Getuid() == 0 {
			if err := os.Chown(path, nobody, nobody); err != nil {
				return err
			}
		}
	}
	return nil
}
