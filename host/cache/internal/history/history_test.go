package history

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// historyIn returns the history of a directory, as a start does.
func historyIn(t *testing.T, dir string, fsys store.FS) (h *History, log *bytes.Buffer) {
	t.Helper()
	s, err := store.Open(store.Config{Dir: dir, FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	log = &bytes.Buffer{}
	return New(s.FS(), s.PrivateDir()+"/history", slog.New(slog.NewTextHandler(log, nil)), time.Now), log
}

func words(events []Event) string {
	var list []string
	for _, e := range events {
		list = append(list, e.Event)
	}
	return strings.Join(list, ", ")
}

// TestHistoryOutlivesRestarts: what is read from the file comes before what has
// happened since the start, also in who is forgotten first.
func TestHistoryOutlivesRestarts(t *testing.T) {
	dir := t.TempDir()
	fsys := storetest.New(t, dir)
	h, _ := historyIn(t, dir, fsys)
	h.load()
	h.add("a", Cached, "")
	h.add("b", NotFetched, "away")
	h.add("c", Cached, "")
	h.Save()
	if err := fsys.LosePower(0); err != nil {
		t.Fatal(err)
	}
	fsys = storetest.New(t, dir)
	h, log := historyIn(t, dir, fsys)
	h.add("a", Evicted, "")
	h.Save() // too early: it would lose what the file holds
	h.load()
	h.Save()
	if log.Len() > 0 {
		t.Errorf("the log says %s", log)
	}
	fsys.Kill()
	h, _ = historyIn(t, dir, nil)
	h.load()
	for id, want := range map[string]string{"a": "cached, evicted", "b": "not fetched", "c": "cached", "d": ""} {
		if got := words(h.Of(id)); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if oldest := h.known.list.Front().Value.(*past).ID; oldest != "c" {
		t.Errorf("%s would be forgotten first, want c", oldest)
	}
}

// TestDamagedHistory costs the damaged lines and no start.
func TestDamagedHistory(t *testing.T) {
	dir := t.TempDir()
	fsys, err := store.OpenFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	h, log := historyIn(t, dir, fsys)
	b := lines.Append(nil, past{ID: "a", Events: []Event{{Event: Cached}}})
	b = append(b, "garbage\n"...)
	b = lines.Append(b, past{ID: "../b", Events: []Event{{Event: Cached}}})
	b = lines.Append(b, past{ID: "c"})
	b = lines.Append(b, past{ID: "d", Events: []Event{{Event: Evicted}}})
	b = append(b, lines.Append(nil, past{ID: "e", Events: []Event{{Event: Evicted}}})[:20]...)
	if f, err := lines.ReplaceFile(fsys, "test", h.path, b); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	h.load()
	if words(h.Of("a")) != Cached || words(h.Of("d")) != Evicted || len(h.byID) != 2 {
		t.Errorf("%d images are known, want a and d", len(h.byID))
	}
	if !strings.Contains(log.String(), "lines=4") {
		t.Errorf("the log says %s", log)
	}
}

// TestHistoryIsBounded: strangers do not wipe out images that were cached, and
// all together stay within their bytes, which are about those of the file.
func TestHistoryIsBounded(t *testing.T) {
	h, _ := historyIn(t, t.TempDir(), nil)
	h.load()
	h.add("gold", Cached, "")
	h.add("gold", Evicted, "")
	long := strings.Repeat("ü", 10_000)
	for i := range 3000 {
		h.add(fmt.Sprintf("stranger-%d", i), NotFetched, long)
	}
	if got := words(h.Of("gold")); got != "cached, evicted" {
		t.Errorf("after many strangers gold has the history %q", got)
	}
	for i := range 12_000 {
		for range 1 + i%3 {
			h.add(fmt.Sprintf("image-%d", i), Evicted, fmt.Sprint(long[:2*(i%250)], i%7))
			h.add(fmt.Sprintf("image-%d", i), Cached, "")
		}
	}
	if h.Of("gold") != nil || h.Of("image-0") != nil || h.Of("stranger-0") != nil {
		t.Error("nobody was forgotten")
	}
	last := h.Of("image-11999")
	if len(last) != 6 || last[5].Event != Cached {
		t.Errorf("%d events are known of one image, want 6", len(last))
	}
	for i := range maxEvents {
		h.add("image-11999", Evicted, fmt.Sprint(i))
	}
	if got := h.Of("image-11999"); len(got) != maxEvents || got[0].Reason != "0" {
		t.Errorf("of more than %d events %d are known, the first with the reason %q", maxEvents, len(got), got[0].Reason)
	}
	var sum int
	for _, s := range []shelf{h.known, h.others} {
		bytes := 0
		for el := s.list.Front(); el != nil; el = el.Next() {
			bytes += el.Value.(*past).bytes
		}
		if bytes != s.bytes || bytes > s.max || bytes < s.max*9/10 {
			t.Errorf("%d bytes are counted, %d there, %d allowed", s.bytes, bytes, s.max)
		}
		sum += bytes
	}
	h.Save()
	data, err := lines.ReadFile(h.fs, "test", h.path)
	if err != nil || len(data) > sum*3/2 || len(data) < sum/3 {
		t.Errorf("the file has %d bytes, %d are counted; %v", len(data), sum, err)
	}
	t.Logf("%d images, %d bytes counted, %d in the file", len(h.byID), sum, len(data))
}

// TestHistoryOnABadDisk goes on in memory, and says so once.
func TestHistoryOnABadDisk(t *testing.T) {
	dir := t.TempDir()
	fsys := storetest.New(t, dir)
	h, log := historyIn(t, dir, fsys)
	h.load()
	broken := errors.New("broken")
	for _, op := range []string{"history.rewrite", "history.rewrite.write", "history.rename"} {
		fsys.Inject(storetest.On(op, 0, broken))
		h.add("a", op, "")
		h.Save()
	}
	if n := strings.Count(log.String(), "could not write the history"); n != 1 || len(h.Of("a")) != 3 {
		t.Errorf("the log says it %d times, want once: %s", n, log)
	}
	fsys.Inject(nil)
	h.Save()
	h.Save() // without news
	fsys.Kill()
	h, _ = historyIn(t, dir, nil)
	h.load()
	if len(h.Of("a")) != 3 {
		t.Errorf("when the disk was good again %d events were saved, want 3", len(h.Of("a")))
	}
}

// TestTrouble: what an image's last event says of why it is not cached.
func TestTrouble(t *testing.T) {
	for _, tt := range []struct {
		events []Event
		want   string
	}{
		{nil, ""},
		{[]Event{{Event: NotFetched, Reason: "away"}, {Event: Queued}}, ""},
		{[]Event{{Event: Evicted, Reason: "lru"}, {Event: Cached}}, ""},
		{[]Event{{Event: Cached}, {Event: Evicted, Reason: "lru"}}, "evicted: lru"},
		{[]Event{{Event: Cached}, {Event: Vanished}}, "vanished"},
		{[]Event{{Event: NotStored, Reason: "no space"}}, "no space"},
	} {
		if got := Trouble(tt.events); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.events, got, tt.want)
		}
	}
	if got := cut(strings.Repeat("ü", 400)); len(got) > maxReason+3 || !slices.Equal([]rune(got[len(got)-5:]), []rune("ü...")) {
		t.Errorf("a long reason is cut to %q", got)
	}
}
