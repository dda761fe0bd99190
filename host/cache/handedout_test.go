package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
)

// TestWholeImageIsAHit: a hit is a whole image handed out, by one response or by
// ranges of one client that cover it.
func TestWholeImageIsAHit(t *testing.T) {
	im, other := &index.Image{Size: 100}, &index.Image{Size: 100}
	type read struct {
		client   string
		image    *index.Image
		from, to int64
	}
	for name, c := range map[string]struct {
		reads []read
		hits  int
	}{
		"one response":                  {[]read{{"a", im, 0, 100}}, 1},
		"two responses":                 {[]read{{"a", im, 0, 100}, {"a", im, 0, 100}}, 2},
		"the last byte again and again": {[]read{{"a", im, 99, 100}, {"a", im, 99, 100}, {"a", im, 99, 100}}, 0},
		"halves":                        {[]read{{"a", im, 0, 50}, {"a", im, 50, 100}}, 1},
		"halves in the other order":     {[]read{{"a", im, 50, 100}, {"a", im, 0, 50}}, 1},
		"parts that overlap":            {[]read{{"a", im, 0, 60}, {"a", im, 40, 80}, {"a", im, 10, 100}}, 1},
		"a hole":                        {[]read{{"a", im, 0, 50}, {"a", im, 51, 100}}, 0},
		"a hole that is filled":         {[]read{{"a", im, 0, 50}, {"a", im, 51, 100}, {"a", im, 50, 51}}, 1},
		"halves of two clients":         {[]read{{"a", im, 0, 50}, {"b", im, 50, 100}}, 0},
		"halves of two images":          {[]read{{"a", im, 0, 50}, {"a", other, 50, 100}}, 0},
		"halves twice":                  {[]read{{"a", im, 0, 50}, {"a", im, 50, 100}, {"a", im, 0, 50}, {"a", im, 50, 100}}, 2},
		"nothing":                       {[]read{{"a", im, 10, 10}}, 0},
	} {
		h := &handedOut{now: time.Now}
		hits := 0
		for _, r := range c.reads {
			if h.add(r.client, r.image, r.from, r.to) {
				hits++
			}
		}
		if hits != c.hits {
			t.Errorf("%s: %d hits, want %d", name, hits, c.hits)
		}
	}
}

// TestCoverageIsBounded: what is too much, too scattered or too old is forgotten.
func TestCoverageIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := &index.Image{Size: 10_000}
		h := &handedOut{now: time.Now}
		for i := range 2 * maxCoverages {
			h.add(fmt.Sprint(i), im, 0, 5000)
		}
		if len(h.parts) != maxCoverages || h.order.Len() != maxCoverages {
			t.Errorf("%d and %d coverages are kept, want %d", len(h.parts), h.order.Len(), maxCoverages)
		}
		for i := range int64(maxSpans) + 1 {
			h.add("scattered", im, 2*i, 2*i+1)
		}
		if h.parts[recipient{"scattered", im}] != nil {
			t.Errorf("more than %d pieces are kept", maxSpans)
		}
		h.add("slow", im, 0, 5000)
		time.Sleep(coverageFor + time.Second)
		if h.add("slow", im, 5000, 10_000) {
			t.Error("halves that are more than an hour apart are a hit")
		}
	})
}
