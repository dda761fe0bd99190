// Package s3fifo is the eviction policy S3-FIFO (Yang, Zhang, Qiu, Yue,
// Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023).
//
// An image is admitted to a small queue. At its end it leaves, and its key
// is remembered in a ghost queue, unless it was accessed more than once: then
// it goes on to the main queue. There it is put back, with one access less to
// its credit, until it has none. An image that comes back while its ghost is
// remembered is admitted to the main queue at once.
//
// The parameters, and their defaults, are those of the paper: the small queue
// has 10 % of the capacity (option small), an image moves on with 2 accesses
// (option promote), they count up to 3, and the ghosts stand for as much as the
// main queue holds, 90 % of the capacity (option ghost). Sizes are bytes, where
// the paper counts objects of one size; and as in the paper's own simulator,
// one step evicts from one queue only, whereas its algorithm 1 may evict a
// second image when a promotion finds the main queue full.
package s3fifo

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
	Name:         "s3fifo",
	Version:      "1.0.0",
	Kind:         sdk.KindPolicy,
	Capabilities: []sdk.Capability{sdk.CapStateful, sdk.CapSnapshot},
	Options: []sdk.Option{
		{Name: "small", Type: sdk.TypeNumber, Default: "0.1", Description: "size of the small queue as a share of the capacity, between 0 and 1"},
		{Name: "promote", Type: sdk.TypeNumber, Default: "2", Description: "number of accesses after which an image moves to the main queue, 1 to 3"},
		{Name: "ghost", Type: sdk.TypeNumber, Default: "0.9", Description: "size of the evicted images that are remembered (ghosts), as a share of the capacity, 0 to 10"},
	},
}

// The queues. The mark of a node is the number of its accesses.
const (
	small = iota
	main
	ghost
	queues
)

const (
	maxAccesses = 3 // what an image can have to its credit

	// maxGhosts bounds the memory of ghosts, 3 MiB, when images are tiny.
	maxGhosts = 1 << 16
)

// Policy is S3-FIFO. Select is a question: it changes nothing, and the queues
// move when an image leaves or is refused.
type Policy struct {
	set      *queue.Set
	capacity uint64 // bytes

	smallShare, ghostShare float64
	promote                uint8 // accesses that move an image on
}

// New returns the policy with the parameters of the paper.
func New() *Policy {
	return &Policy{set: queue.New(queues), smallShare: 0.1, ghostShare: 0.9, promote: 2}
}

// Configure implements [sdk.Configurer].
func (p *Policy) Configure(_ context.Context, s sdk.Settings) error {
	if s.Options.Text("small") != "" {
		p.smallShare = s.Options.Number("small")
	}
	if s.Options.Text("ghost") != "" {
		p.ghostShare = s.Options.Number("ghost")
	}
	if !(p.smallShare > 0 && p.smallShare < 1) {
		return fmt.Errorf("%w: option small is %g; expected a number between 0 and 1", sdk.ErrInvalid, p.smallShare)
	}
	if !(p.ghostShare >= 0 && p.ghostShare <= 10) {
		return fmt.Errorf("%w: option ghost is %g; expected a number from 0 to 10", sdk.ErrInvalid, p.ghostShare)
	}
	if s.Options.Text("promote") != "" {
		n := s.Options.Number("promote")
		if n != 1 && n != 2 && n != maxAccesses {
			return fmt.Errorf("%w: option promote is %g; expected 1, 2 or %d", sdk.ErrInvalid, n, maxAccesses)
		}
		p.promote = uint8(n)
	}
	return nil
}

// Observe implements [sdk.Stateful].
func (p *Policy) Observe(_ context.Context, events []sdk.Event) error {
	for i := range events {
		p.observe(&events[i])
	}
	return nil
}

