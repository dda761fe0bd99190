// Package queue keeps keys in a few first-in first-out queues: what the
// policies sieve and s3fifo are made of. Nodes live in one slice, so that a
// copy to think ahead on costs one move of memory and no allocation per node.
package queue

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// Ref names a node until it is dropped. The zero Ref names none.
type Ref int32

// Node is a key in a queue.
type Node struct {
	Key  sdk.Key
	Size uint64 // bytes
	In   uint8  // the number of its queue
	Mark uint8  // the policy's own

	older, newer Ref
}

// Newer returns the node that was pushed after this one, 0 if none was.
func (n *Node) Newer() Ref { return n.newer }

// Queue is the state of one queue.
type Queue struct {
	Oldest, Newest Ref
	Len            int
	Bytes          uint64
}

// Set is a set of keys, each in one of a few queues.
type Set struct {
	queues []Queue
	nodes  []Node // nodes[0] is nobody
	free   Ref    // chain of dropped nodes, by newer
	index  map[sdk.Key]Ref
}

// New returns an empty set with n queues.
func New(n int) *Set {
	return &Set{queues: make([]Queue, n), nodes: make([]Node, 1), index: map[sdk.Key]Ref{}}
}

// Scratch returns a copy of the set that finds no keys.
func (s *Set) Scratch() *Set {
	return &Set{queues: slices.Clone(s.queues), nodes: slices.Clone(s.nodes)}
}

// Find returns the node of a key, 0 when there is none.
func (s *Set) Find(key sdk.Key) Ref { return s.index[key] }

// Node returns the node that r names. The pointer is good until the next
// Push.
func (s *Set) Node(r Ref) *Node { return &s.nodes[r] }

// Queue returns the state of queue q.
func (s *Set) Queue(q uint8) Queue { return s.queues[q] }

// Push adds a key, which the set does not have, as the newest of queue q.
func (s *Set) Push(q uint8, key sdk.Key, size uint64) Ref {
	r := s.free
	if r != 0 {
		s.free = s.nodes[r].newer
	} else {
		r = Ref(len(s.nodes))
		s.nodes = append(s.nodes, Node{})
	}
	s.nodes[r] = Node{Key: key, Size: size}
	s.link(r, q)
	s.index[key] = r
	return r
}

// Move makes a node the newest of queue q.
func (s *Set) Move(r Ref, q uint8) {
	s.unlink(r)
	s.link(r, q)
}

// Drop removes a node.
func (s *Set) Drop(r Ref) {
	s.unlink(r)
	n := &s.nodes[r]
	if s.index != nil {
		delete(s.index, n.Key)
	}
	*n = Node{newer: s.free}
	s.free = r
}

func (s *Set) link(r Ref, to uint8) {
	n, q := &s.nodes[r], &s.queues[to]
	n.In, n.older, n.newer = to, q.Newest, 0
	if q.Newest != 0 {
		s.nodes[q.Newest].newer = r
	} else {
		q.Oldest = r
	}
	q.Newest = r
	q.Len++
	q.Bytes += n.Size
}

func (s *Set) unlink(r Ref) {
	n := &s.nodes[r]
	q := &s.queues[n.In]
	if n.older != 0 {
		s.nodes[n.older].newer = n.newer
	} else {
		q.Oldest = n.newer
	}
	if n.newer != 0 {
		s.nodes[n.newer].older = n.older
	} else {
		q.Newest = n.older
	}
	q.Len--
	q.Bytes -= n.Size
}

// nodeSize is what one node takes in a snapshot: key, size and mark.
const nodeSize = 8 + 8 + 1

// Append appends the queues to a snapshot: for each its length and its nodes,
// oldest first.
func (s *Set) Append(b []byte) []byte {
	le := binary.LittleEndian
	for _, q := range s.queues {
		b = le.AppendUint32(b, uint32(q.Len))
		for r := q.Oldest; r != 0; r = s.nodes[r].newer {
			n := &s.nodes[r]
			b = le.AppendUint64(b, uint64(n.Key))
			b = le.AppendUint64(b, n.Size)
			b = append(b, n.Mark)
		}
	}
	return b
}

// Restore replaces the queues by what [Set.Append] wrote, and returns the
// bytes behind it. Errors wrap sdk.ErrInvalid; the set is then empty.
func (s *Set) Restore(b []byte) ([]byte, error) {
	*s = *New(len(s.queues))
	le := binary.LittleEndian
	for q := range s.queues {
		if len(b) < 4 || uint64(le.Uint32(b))*nodeSize > uint64(len(b)-4) {
			*s = *New(len(s.queues))
			return nil, fmt.Errorf("%w: the snapshot ends inside queue %d", sdk.ErrInvalid, q)
		}
		n := int(le.Uint32(b))
		b = b[4:]
		for ; n > 0; n, b = n-1, b[nodeSize:] {
			key := sdk.Key(le.Uint64(b))
			if s.Find(key) != 0 {
				*s = *New(len(s.queues))
				return nil, fmt.Errorf("%w: the snapshot has key %d twice", sdk.ErrInvalid, key)
			}
			s.nodes[s.Push(uint8(q), key, le.Uint64(b[8:]))].Mark = b[16]
		}
	}
	return b, nil
}
