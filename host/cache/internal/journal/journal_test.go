package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store/storetest"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestJournalSurvivesDamage cuts the file at every byte: what is read back is
// always a state that the log went through.
func TestJournalSurvivesDamage(t *testing.T) {
	fsys := storetest.TempFS(t)
	j := New(fsys, "records.log", "")
	j.Put(sdk.Entry{ID: "a", Version: "1"})
	if _, err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	j.Touch("a", 2, time.Unix(5, 0))
	j.Touch("b", 1, time.Unix(6, 0))
	if _, err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	whole, err := lines.ReadFile(fsys, "test", "records.log")
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]int{}
	for n := range len(whole) + 1 {
		var got Journal
		got.replay(whole[:n])
		sent := 0
		if got.sent != nil {
			sent = len(got.sent.Ops)
		}
		states[fmt.Sprintf("source %v, %d sent, %d pending", got.source != "", sent, got.pending.len())]++
	}
	for _, want := range []string{
		"source false, 0 sent, 0 pending", "source true, 0 sent, 0 pending",
		"source true, 1 sent, 0 pending", "source true, 1 sent, 2 pending",
	} {
		if states[want] == 0 {
			t.Errorf("no cut gives the state %q", want)
		}
		delete(states, want)
	}
	if len(states) > 0 {
		t.Errorf("cuts give states that the log never had: %v", states)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(lines.Append(nil, line{Source: "s", Seq: 3}))
	f.Add(lines.Append(lines.Append(nil, line{Source: "s"}), line{Seq: 1, Send: toLines([]sdk.Op{sdk.Delete("a")})}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var j Journal
		j.replay(data)
		if j.sent != nil && j.source == "" {
			t.Error("a batch without a source")
		}
	})
}