func (p *Policy) observe(e *sdk.Event) {
	r := p.set.Find(e.Key)
	cached := r != 0 && p.set.Node(r).In != ghost
	switch e.Kind {
	case sdk.EventCapacity:
		p.capacity = e.Size
		p.trimGhosts()
	case sdk.EventAdmitted:
		p.admit(r, e)
	case sdk.EventAccessed:
		if cached {
			n := p.set.Node(r)
			n.Mark = uint8(min(maxAccesses, uint64(n.Mark)+uint64(e.Count)))
		}
	case sdk.EventRemoved:
		if cached {
			p.remove(r, e.Reason)
		}
	case sdk.EventRefused:
		if cached && p.victim() == r { // it stays, behind the others
			p.set.Move(r, p.set.Node(r).In)
		}
	}
}

// admit takes an image in. r is what the set has of its key.
func (p *Policy) admit(r queue.Ref, e *sdk.Event) {
	to := uint8(small)
	if r != 0 {
		if p.set.Node(r).In == ghost {
			to = main
		}
		p.set.Drop(r)
	}
	p.set.Push(to, e.Key, e.Size)
}

// remove forgets an image; one that was evicted from the small queue becomes
// a ghost.
func (p *Policy) remove(r queue.Ref, why sdk.Reason) {
	if why != sdk.ReasonEvicted {
		p.set.Drop(r)
		return
	}
	p.victim()
	if p.set.Node(r).In == main {
		p.set.Drop(r)
		return
	}
	p.set.Move(r, ghost)
	p.trimGhosts()
}

func (p *Policy) trimGhosts() {
	limit := p.ghostShare * float64(p.capacity)
	for {
		q := p.set.Queue(ghost)
		if q.Len == 0 || q.Len <= maxGhosts && float64(q.Bytes) <= limit {
			return
		}
		p.set.Drop(q.Oldest)
	}
}

// victim moves images between the queues until the one that leaves next
// stands at the end of its own, and returns it, 0 when there is none. Another
// call finds it again.
func (p *Policy) victim() queue.Ref {
	for {
		s, m := p.set.Queue(small), p.set.Queue(main)
		if s.Len > 0 && (m.Len == 0 || float64(s.Bytes) >= p.smallShare*float64(p.capacity)) {
			if p.set.Node(s.Oldest).Mark < p.promote {
				return s.Oldest
			}
			p.set.Move(s.Oldest, main)
			continue
		}
		if m.Len == 0 || p.set.Node(m.Oldest).Mark == 0 {
			return m.Oldest
		}
		p.set.Node(m.Oldest).Mark--
		p.set.Move(m.Oldest, main)
	}
}

// Select implements [sdk.Stateful]: it evicts from a copy.
func (p *Policy) Select(_ context.Context, _ time.Time, need uint64, limit int) (keys []sdk.Key, _ error) {
	ahead := *p
	ahead.set = p.set.Scratch()
	for need > 0 && len(keys) < limit {
		r := ahead.victim()
		if r == 0 {
			break
		}
		n := ahead.set.Node(r)
		keys = append(keys, n.Key)
		need -= min(need, n.Size)
		ahead.set.Drop(r)
	}
	return keys, nil
}

// snapshotVersion is the first byte of a snapshot.
const snapshotVersion = 1

// Snapshot implements [sdk.Snapshotter]: capacity and queues. The options
// come with the configuration.
func (p *Policy) Snapshot(context.Context) ([]byte, error) {
	return p.set.Append(binary.LittleEndian.AppendUint64([]byte{snapshotVersion}, p.capacity)), nil
}

// Restore implements [sdk.Snapshotter].
func (p *Policy) Restore(_ context.Context, b []byte) error {
	if len(b) < 9 || b[0] != snapshotVersion {
		return fmt.Errorf("%w: not a snapshot of s3fifo", sdk.ErrInvalid)
	}
	p.capacity = binary.LittleEndian.Uint64(b[1:])
	rest, err := p.set.Restore(b[9:])
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes follow the snapshot", sdk.ErrInvalid, len(rest))
	}
	if err != nil {
		return err
	}
	p.trimGhosts()
	return nil
}
