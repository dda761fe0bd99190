package sdk

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"
)

// Entry is the record of one cached image. Ids and versions are compared byte
// for byte, times are kept to the microsecond or better, numbers to 63 bits.
type Entry struct {
	ID           string
	Version      string    // digest, ETag, or size and time of the origin's copy; opaque to drivers; UTF-8
	Size         int64     // bytes
	Hits         uint64    // complete downloads served from the cache
	LastAccessed time.Time // UTC
	LastModified time.Time // when the image was committed to the cache
}

// Driver keeps records. The files are the truth about which images are
// cached; a driver that loses its records loses statistics only.
//
// Methods may be called concurrently, List with Apply too; Apply is called by
// one goroutine at a time. Every call has a deadline, which the driver must
// respect.
type Driver interface {
	// List calls yield with all entries, in batches of any size and in any
	// order, each id once. It sees every batch that was applied before the
	// call. An error of yield ends the listing and is returned. The slice
	// belongs to the driver again when yield returns. An empty store yields
	// nothing.
	List(ctx context.Context, yield func([]Entry) error) error

	// Apply carries out a batch wholly or not at all, and returns nil only
	// when its effect is durable against a crash of the plugin. A driver that
	// keeps its records with the files of the images may acknowledge a put of
	// an image without a file and do nothing: the host sends it again when it
	// reconciles.
	//
	// Exactly once: a driver stores the last Seq of each Source together with
	// the effect. A batch at or below it is acknowledged without effect. A
	// batch more than one above it (the last Seq of an unknown Source is 0)
	// is a gap: Apply changes nothing and returns [ErrInvalid].
	Apply(ctx context.Context, b Batch) error
}

// Batch is a sequence of operations, carried out in order, with its position in
// the record log of one host.
type Batch struct {
	Source string // random id of the host's record log, 32 hex digits
	Seq    uint64 // 1, 2, 3, …
	Ops    []Op
}

// OpKind says what an operation does.
type OpKind uint8

// The kinds of operations.
const (
	// OpPut stores Entry. When the driver has a record of that id with the
	// same Version, its Hits are kept and the later LastAccessed wins;
	// otherwise Entry becomes the record.
	OpPut OpKind = 1

	// OpDelete removes the record of Entry.ID. An absent id is no error.
	OpDelete OpKind = 2

	// OpTouch adds Entry.Hits to the hits of Entry.ID and moves its
	// LastAccessed forward, never back, to Entry.LastAccessed. An absent id
	// is no error and creates nothing.
	OpTouch OpKind = 3
)

// String returns the name of the kind.
func (k OpKind) String() string {
	switch k {
	case OpPut:
		return "put"
	case OpDelete:
		return "delete"
	case OpTouch:
		return "touch"
	}
	return fmt.Sprintf("op(%d)", uint8(k))
}

// Op is one operation on the record of Entry.ID. Which fields of Entry count
// depends on Kind.
type Op struct {
	Kind  OpKind
	Entry Entry
}

// Put returns the operation that stores e.
func Put(e Entry) Op { return Op{OpPut, e} }

// Delete returns the operation that removes the record of id.
func Delete(id string) Op { return Op{OpDelete, Entry{ID: id}} }

// Touch returns the operation that adds hits and moves the last access.
func Touch(id string, hits uint64, at time.Time) Op {
	return Op{OpTouch, Entry{ID: id, Hits: hits, LastAccessed: at}}
}

// Validate returns an error, wrapping [ErrInvalid], for a batch that no driver
// may apply: one without source, with sequence 0, an unknown kind, an id that is
// empty or longer than [MaxIDLen], a negative size, or a source or id that is
// not UTF-8.
func (b Batch) Validate() error {
	if b.Source == "" || b.Seq == 0 {
		return fmt.Errorf("%w: the batch has no source or no sequence number", ErrInvalid)
	}
	if !utf8.ValidString(b.Source) {
		return fmt.Errorf("%w: the source %q is not UTF-8", ErrInvalid, b.Source)
	}
	for i, op := range b.Ops {
		switch {
		case op.Kind < OpPut || op.Kind > OpTouch:
			return fmt.Errorf("%w: operation %d has the unknown kind %d", ErrInvalid, i, op.Kind)
		case op.Entry.ID == "" || len(op.Entry.ID) > MaxIDLen:
			return fmt.Errorf("%w: operation %d has an id of %d bytes; expected 1 to %d", ErrInvalid, i, len(op.Entry.ID), MaxIDLen)
		case !utf8.ValidString(op.Entry.ID):
			return fmt.Errorf("%w: operation %d has the id %q, which is not UTF-8", ErrInvalid, i, op.Entry.ID)
		case op.Entry.Size < 0:
			return fmt.Errorf("%w: operation %d has the size %d", ErrInvalid, i, op.Entry.Size)
		}
	}
	return nil
}

// Admit is the exactly-once rule for a driver whose last applied batch of
// b.Source is last (0 when unknown). It reports whether to apply b: true for
// the next batch, false with a nil error for one that was applied before, and
// false with an error wrapping [ErrInvalid] for a gap.
func (b Batch) Admit(last uint64) (bool, error) {
	switch {
	case b.Seq <= last:
		return false, nil
	case b.Seq == last+1:
		return true, nil
	}
	return false, fmt.Errorf("%w: batch %d of source %s follows %d", ErrInvalid, b.Seq, b.Source, last)
}

// Apply returns the record after op, where old is the record before, and whether
// there is one. It defines the operations in code; drivers without a query
// language of their own, and tests, use it.
func (op Op) Apply(old Entry, exists bool) (Entry, bool) {
	e := op.Entry
	switch op.Kind {
	case OpPut:
		if exists && old.Version == e.Version {
			e.Hits = old.Hits
			if old.LastAccessed.After(e.LastAccessed) {
				e.LastAccessed = old.LastAccessed
			}
		}
		return e, true
	case OpDelete:
		return Entry{}, false
	case OpTouch:
		if !exists {
			return Entry{}, false
		}
		old.Hits += e.Hits
		if e.LastAccessed.After(old.LastAccessed) {
			old.LastAccessed = e.LastAccessed
		}
	}
	return old, exists
}

// Node is a cache that shares its records with others through one driver.
type Node struct {
	Name string
	URL  string
	Seen time.Time // last heartbeat
}

// NodeLister is implemented by drivers that declare [CapNodes].
type NodeLister interface {
	// Nodes returns the live nodes that hold the image; none is no error.
	Nodes(ctx context.Context, id string) ([]Node, error)
}

// Heartbeater is implemented by drivers that declare [CapHeartbeat].
type Heartbeater interface {
	// Heartbeat says that this node is alive; the host calls it periodically.
	Heartbeat(ctx context.Context) error
}
