// Command bench measures imgcache-host beside nginx, Varnish and a bare sender
// on loopback, all in one run, and prints one table. `make bench` runs it;
// docs/benchmarks.md says what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// plan is what a run does.
type plan struct {
	bin     string        // directory of imgcache-host and its plugins
	dir     string        // where everything is written; removed at the end
	rounds  int           // samples of everything, interleaved
	image   int64         // bytes of the image of hits and misses
	cold    int64         // bytes of the image that many clients want at once
	window  time.Duration // of one sample of hits
	entries []int         // sizes of the caches that are pruned, ascending
	only    string        // the one part that is run; "": all

	profiles string // directory for CPU profiles of imgcache-host; "": none are taken
}

// whole and short are the two forms of a run. The acceptance figures are those
// of the whole one.
var (
	whole = plan{rounds: 5, image: 1 << 30, cold: 256 << 20, window: 700 * time.Millisecond, entries: []int{1000, 10_000, 100_000}}
	short = plan{rounds: 2, image: 256 << 20, cold: 64 << 20, window: 300 * time.Millisecond, entries: []int{1000, 10_000}}
)

// runLimit bounds a run, whatever hangs.
const runLimit = 25 * time.Minute

func main() {
	bin := flag.String("bin", "bin", "directory of imgcache-host and its plugins")
	dir := flag.String("dir", os.TempDir(), "where a directory for all files is made; it takes five times the image")
	form := flag.String("form", "whole", "whole or short")
	rounds := flag.Int("rounds", 0, "rounds, instead of those of the form")
	only := flag.String("only", "", "one part: hits, misses, crowd, prune, drivers or policies; default: all")
	profiles := flag.String("profiles", "", "directory for CPU profiles of imgcache-host, each taken in a further, uncounted round; default: none")
	sender := flag.String("sender", "", "be the bare sender of this file, instead of measuring")
	flag.Parse()
	if err := run(*bin, *dir, *form, *only, *profiles, *rounds, *sender); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(bin, dir, form, only, profiles string, rounds int, sender string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("not done within %v", runLimit))
	defer cancel()
	if sender != "" {
		return sendBare(ctx, sender)
	}
	p, ok := map[string]plan{"whole": whole, "short": short}[form]
	if !ok {
		return fmt.Errorf("-form is %q, want whole or short", form)
	}
	if p.only, p.profiles = only, profiles; rounds > 0 {
		p.rounds = rounds
	}
	head, err := environment()
	if err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp(dir, "imgcache-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	if p.bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	t := &table{head: fmt.Sprintf("%s\n%d rounds (form %s), load average at the start and at the end: %s", head, p.rounds, form, load())}
	if err := errors.Join(p.measure(ctx, t), context.Cause(ctx)); err != nil {
		return err
	}
	t.head += " and " + load()
	fmt.Print(t)
	return nil
}

// measure fills the table.
func (p *plan) measure(ctx context.Context, t *table) error {
	s, err := p.stage()
	if err != nil {
		return err
	}
	defer s.stop()
	for _, part := range []struct {
		name string
		run  func(context.Context, *stage, *table) error
	}{
		{"hits", p.hits}, {"misses", p.misses}, {"crowd", p.crowd}, {"prune", p.prune}, {"drivers", p.drivers}, {"policies", p.policies},
	} {
		if p.only != "" && p.only != part.name {
			continue
		}
		start := time.Now()
		if err := part.run(ctx, s, t); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", part.name, time.Since(start).Seconds())
	}
	return nil
}
