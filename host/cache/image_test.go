package cache

import (
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestOpenedWhileItLeaves: whoever opened a file before it lost its name reads
// the image that it was; its bytes are charged once.
func TestOpenedWhileItLeaves(t *testing.T) {
	info := store.Info{ID: "image", Size: 10, Inode: 7, ModTime: time.Now().Add(-time.Hour)}
	another := info
	another.Inode, another.ModTime = 8, time.Now()
	for name, test := range map[string]struct {
		leave func(x *index, im *image) // between the opening and the question
		stale bool
		same  bool  // the image is the one that left
		bytes int64 // charged while it is read
	}{
		"not at all":            {func(*index, *image) {}, false, true, 10},
		"not yet unlinked":      {func(x *index, _ *image) { x.remove("image", sdk.ReasonEvicted, time.Now()) }, false, true, 10},
		"and comes back":        {leaveAndStay, false, false, 10},
		"unlinked and released": {leave, true, false, 0},
		"replaced": {func(x *index, _ *image) {
			x.pool.charge(another.Size)
			im, _ := x.commit(another, time.Now())
			x.close(im)
		}, false, true, 20},
		"replaced and released": {func(x *index, im *image) {
			leave(x, im)
			x.found(another)
		}, true, false, 10},
	} {
		t.Run(name, func(t *testing.T) {
			x := newIndex(time.Now, newPool(100, true), newJournal(storetest.TempFS(t), "records.log", ""), newEvents(false, false), newRequests(nil))
			before, released := x.found(info), x.releases()
			test.leave(x, before)
			im, stale := x.opened(info, released)
			if stale != test.stale || (im == before) != test.same {
				t.Errorf("stale %v, the same image %v", stale, im == before)
			}
			if total, _ := x.pool.state(); total != test.bytes {
				t.Errorf("%d bytes are charged, want %d", total, test.bytes)
			}
			if im != nil {
				x.close(im)
			}
			x.unlinked(before)
			if n := len(x.departed); n != 0 {
				t.Errorf("%d images are still leaving", n)
			}
		})
	}
}

func leave(x *index, im *image) {
	x.remove(im.id, sdk.ReasonEvicted, time.Now())
	x.unlinked(im)
}

// leaveAndStay is what happens when the file cannot be moved.
func leaveAndStay(x *index, im *image) {
	x.remove(im.id, sdk.ReasonEvicted, time.Now())
	x.stays(im)
	x.unlinked(im)
}
