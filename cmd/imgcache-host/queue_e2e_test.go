package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestQueueTellsWhy: an image that cannot be fetched stops no other, the queue
// says what is wrong with it, and whoever waits for it learns that again.
func TestQueueTellsWhy(t *testing.T) {
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "good"), "content")
	d := start(t, setup{origin: directoryOrigin(origin)})
	d.run(0, "queue", "poison", "good")
	d.eventually("the queue tells a failed try", func() bool {
		entries, err := d.api.Queued(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(entries) == 1 && entries[0].ID == "poison" && entries[0].Tries > 0 && !entries[0].Next.IsZero()
	})
	if out, _ := d.run(0, "queue", "list"); !strings.Contains(out, "not found") || !strings.Contains(out, "NEXT TRY") {
		t.Errorf("queue list says:\n%s", out)
	}
	for range 2 { // the second time for the same reason as the first
		if out, _ := d.run(1, "prefetch", "poison", "good"); !strings.Contains(out, "not found") || strings.Count(out, "cached") != 1 {
			t.Errorf("prefetch says:\n%s", out)
		}
	}
	d.run(0, "clear", "--target", "queue")
	if out, _ := d.run(0, "queue", "list"); strings.Contains(out, "poison") {
		t.Errorf("the queue was cleared, and is:\n%s", out)
	}
}
