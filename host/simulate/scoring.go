package simulate

import (
	"container/heap"
	"context"
	"time"

	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/sdk"
)

// scoring lets a scoring policy choose. As long as the scores do not depend on
// the time, it keeps the objects in a heap and scores only those that have
// changed. Otherwise it scores all objects whenever one has to leave.
//
// To find out whether scores depend on the time, it asks for each score as of
// now and as of two later times, the last of which no object will see.
type scoring struct {
	queue   // a heap by score while the policy is timeless
	policy  sdk.Scorer
	changed []*object // whose scores are not fresh
	records []sdk.Record
	dated   bool // scores depend on the time
}

// later are the times after now at which scores are asked for again.
var later = []time.Duration{time.Minute, 50 * 365 * 24 * time.Hour}

func newScoring(p sdk.Scorer) *scoring {
	return &scoring{policy: p, queue: queue{less: func(a, b *object) bool {
		if a.score != b.score {
			return a.score < b.score
		}
		return before(a, b)
	}}}
}

// A changed object is no part of the heap's order until it has a score: it is
// out of the heap, with the slot -1.
func (s *scoring) admitted(o *object) {
	o.slot = -1
	s.changed = append(s.changed, o)
}

func (s *scoring) accessed(o *object) {
	if o.slot < 0 {
		return // it is waiting for its score already
	}
	s.take(o)
	s.admitted(o)
}

func (s *scoring) removed(o *object, _ sdk.Reason, _ int64) {
	if o.slot >= 0 {
		s.take(o)
		return
	}
	for i := range s.changed {
		if s.changed[i] == o {
			s.changed[i] = s.changed[len(s.changed)-1]
			s.changed = s.changed[:len(s.changed)-1]
			return
		}
	}
}

// take removes an object from the order.
func (s *scoring) take(o *object) {
	if s.dated {
		s.Swap(o.slot, len(s.objects)-1)
		s.Pop()
	} else {
		heap.Remove(s, o.slot)
	}
	o.slot = -1
}

func (s *scoring) victims(ctx context.Context, now int64, need uint64) ([]*object, error) {
	if !s.dated {
		if err := s.score(ctx, now); err != nil {
			return nil, err
		}
	}
	if s.dated {
		return s.rank(ctx, now, need)
	}
	return s.first(), nil
}

// score gives the changed objects their scores, and a place in the heap.
func (s *scoring) score(ctx context.Context, now int64) error {
	scores, err := s.ask(ctx, now, s.changed)
	if err != nil {
		return err
	}
	for _, after := range later {
		again, err := s.ask(ctx, now+int64(after), s.changed)
		if err != nil {
			return err
		}
		for i := range again {
			s.dated = s.dated || again[i] != scores[i]
		}
	}
	for i, o := range s.changed {
		o.score = scores[i]
		if s.dated {
			s.Push(o)
		} else {
			heap.Push(s, o)
		}
	}
	s.changed = s.changed[:0]
	return nil
}

// ask returns the scores of objects as of a time.
func (s *scoring) ask(ctx context.Context, at int64, list []*object) ([]float64, error) {
	s.records = s.records[:0]
	for _, o := range list {
		s.records = append(s.records, o.Record)
	}
	return ranking.Score(ctx, s.policy, time.Unix(0, at), s.records)
}

// rank scores all objects and returns the first of need bytes in total.
func (s *scoring) rank(ctx context.Context, now int64, need uint64) (list []*object, err error) {
	for _, o := range s.changed {
		s.Push(o)
	}
	s.changed = s.changed[:0]
	scores, err := s.ask(ctx, now, s.objects)
	if err != nil {
		return nil, err
	}
	for i := range ranking.Order(s.records, scores) {
		o := s.objects[i]
		list = append(list, o)
		if o.Size >= need {
			break
		}
		need -= o.Size
	}
	return list, nil
}
