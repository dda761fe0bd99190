// Package sieve is the eviction policy SIEVE (Zhang, Yang, Yue, Vigfusson,
// Rashmi: "SIEVE is Simpler than LRU: an Efficient Turn-Key Eviction
// Algorithm for Web Caches", NSDI 2024).
//
// Images stand in the order of their admission, and an access only marks one
// as visited. A hand walks from the oldest to the newest and round again: it
// takes the mark from those that have one and evicts the first that has none.
// New images are so sifted quickly, while those in demand stay where they
// are. The policy has no parameters, in the paper and here.
package sieve

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/internal/queue"
	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the policy.
var Manifest = sdk.Manifest{
	Name:         "sieve",
	Version:      "1.0.0",
	Kind:         sdk.KindPolicy,
	Capabilities: []sdk.Capability{sdk.CapStateful, sdk.CapSnapshot},
}

// Policy is SIEVE. Select is a question: it changes nothing, and the hand
// moves when an image leaves or is refused.
type Policy struct {
	set  *queue.Set // one queue
	hand queue.Ref  // where the search goes on; 0: at the oldest
}

// visited is the mark of an image that was accessed since the hand passed.
const visited = 1

// New returns the policy.
func New() *Policy { return &Policy{set: queue.New(1)} }

// Observe implements [sdk.Stateful].
func (p *Policy) Observe(_ context.Context, events []sdk.Event) error {
	for i := range events {
		p.observe(&events[i])
	}
	return nil
}

func (p *Policy) observe(e *sdk.Event) {
	r := p.set.Find(e.Key)
	switch {
	case e.Kind == sdk.EventAdmitted:
		if r != 0 {
			p.drop(r)
		}
		p.set.Push(0, e.Key, e.Size)
	case r == 0:
	case e.Kind == sdk.EventAccessed:
		p.set.Node(r).Mark = visited
	case e.Kind == sdk.EventRemoved:
		if e.Reason == sdk.ReasonEvicted {
			p.victim()
		}
		p.drop(r)
	case e.Kind == sdk.EventRefused:
		if p.victim() == r { // it stays, and the hand goes on
			p.hand = p.set.Node(r).Newer()
		}
	}
}

// victim moves the hand to the image that leaves next and returns it, 0 when
// there is none. Another call finds it again.
func (p *Policy) victim() queue.Ref {
	if p.set.Queue(0).Len == 0 {
		return 0
	}
	for {
		if p.hand == 0 {
			p.hand = p.set.Queue(0).Oldest
		}
		n := p.set.Node(p.hand)
		if n.Mark != visited {
			return p.hand
		}
		n.Mark = 0
		p.hand = n.Newer()
	}
}

// drop forgets an image. A hand that points to it goes on to the next.
func (p *Policy) drop(r queue.Ref) {
	if p.hand == r {
		p.hand = p.set.Node(r).Newer()
	}
	p.set.Drop(r)
}

// Select implements [sdk.Stateful]: it evicts from a copy.
func (p *Policy) Select(_ context.Context, _ time.Time, need uint64, limit int) (keys []sdk.Key, _ error) {
	ahead := Policy{set: p.set.Scratch(), hand: p.hand}
	for need > 0 && len(keys) < limit {
		r := ahead.victim()
		if r == 0 {
			break
		}
		n := ahead.set.Node(r)
		keys = append(keys, n.Key)
		need -= min(need, n.Size)
		ahead.drop(r)
	}
	return keys, nil
}

// snapshotVersion is the first byte of a snapshot.
const snapshotVersion = 1

// Snapshot implements [sdk.Snapshotter]: the images, then whether the hand
// stands at one, and at which.
func (p *Policy) Snapshot(context.Context) ([]byte, error) {
	b := p.set.Append([]byte{snapshotVersion})
	if p.hand == 0 {
		return append(b, 0), nil
	}
	return binary.LittleEndian.AppendUint64(append(b, 1), uint64(p.set.Node(p.hand).Key)), nil
}

// Restore implements [sdk.Snapshotter].
func (p *Policy) Restore(_ context.Context, b []byte) error {
	if len(b) == 0 || b[0] != snapshotVersion {
		return fmt.Errorf("%w: not a snapshot of sieve", sdk.ErrInvalid)
	}
	b, err := p.set.Restore(b[1:])
	p.hand = 0
	switch {
	case err != nil:
		return err
	case len(b) == 1 && b[0] == 0:
		return nil
	case len(b) == 9 && b[0] == 1:
		p.hand = p.set.Find(sdk.Key(binary.LittleEndian.Uint64(b[1:])))
	}
	if p.hand == 0 {
		return fmt.Errorf("%w: the snapshot does not say where the hand is", sdk.ErrInvalid)
	}
	return nil
}
