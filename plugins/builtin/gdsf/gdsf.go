// Package gdsf is the eviction policy GreedyDual-Size-Frequency (Cherkasova:
// "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching
// Policy", HP Laboratories HPL-98-69R1, 1998).
//
// An image has the priority L + accesses x cost / size, and the lowest leaves
// first. L is the priority of the one that left last, so that images which
// are read no more grow old by what happens around them.
//
// The option cost chooses what a miss costs. "hit", the default, is the
// constant 1 of the paper, which serves most requests from the cache: a small
// image is worth more. "byte" makes a miss cost its bytes, which serves most
// bytes from the cache: the size cancels out, and frequency and age remain.
package gdsf

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the policy.
var Manifest = sdk.Manifest{
	Name:         "gdsf",
	Version:      "1.0.0",
	Kind:         sdk.KindPolicy,
	Capabilities: []sdk.Capability{sdk.CapStateful, sdk.CapSnapshot},
	Options: []sdk.Option{
		{Name: "cost", Type: sdk.TypeString, Default: "hit", Description: `what a miss costs: "hit": the same for all images; "byte": the size of the image`},
	},
}

// Policy is GreedyDual-Size-Frequency. Select is a question: it changes
// nothing, and L rises when an image leaves or is refused.
type Policy struct {
	byBytes bool
	age     float64 // L of the paper
	images  images
}

// New returns the policy with the cost "hit".
func New() *Policy { return &Policy{images: images{place: map[sdk.Key]int{}}} }

// Configure implements [sdk.Configurer].
func (p *Policy) Configure(_ context.Context, s sdk.Settings) error {
	switch cost := s.Options.Text("cost"); cost {
	case "", "hit":
		p.byBytes = false
	case "byte":
		p.byBytes = true
	default:
		return fmt.Errorf(`%w: option cost is %q; expected "hit" or "byte"`, sdk.ErrInvalid, cost)
	}
	return nil
}

// image is an image with its priority.
type image struct {
	key      sdk.Key
	size     uint64
	accesses uint64 // the admission counts as one
	priority float64
}

// value is the part of the priority that the image has by itself.
func (p *Policy) value(im *image) float64 {
	if p.byBytes {
		return float64(im.accesses)
	}
	return float64(im.accesses) / float64(max(1, im.size))
}

// Observe implements [sdk.Stateful].
func (p *Policy) Observe(_ context.Context, events []sdk.Event) error {
	for i := range events {
		p.observe(&events[i])
	}
	return nil
}

func (p *Policy) observe(e *sdk.Event) {
	i, cached := p.images.place[e.Key]
	switch {
	case e.Kind == sdk.EventAdmitted:
		if cached {
			heap.Remove(&p.images, i)
		}
		im := image{key: e.Key, size: e.Size, accesses: 1}
		im.priority = p.age + p.value(&im)
		heap.Push(&p.images, im)
	case !cached:
	case e.Kind == sdk.EventAccessed:
		im := &p.images.heap[i]
		im.accesses += uint64(e.Count)
		p.renew(i)
	case e.Kind == sdk.EventRemoved:
		if e.Reason == sdk.ReasonEvicted {
			p.grow(i)
		}
		heap.Remove(&p.images, i)
	case e.Kind == sdk.EventRefused: // as if it left and came back
		p.grow(i)
		p.renew(i)
	}
}

// renew gives an image the priority of one that is accessed now.
func (p *Policy) renew(i int) {
	im := &p.images.heap[i]
	im.priority = p.age + p.value(im)
	heap.Fix(&p.images, i)
}

// grow raises L to the priority of the image that leaves if its turn has
// come. L never passes an image that stays.
func (p *Policy) grow(i int) {
	if i == 0 {
		p.age = max(p.age, p.images.heap[0].priority)
	}
}

// Select implements [sdk.Stateful]: it evicts from a copy.
func (p *Policy) Select(_ context.Context, _ time.Time, need uint64, limit int) (keys []sdk.Key, _ error) {
	ahead := images{heap: slices.Clone(p.images.heap)}
	for need > 0 && len(keys) < limit && len(ahead.heap) > 0 {
		im := heap.Pop(&ahead).(image)
		keys = append(keys, im.key)
		need -= min(need, im.size)
	}
	return keys, nil
}

// A snapshot is a byte of version, L, the number of images, and the images in
// the order of their keys. Priorities are part of it: they hold the L of each
// image's last access.
const (
	snapshotVersion = 1
	headSize        = 1 + 8 + 8
	imageSize       = 4 * 8
)

// Snapshot implements [sdk.Snapshotter].
func (p *Policy) Snapshot(context.Context) ([]byte, error) {
	le := binary.LittleEndian
	list := slices.SortedFunc(slices.Values(p.images.heap), func(a, b image) int { return cmp.Compare(a.key, b.key) })
	b := le.AppendUint64([]byte{snapshotVersion}, math.Float64bits(p.age))
	b = le.AppendUint64(b, uint64(len(list)))
	for _, im := range list {
		b = le.AppendUint64(b, uint64(im.key))
		b = le.AppendUint64(b, im.size)
		b = le.AppendUint64(b, im.accesses)
		b = le.AppendUint64(b, math.Float64bits(im.priority))
	}
	return b, nil
}

// Restore implements [sdk.Snapshotter].
func (p *Policy) Restore(_ context.Context, b []byte) error {
	le := binary.LittleEndian
	if len(b) < headSize || b[0] != snapshotVersion {
		return fmt.Errorf("%w: not a snapshot of gdsf", sdk.ErrInvalid)
	}
	rest := uint64(len(b) - headSize)
	if rest%imageSize != 0 || rest/imageSize != le.Uint64(b[9:]) {
		return fmt.Errorf("%w: the snapshot has %d bytes of images; expected %d images", sdk.ErrInvalid, rest, le.Uint64(b[9:]))
	}
	p.images = images{place: map[sdk.Key]int{}}
	p.age = math.Float64frombits(le.Uint64(b[1:]))
	valid := p.age >= 0
	for b = b[headSize:]; len(b) > 0; b = b[imageSize:] {
		im := image{
			key: sdk.Key(le.Uint64(b)), size: le.Uint64(b[8:]), accesses: le.Uint64(b[16:]),
			priority: math.Float64frombits(le.Uint64(b[24:])),
		}
		_, twice := p.images.place[im.key]
		valid = valid && !twice && im.priority >= 0 // no NaN
		heap.Push(&p.images, im)
	}
	if !valid {
		return fmt.Errorf("%w: the snapshot has impossible values", sdk.ErrInvalid)
	}
	return nil
}

// images is a heap, the lowest priority first, that knows the place of each
// key. A copy without places can only be popped from.
type images struct {
	heap  []image
	place map[sdk.Key]int
}

func (h *images) Len() int { return len(h.heap) }

// Less orders by priority, and equals by key, so that the order depends on
// nothing else.
func (h *images) Less(i, j int) bool {
	a, b := &h.heap[i], &h.heap[j]
	return a.priority < b.priority || a.priority == b.priority && a.key < b.key
}

func (h *images) Swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	if h.place != nil {
		h.place[h.heap[i].key], h.place[h.heap[j].key] = i, j
	}
}

// Push implements [heap.Interface].
func (h *images) Push(x any) {
	im := x.(image)
	if h.place != nil {
		h.place[im.key] = len(h.heap)
	}
	h.heap = append(h.heap, im)
}

// Pop implements [heap.Interface].
func (h *images) Pop() any {
	last := len(h.heap) - 1
	im := h.heap[last]
	h.heap = h.heap[:last]
	if h.place != nil {
		delete(h.place, im.key)
	}
	return im
}
