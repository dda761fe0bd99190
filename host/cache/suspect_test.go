package cache

import (
	"bytes"
	"errors"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache/options"
)

// TestPeerSendsOtherBytes: whoever sent bytes of an image that turned out to be
// wrong hears of it, and nobody gets them as a whole. The next request gets the
// image.
func TestPeerSendsOtherBytes(t *testing.T) {
	for name, test := range map[string]struct {
		corrupt  bool
		cutAt    int
		badDisk  bool
		maxImage int64
		blamed   int
	}{
		"right":                {},
		"right after a cut":    {cutAt: 1 << 20},
		"wrong":                {corrupt: true, blamed: 1},
		"wrong after a cut":    {corrupt: true, cutAt: 1 << 20, blamed: 2},
		"wrong on a bad disk":  {corrupt: true, badDisk: true, blamed: 1},
		"wrong and not stored": {corrupt: true, maxImage: 1 << 20, blamed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxImageSize: test.maxImage, Fill: options.Fill{Retries: 1}}}, func(t *testing.T, e *engine) {
				o := e.origin
				o.data, o.digest = bytes.Repeat([]byte("image"), 1<<20), true
				o.corrupt, o.cutAt = test.corrupt, test.cutAt
				if test.badDisk {
					e.fsys.setOdds(1)
				}
				got, _, err := e.get("image")
				if test.corrupt != errors.Is(err, ErrVerify) || (got == string(o.data)) != (err == nil) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
				e.fsys.setOdds(0)
				o.mu.Lock()
				blamed := o.blamed
				o.corrupt = false
				o.mu.Unlock()
				if blamed != test.blamed {
					t.Errorf("%d transfers are to blame, want %d", blamed, test.blamed)
				}
				if got, _, err := e.get("image"); err != nil || got != string(o.data) {
					t.Errorf("then got %d bytes, %v", len(got), err)
				}
			})
		})
	}
}
