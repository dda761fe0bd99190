package cache

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// modelTurn is an image of a queue that keeps no order.
type modelTurn struct {
	store.Marker
	tries int
	next  time.Time
	busy  bool
}

// TestTurns compares the queue with one that looks at every image in each step.
func TestTurns(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		turns, model := newTurns(), map[string]*modelTurn{}
		now, running := time.Unix(1000, 0), map[string]*queued{}
		for step := range 2000 {
			now = now.Add(time.Duration(rng.IntN(3)) * time.Second)
			id := fmt.Sprint(rng.IntN(40))
			m := model[id]
			switch rng.IntN(8) {
			case 0, 1:
				marker := store.Marker{ID: id, At: now.Add(time.Duration(step))}
				turns.add(marker)
				if m == nil {
					model[id] = &modelTurn{Marker: marker}
				}
			case 2:
				turns.remove(id)
				delete(model, id)
			case 3:
				turns.renew(id)
				if m != nil {
					m.tries, m.next = 0, time.Time{}
				}
			case 4:
				if rng.IntN(20) == 0 {
					turns.hurry()
					for _, m := range model {
						if !m.busy {
							m.next = time.Time{}
						}
					}
				}
			case 5:
				if q := running[id]; q != nil {
					delete(running, id)
					endModel(&turns, model, q, rng, now)
				}
			default:
				q, next := turns.begin(now)
				want, wantNext := modelBegin(model, now)
				if got := idOfTurn(q); got != want || !next.Equal(wantNext) {
					t.Fatalf("seed %d, step %d: the turn is of %q at %v, want %q at %v", seed, step, got, next, want, wantNext)
				}
				if q != nil {
					model[q.ID].busy = true
					running[q.ID] = q
				}
			}
			if len(turns.byID) != len(model) {
				t.Fatalf("seed %d, step %d: %d images are queued, want %d", seed, step, len(turns.byID), len(model))
			}
		}
	}
}

func idOfTurn(q *queued) string {
	if q == nil {
		return ""
	}
	return q.ID
}

// endModel ends a fetch, well or not, in both.
func endModel(turns *turns, model map[string]*modelTurn, q *queued, rng *rand.Rand, now time.Time) {
	var err error
	next := now.Add(time.Duration(rng.IntN(60)) * time.Second)
	if rng.IntN(3) > 0 {
		err = errors.New("failed")
	}
	m := model[q.ID]
	if !turns.end(q, err, next) {
		return
	}
	if err == nil {
		delete(model, q.ID)
		return
	}
	m.busy, m.next = false, next
	m.tries++
}

// modelBegin looks at all for the one whose turn it is.
func modelBegin(model map[string]*modelTurn, now time.Time) (string, time.Time) {
	var idle []*modelTurn
	for _, m := range model {
		if !m.busy {
			idle = append(idle, m)
		}
	}
	if len(idle) == 0 {
		return "", time.Time{}
	}
	first := slices.MinFunc(idle, func(a, b *modelTurn) int {
		return cmp.Or(cmp.Compare(min(a.tries, 1), min(b.tries, 1)), a.next.Compare(b.next), store.CompareMarkers(a.Marker, b.Marker))
	})
	if first.next.After(now) {
		return "", first.next
	}
	return first.ID, time.Time{}
}

// TestTurnsAgree: what others add and remove is taken over; what failed of the
// rest is remembered.
func TestTurnsAgree(t *testing.T) {
	at := func(id string, second int64) store.Marker { return store.Marker{ID: id, At: time.Unix(second, 0)} }
	turns, now := newTurns(), time.Unix(100, 0)
	for i, id := range []string{"a", "b", "c"} {
		turns.add(at(id, int64(i+1)))
	}
	q, _ := turns.begin(now)
	turns.end(q, errors.New("failed"), now.Add(time.Minute))
	turns.agree([]store.Marker{{ID: "a"}, {ID: "c"}, at("new", 0), {ID: "gone before it was looked at"}})
	var got []string
	for _, q := range turns.list() {
		got = append(got, fmt.Sprint(q.ID, q.tries))
	}
	if want := []string{"new0", "a1", "c0"}; !slices.Equal(got, want) {
		t.Errorf("the queue is %v, want %v", got, want)
	}
}
