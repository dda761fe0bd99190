// Command faults is a policy that does what the key of the first record says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() {
	guest.Export(sdk.Manifest{
		Name: "faults", Version: "1.0.0", Kind: sdk.KindPolicy, Capabilities: []sdk.Capability{sdk.CapScore},
		Options: []sdk.Option{{Name: "base", Type: sdk.TypeNumber, Required: true}},
	}, &policy{})
}

func main() {}

type policy struct {
	base  float64
	calls int
	state []*int // of 13, and a copy of it
	copy  []*int
}

func (p *policy) Configure(_ context.Context, s sdk.Settings) error {
	if p.base = s.Options.Number("base"); p.base < 0 {
		return fmt.Errorf("%w: option base: %v is negative", sdk.ErrInvalid, p.base)
	}
	return nil
}

// Score answers base plus the number of the call, or what else is asked for.
func (p *policy) Score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	p.calls++
	if len(records) == 0 {
		return nil
	}
	scores[0] = p.base + float64(p.calls)
	switch records[0].Key {
	case 1:
		return fmt.Errorf("step: %w", sdk.ErrNotFound)
	case 2:
		return fmt.Errorf("step: %w", sdk.ErrInvalid)
	case 3:
		return fmt.Errorf("step: %w", sdk.ErrUnsupported)
	case 4:
		return fmt.Errorf("step: %w", sdk.ErrUnavailable)
	case 5:
		return errors.New("something else")
	case 6:
		var list []int
		list[len(records)] = 1
	case 7:
		os.Exit(3)
	case 8:
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
			scores[0] += float64(len(all))
		}
	case 9:
		<-make(chan int)
	case 10:
		fmt.Print("half a ")
		fmt.Println("line")
	case 11:
		if _, err := os.ReadFile("/etc/passwd"); err == nil || len(os.Args) > 1 || len(os.Environ()) > 0 {
			return errors.New("the world can be seen")
		}
	case 12:
		return lru.New().Score(ctx, now, records, scores)
	case 13: // works on a copy of what it keeps
		if p.state == nil {
			for i := range 50_000 {
				p.state = append(p.state, &i)
			}
		}
		p.copy = slices.Clone(p.state)
	}
	return nil
}
