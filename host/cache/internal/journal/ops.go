package journal

import (
	"github.com/imgcache/imgcache-host/sdk"
)

// opSet is a sequence of operations in which those of one id are merged: at most
// three of an id remain, whatever happened to it. Operations on different ids
// commute, so ids are simply in the order in which they were first added.
type opSet struct {
	ids  []string // some may be gone from byID
	byID map[string][]sdk.Op
}

func (s *opSet) len() int { return len(s.byID) }

// add appends an operation and merges it with earlier ones.
func (s *opSet) add(op sdk.Op) {
	if s.byID == nil {
		s.byID = map[string][]sdk.Op{}
	}
	id := op.Entry.ID
	old, known := s.byID[id]
	if !known {
		s.ids = append(s.ids, id)
	}
	s.byID[id] = mergeOp(old, op)
}

// mergeOp returns operations with the same effect as ops followed by op, on
// any driver, whether it has a record of the id or not.
func mergeOp(ops []sdk.Op, op sdk.Op) []sdk.Op {
	last := len(ops) - 1
	switch op.Kind {
	case sdk.OpDelete:
		return []sdk.Op{op}
	case sdk.OpTouch:
		switch {
		case last >= 0 && ops[last].Kind == sdk.OpDelete:
			return ops // there is no record to be touched
		case last >= 0 && ops[last].Kind == sdk.OpTouch:
			e := &ops[last].Entry
			e.Hits += op.Entry.Hits
			if op.Entry.LastAccessed.After(e.LastAccessed) {
				e.LastAccessed = op.Entry.LastAccessed
			}
			return ops
		}
	case sdk.OpPut:
		for i, earlier := range ops {
			if earlier.Kind != sdk.OpPut {
				continue
			}
			if earlier.Entry.Version != op.Entry.Version {
				// The record of the driver, if any, is of another version
				// by now. Without a delete its hits might be kept.
				return []sdk.Op{sdk.Delete(op.Entry.ID), op}
			}
			ops[i].Entry, _ = op.Apply(earlier.Entry, true)
			return ops
		}
	}
	return append(ops, op)
}

// remove forgets the operations of id.
func (s *opSet) remove(id string) {
	delete(s.byID, id)
	if len(s.byID) == 0 {
		s.ids = nil
	}
}

// ops returns all operations, those of one id in their order.
func (s *opSet) ops() []sdk.Op { return s.take(len(s.ids) * 3) }

// take returns at most n operations, but always all those of an id together, and
// those of at least one id. The set keeps them.
func (s *opSet) take(n int) []sdk.Op {
	var list []sdk.Op
	seen := map[string]bool{}
	for _, id := range s.ids {
		ops := s.byID[id]
		if seen[id] || len(ops) == 0 {
			continue
		}
		if len(list) > 0 && len(list)+len(ops) > n {
			break
		}
		seen[id] = true
		list = append(list, ops...)
	}
	return list
}
