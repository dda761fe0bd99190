package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/sdk"
)

// million is how many images a policy is asked about.
const million = 1_000_000

// policies measures the policy that ships as the host has it, a module in the
// runner's process behind gRPC, beside the same code called natively: a
// million images are scored, and those chosen that leave for a twentieth of
// the bytes. A module that does nothing shows what the way there costs.
func (p *plan) policies(ctx context.Context, s *stage, t *table) error {
	s.stop() // what they hold is not to be in the way
	idle, err := filepath.Abs(filepath.Join("testdata", "wasm", "idle.wasm"))
	if err != nil {
		return err
	}
	scorers := []struct {
		server string
		scorer sdk.Scorer
		path   string // of a module
		score  []float64
		choose []float64
	}{
		{server: "lru, native", scorer: lru.New()},
		{server: "lru.wasm in the runner", path: filepath.Join(p.bin, "plugins", "lru.wasm")},
		{server: "a module that does nothing", path: idle},
	}
	sup, err := p.supervisor()
	if err != nil {
		return err
	}
	defer sup.Close()
	for i := range scorers {
		if one := &scorers[i]; one.path != "" {
			if one.scorer, err = startPolicy(ctx, sup, one.path); err != nil {
				return err
			}
		}
	}
	images := candidates(million)
	var ratios, transport []float64
	for round := range p.rounds + 1 { // the first warms up
		var took []float64
		for i := range scorers {
			one := &scorers[i]
			score, choose, err := images.choose(ctx, one.scorer)
			if err != nil {
				return fmt.Errorf("%s: %w", one.server, err)
			}
			if took = append(took, score+choose); round > 0 {
				one.score, one.choose = append(one.score, score), append(one.choose, choose)
			}
		}
		if round > 0 {
			idle := scorers[2].score
			ratios, transport = append(ratios, took[1]/took[0]), append(transport, 100*idle[len(idle)-1]/took[1])
		}
	}
	for _, one := range scorers {
		t.add(row{what: fmt.Sprintf("score %d images", million), server: one.server, unit: "ms", values: one.score})
	}
	for _, one := range scorers[:2] {
		t.add(row{what: "then choose those that leave for 5 % of the bytes", server: one.server, unit: "ms", values: one.choose})
	}
	t.add(row{what: "both, module over native", server: scorers[1].server, values: ratios}.under(3))
	t.add(row{what: "share of the way there and back", server: scorers[1].server, unit: "%", values: transport})
	return nil
}

// supervisor runs plugins as the host does.
func (p *plan) supervisor() (*plugin.Supervisor, error) {
	run := filepath.Join(p.dir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, err
	}
	return plugin.New(plugin.Config{
		RunDir: run, CacheDir: filepath.Join(p.dir, "compiled"), Executable: filepath.Join(p.bin, "imgcache-host"),
		Log: slog.New(slog.DiscardHandler),
	})
}

func startPolicy(ctx context.Context, sup *plugin.Supervisor, path string) (sdk.Scorer, error) {
	child, err := sup.Start(ctx, plugin.Spec{Name: filepath.Base(path), Kind: sdk.KindPolicy, Path: path})
	if err != nil {
		return nil, err
	}
	return child.Scorer(), child.Configure(ctx, sdk.Settings{})
}

// pool is images that a policy is asked about, and the bytes that are to
// leave.
type pool struct {
	records []sdk.Record
	need    uint64
}

func candidates(n int) *pool {
	rnd := rand.New(rand.NewPCG(1, 1))
	p := &pool{records: make([]sdk.Record, n)}
	for i := range p.records {
		admitted := time.Now().UnixNano() - rnd.Int64N(int64(365*24*time.Hour))
		r := sdk.Record{
			Key: sdk.Key(rnd.Uint64()), Size: 1 + rnd.Uint64N(1<<32), Hits: rnd.Uint64N(1000),
			Admitted: admitted, Accessed: admitted + rnd.Int64N(time.Now().UnixNano()-admitted), FetchMS: rnd.Uint32N(60_000),
		}
		p.records[i] = r
		p.need += r.Size / 20
	}
	return p
}

// choose does what the host does before a prune, and returns the milliseconds
// that the scores and the choice took.
func (p *pool) choose(ctx context.Context, s sdk.Scorer) (score, choose float64, err error) {
	start := time.Now()
	scores, err := ranking.Score(ctx, s, start, p.records)
	if err != nil {
		return 0, 0, err
	}
	scored := time.Now()
	left := uint64(0)
	for i := range ranking.Order(p.records, scores) {
		if left += p.records[i].Size; left >= p.need {
			break
		}
	}
	return ms(scored.Sub(start)), ms(time.Since(scored)), nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
