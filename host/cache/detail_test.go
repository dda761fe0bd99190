package cache

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
)

// TestDetailOf finds the word for each reason, however often it was wrapped.
func TestDetailOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Detail
	}{
		{notAdmitted{DetailMaxImageSize, "larger"}, DetailMaxImageSize},
		{refusedBy(origin.Object{Refused: origin.RefusedNoStore}), DetailNoStore},
		{refusedBy(origin.Object{Refused: origin.RefusedHTML}), DetailNotAnImage},
		{refusedBy(origin.Object{Refused: origin.RefusedType}), DetailNotAnImage},
		{refusedBy(origin.Object{Refused: origin.RefusedSize}), DetailNotAnImage},
		{refusedBy(origin.Object{Refused: origin.RefusedEnd}), DetailLengthUnknown},
		{diskError{fmt.Errorf("mkdir /srv: no")}, DetailDisk},
		{fmt.Errorf("%w: 5 bytes", ErrNoSpace), DetailNoRoom},
		{errDeleted, DetailDeleted},
		{fmt.Errorf("write /srv/x: input/output error"), DetailDisk},
	} {
		for _, err := range []error{c.err, fmt.Errorf("%w: %w", errDetached, c.err)} {
			if got := detailOf(err); got != c.want {
				t.Errorf("%v is %q, want %q", err, got, c.want)
			}
		}
	}
	if err := refusedBy(origin.Object{}); err != nil {
		t.Errorf("an answer that nobody refuses: %v", err)
	}
}

// firstByte tells what is known when the first byte goes to a client.
type firstByte struct {
	k    Content
	told *Outcome // nil: none has gone
}

func (w *firstByte) Write(p []byte) (int, error) {
	if w.told == nil {
		out := w.k.Outcome()
		w.told = &out
	}
	return len(p), nil
}

// TestStoredIsSaidWhenItIsKnown looks at what a client is told with its first
// byte, where images are stored, cannot be, and while a write holds all room.
func TestStoredIsSaidWhenItIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    options.Options
		size   int
		before func(*engine)
		want   Outcome
	}{
		"room":            {cfg: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 1}, size: 3 << 20, want: Outcome{Stored: true}},
		"room for little": {cfg: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 1}, size: 5, want: Outcome{Stored: true}},
		"no bytes":        {cfg: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 1}, size: 0, want: Outcome{}},
		"too large":       {cfg: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, size: 3 << 20, want: Outcome{Detail: DetailNoRoom}},
		"not admitted":    {cfg: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 1, MaxImageSize: 1 << 20}, size: 3 << 20, want: Outcome{Detail: DetailMaxImageSize}},
		"a write holds all": {cfg: options.Options{MaxSize: 8 << 20, Limit: options.LimitHard}, size: 3 << 20, want: Outcome{Detail: DetailNoRoom}, before: func(e *engine) {
			e.bring(e.begin("hog", 8<<20), 8<<20)
		}},
		"a bad disk": {cfg: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 1}, size: 3 << 20, want: Outcome{Detail: DetailDisk}, before: func(e *engine) {
			e.disk.fail(fmt.Errorf("input/output error"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: c.cfg}, func(t *testing.T, e *engine) {
				e.origin.data = bytes.Repeat([]byte("x"), c.size)
				if c.before != nil {
					c.before(e)
				}
				k, err := e.Open(t.Context(), "image")
				if err != nil {
					t.Fatal(err)
				}
				defer k.Close()
				if k.Outcome().Stored {
					t.Error("it is said to be stored before there is room for it")
				}
				client := &firstByte{k: k}
				if _, err := k.CopyTo(t.Context(), client, 0, -1); err != nil {
					t.Fatal(err)
				}
				if (client.told == nil) != (c.size == 0) || client.told != nil && *client.told != c.want {
					t.Errorf("the client is told %+v, want %+v", client.told, c.want)
				}
			})
		})
	}
}

// TestDetailsAreWords holds each detail to the form of a token.
func TestDetailsAreWords(t *testing.T) {
	seen := map[Detail]bool{}
	for _, d := range Details() {
		if d == "" || seen[d] || strings.Trim(string(d), "abcdefghijklmnopqrstuvwxyz_-") != "" {
			t.Errorf("%q is no word, or stands twice", d)
		}
		seen[d] = true
	}
}
