package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// queueOf returns what is queued, in the order of queueing.
func queueOf(t *testing.T, s *store.Store) (ids []string) {
	t.Helper()
	markers, err := s.Queue(nil)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(markers, store.CompareMarkers)
	for _, m := range markers {
		ids = append(ids, m.ID)
	}
	return ids
}

// A marker may say more than that its image is queued.
func TestQueueNote(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := openQuick(t, dir)
	for id, note := range map[string]string{"a": "", "b": "dir/name"} {
		if _, _, err := s.Enqueue(id, note); err != nil {
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

// The queue keeps its order in one tick of the clock, when the clock goes
// back, and over a restart.
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
			if _, added, err := s.Enqueue(id, ""); !added || err != nil {
				t.Fatalf("Enqueue(%s) = %v, %v", id, added, err)
			}
			want = append(want, id)
		}
		got := queueOf(t, s)
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
	if _, _, err := s.Enqueue("last", ""); err != nil {
		t.Fatal(err)
	}
	got := queueOf(t, s)
	if diff := cmp.Diff([]string{"first", "same-a", "same-b", "last"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEnqueueDequeue(t *testing.T) {
	s := open(t, t.TempDir())
	for _, want := range []bool{true, false} {
		if _, added, err := s.Enqueue("a", ""); added != want || err != nil {
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
		if _, _, err := s.Enqueue(id, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.DequeueAll(); n != 3 || err != nil {
		t.Errorf("DequeueAll = %d, %v", n, err)
	}
	if queue := queueOf(t, s); len(queue) > 0 {
		t.Errorf("the queue is %v", queue)
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
				if _, _, err := s.Enqueue(id, ""); err != nil {
					t.Error(err)
				}
				if _, err := s.Queue(nil); err != nil {
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
	queue := queueOf(t, s)
	if len(queue) != 200 {
		t.Fatalf("the queue has %d entries, want 200", len(queue))
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

// TestQueueEntriesAreWritten breaks off each step: an entry that was
// acknowledged is there after a loss of power, with its note and in its place,
// and one that was not leaves no marker unless the process ended.
func TestQueueEntriesAreWritten(t *testing.T) {
	for _, fails := range []string{"error", "crash"} {
		for step := 1; ; step++ {
			dir := storetest.MemoryDir(t)
			fsys := storetest.New(t, dir)
			s, err := openFS(fsys)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Enqueue("b", ""); err != nil {
				t.Fatal(err)
			}
			fault := storetest.At(step, syscall.EIO)
			if fails == "crash" {
				fault = storetest.CrashAt(step)
			}
			fsys.Inject(fault)
			_, added, err := s.Enqueue("a", "dir/a")
			calls := len(fsys.Calls())
			if err == nil && (!added || step <= calls) {
				t.Errorf("%s at step %d of %d: the entry was acknowledged, added: %v", fails, step, calls, added)
			}
			if err != nil && fails == "error" && s.Queued("a") {
				t.Errorf("%s at step %d: %v, and there is a marker", fails, step, err)
			}
			if lost := fsys.LosePower(0); lost != nil {
				t.Fatal(lost)
			}
			again := openQuick(t, dir)
			if got := queueOf(t, again); err == nil && (!slices.Equal(got, []string{"b", "a"}) || again.QueueNote("a") != "dir/a") {
				t.Errorf("after a loss of power the queue is %v, with the note %q", got, again.QueueNote("a"))
			}
			if err == nil {
				break
			}
		}
	}
}

// TestQueueEntriesAreNotMadeUp: without the directory nothing is acknowledged,
// and what bears the name of a marker but is none is not one.
func TestQueueEntriesAreNotMadeUp(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := openQuick(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "queue", "directory"), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, added, err := s.Enqueue("directory", ""); added || err == nil {
		t.Errorf("a directory of the name is taken for a marker: %v, %v", added, err)
	}
	if got := queueOf(t, s); len(got) > 0 {
		t.Errorf("the queue is %v", got)
	}
	if err := os.RemoveAll(filepath.Join(dir, "queue")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Enqueue("a", ""); (err == nil) != s.Queued("a") {
		t.Errorf("without queue/: %v, and queued is %v", err, s.Queued("a"))
	}
}

// TestQueueListsCostOneCall: a list that finds nothing new looks at no marker,
// and an entry costs as many calls whether there are few others or many.
func TestQueueListsCostOneCall(t *testing.T) {
	dir := storetest.MemoryDir(t)
	fsys := storetest.New(t, dir)
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	known := func(id string) bool { return id != "new" }
	var calls []int
	for i := range 300 {
		fsys.Inject(nil)
		if _, _, err := s.Enqueue(fmt.Sprint(i), "note"); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, len(fsys.Calls()))
	}
	if calls[1] != calls[299] {
		t.Errorf("the second entry costs %d calls, the last %d", calls[1], calls[299])
	}
	fsys.Inject(nil)
	if list, err := s.Queue(known); len(list) != 300 || err != nil || len(fsys.Calls()) != 1 {
		t.Errorf("a list of %d known entries, %v, costs %d calls", len(list), err, len(fsys.Calls()))
	}
	write(t, filepath.Join(dir, "queue", "new"), nil)
	fsys.Inject(nil)
	if list, err := s.Queue(known); len(list) != 301 || err != nil || len(fsys.Calls()) != 2 {
		t.Errorf("a list of %d entries, one of them new, %v, costs %d calls", len(list), err, len(fsys.Calls()))
	}
}
