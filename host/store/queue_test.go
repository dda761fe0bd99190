package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// The queue keeps its order in one tick of the clock, when the clock goes
// back, and over a restart.
// A marker may say more than that its image is queued.
func TestQueueNote(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := openQuick(t, dir)
	for id, note := range map[string]string{"a": "", "b": "dir/name"} {
		if _, err := s.Enqueue(id, note); err != nil {
			t.Fatal(err)
		}
		if got := s.QueueNote(id); got != note {
			t.Errorf("the note of %s is %q, want %q", id, got, note)
		}
	}
	if note := s.QueueNote("absent"); note != "" {
		t.Errorf("the note of an absent entry is %q", note)
	}
}

func TestQueueOrder(t *testing.T) {
	dir := t.TempDir()
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg := store.Config{Dir: dir, Now: func() time.Time { return clock }}
	var want []string
	for run := range 2 {
		s, err := store.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i := 199; i >= 100; i-- {
			id := fmt.Sprintf("%d-%d", 9-run, i)
			if added, err := s.Enqueue(id, ""); !added || err != nil {
				t.Fatalf("Enqueue(%s) = %v, %v", id, added, err)
			}
			want = append(want, id)
		}
		got, err := s.Queue()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		s.Close()
		clock = clock.Add(-24 * time.Hour)
	}
}

func TestQueueOfGlance(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i, id := range []string{"first", "same-a", "same-b"} {
		name := filepath.Join(dir, "queue", id)
		write(t, name, nil)
		at := time.Unix(1000+int64(min(i, 1)), 0)
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "queue", "no id"), nil)
	if _, err := s.Enqueue("last", ""); err != nil {
		t.Fatal(err)
	}
	got, err := s.Queue()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first", "same-a", "same-b", "last"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEnqueueDequeue(t *testing.T) {
	s := open(t, t.TempDir())
	for _, want := range []bool{true, false} {
		if added, err := s.Enqueue("a", ""); added != want || err != nil {
			t.Errorf("Enqueue = %v, %v, want %v", added, err, want)
		}
	}
	if !s.Queued("a") || s.Queued("b") {
		t.Error("Queued is wrong")
	}
	for range 2 { // an absent entry is no error
		if err := s.Dequeue("a"); err != nil {
			t.Errorf("Dequeue = %v", err)
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		if _, err := s.Enqueue(id, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.DequeueAll(); n != 3 || err != nil {
		t.Errorf("DequeueAll = %d, %v", n, err)
	}
	if queue, err := s.Queue(); err != nil || len(queue) > 0 {
		t.Errorf("Queue = %v, %v", queue, err)
	}
}

// Entries that come and go while the queue is listed are no error.
func TestQueueWhileItChanges(t *testing.T) {
	s := open(t, t.TempDir())
	var work sync.WaitGroup
	for worker := range 4 {
		work.Go(func() {
			for i := range 100 {
				id := fmt.Sprintf("%d-%d", worker, i)
				if _, err := s.Enqueue(id, ""); err != nil {
					t.Error(err)
				}
				if _, err := s.Queue(); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if err := s.Dequeue(id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	work.Wait()
	queue, err := s.Queue()
	if err != nil || len(queue) != 200 {
		t.Fatalf("Queue has %d entries, %v, want 200", len(queue), err)
	}
	for worker := range 4 {
		mine := slices.DeleteFunc(slices.Clone(queue), func(id string) bool { return id[0] != byte('0'+worker) })
		if !slices.IsSortedFunc(mine, func(a, b string) int { return number(a) - number(b) }) {
			t.Errorf("the entries of worker %d are out of order: %v", worker, mine)
		}
	}
}

func number(id string) (n int) {
	fmt.Sscanf(id[2:], "%d", &n)
	return n
}
