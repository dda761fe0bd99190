package sdk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Key identifies an image to policies: the first 8 bytes of SHA-256(id), big
// endian. It is the same on every host and for ever, because ghost lists and
// snapshots outlive processes.
type Key uint64

// KeyOf returns the key of an image id.
func KeyOf(id string) Key {
	sum := sha256.Sum256([]byte(id))
	return Key(binary.BigEndian.Uint64(sum[:8]))
}

// Record is what a policy knows of one cached image. Times are Unix
// nanoseconds. Each field may have any value of its type.
type Record struct {
	Key      Key
	Size     uint64 // bytes
	Hits     uint64
	Admitted int64  // when the image was committed
	Accessed int64  // start of the last GET; equals Admitted before the first
	FetchMS  uint32 // what the fill took, in milliseconds; 0: unknown
	Flags    Flags
}

// Flags of a [Record]. A policy ignores bits that it does not know.
type Flags uint32

// The flags. They are news, not orders: the host never evicts a pinned image
// whatever a policy says.
const (
	// FlagPinned: the image is pinned. Hosts of version 1 never set it: they
	// ask which images leave, and a pinned one never does. In the trial of a
	// reload it comes without the flag.
	FlagPinned Flags = 1 << 0
	// FlagInUse: the image is being read now. It is rare: such images are asked
	// about only in a prune to a given size, and in the trial of a reload.
	FlagInUse Flags = 1 << 1
)

// MaxBatch is the largest number of records or events in one call. The host
// splits larger sets; 65 536 records are 3 MiB, which stays below the
// message limit of common gRPC stacks (4 MiB).
const MaxBatch = 65536

// Scorer is the scoring form of a policy: a pure function of one record, the
// configuration and now. A plugin is called from one goroutine at a time. The
// host sorts, and applies pins, open readers and minimum age.
type Scorer interface {
	// Score writes one score for each record into scores, which has the
	// length of records. The lowest leaves first; equal scores leave by older
	// access, then by smaller key. Infinities are valid; one NaN makes the
	// host refuse the whole answer.
	Score(ctx context.Context, now time.Time, records []Record, scores []float64) error
}

// ScoreFunc is a [Scorer] made of a function of one record.
type ScoreFunc func(r *Record, now time.Time) float64

// Score calls f for each record.
func (f ScoreFunc) Score(_ context.Context, now time.Time, records []Record, scores []float64) error {
	for i := range records {
		scores[i] = f(&records[i], now)
	}
	return nil
}

// EventKind says what happened.
type EventKind uint32

// The kinds of events. A policy ignores kinds that it does not know.
const (
	// EventAdmitted: the image Key of Size bytes was committed.
	EventAdmitted EventKind = 1
	// EventAccessed: the image was read Count times since the last event.
	EventAccessed EventKind = 2
	// EventRemoved: the image left the cache; Reason says why.
	EventRemoved EventKind = 3
	// EventRefused: the host did not evict an image that Select proposed: it
	// is pinned, being read or too young. It stays in the cache and in the
	// policy.
	EventRefused EventKind = 4
	// EventCapacity: the cache may hold Size bytes. It is the first event
	// that a policy sees and comes again when the limit is changed.
	EventCapacity EventKind = 5
)

// Reason says why an image left the cache.
type Reason uint32

// The reasons of [EventRemoved].
const (
	ReasonEvicted  Reason = 1 // by the policy's own advice or by the fallback
	ReasonDeleted  Reason = 2 // by a request
	ReasonReplaced Reason = 3 // by another version; an EventAdmitted follows
	ReasonCorrupt  Reason = 4 // it failed verification
)

// Event is one step of the host's history, in the host's total order. A policy
// bears fields with any value of their types, and keys that it does not know.
type Event struct {
	Key    Key
	Size   uint64
	At     int64 // Unix nanoseconds
	Kind   EventKind
	Count  uint32 // EventAccessed: number of accesses, at least 1
	Reason Reason // EventRemoved only
}

// Stateful is the stateful form of a policy: it builds its own picture of the
// cache from events. The host calls it from one goroutine. What it answers
// depends on its configuration, the events and the calls before alone.
type Stateful interface {
	// Observe takes events, oldest first.
	Observe(ctx context.Context, events []Event) error

	// Select proposes images, first to leave first, until their sizes add up
	// to need bytes or the policy knows no more; it returns at most limit
	// keys. It proposes only: an object stays in the policy's state until an
	// EventRemoved names it, and a proposal that the host refuses comes back
	// as EventRefused. Select may advance internal state (a clock hand), and
	// two calls without events between them may answer differently.
	Select(ctx context.Context, now time.Time, need uint64, limit int) ([]Key, error)
}

// Snapshotter is implemented by stateful policies that declare [CapSnapshot].
// A policy restored from a snapshot behaves exactly like the one that made
// it. Without it the host rebuilds a policy by replaying the images in order
// of access, which is approximate.
type Snapshotter interface {
	Snapshot(ctx context.Context) ([]byte, error)
	// Restore replaces the state. After an error, which wraps [ErrInvalid]
	// for bytes that are no snapshot of this policy, the state is unspecified
	// and the host discards the instance.
	Restore(ctx context.Context, snapshot []byte) error
}
