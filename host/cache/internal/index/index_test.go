package index

import (
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
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
		leave func(x *Index, im *Image) // between the opening and the question
		stale bool
		same  bool  // the image is the one that left
		bytes int64 // charged while it is read
	}{
		"not at all":            {func(*Index, *Image) {}, false, true, 10},
		"not yet unlinked":      {func(x *Index, _ *Image) { x.Remove("image", sdk.ReasonEvicted, time.Now()) }, false, true, 10},
		"and comes back":        {leaveAndStay, false, false, 10},
		"unlinked and released": {leave, true, false, 0},
		"replaced": {func(x *Index, _ *Image) {
			x.pool.Charge(another.Size)
			im, _ := x.Commit(another, time.Now())
			x.Close(im)
		}, false, true, 20},
		"replaced and released": {func(x *Index, im *Image) {
			leave(x, im)
			x.Found(another)
		}, true, false, 10},
	} {
		t.Run(name, func(t *testing.T) {
			x := New(time.Now, space.NewPool(100, true), journal.New(storetest.TempFS(t), "records.log", ""), NewEvents(false, false), NewRequests(nil))
			before, released := x.Found(info), x.Releases()
			test.leave(x, before)
			im, stale := x.Opened(info, released)
			if stale != test.stale || (im == before) != test.same {
				t.Errorf("stale %v, the same image %v", stale, im == before)
			}
			if total, _ := x.pool.State(); total != test.bytes {
				t.Errorf("%d bytes are charged, want %d", total, test.bytes)
			}
			if im != nil {
				x.Close(im)
			}
			x.Unlinked(before)
			if n := len(x.departed); n != 0 {
				t.Errorf("%d images are still leaving", n)
			}
		})
	}
}

func leave(x *Index, im *Image) {
	x.Remove(im.ID, sdk.ReasonEvicted, time.Now())
	x.Unlinked(im)
}

// leaveAndStay is what happens when the file cannot be moved.
func leaveAndStay(x *Index, im *Image) {
	x.Remove(im.ID, sdk.ReasonEvicted, time.Now())
	x.Stays(im)
	x.Unlinked(im)
}

// TestExchangedFileIsTold: a file that somebody put in the place of another is an
// image without hits, and the driver hears of that.
func TestExchangedFileIsTold(t *testing.T) {
	j := journal.New(storetest.TempFS(t), "records.log", "")
	x := New(time.Now, space.NewPool(100, true), j, NewEvents(false, false), NewRequests(nil))
	info := store.Info{ID: "image", Size: 10, Inode: 7, ModTime: time.Now().Add(-time.Hour)}
	x.Hit(x.Found(info))
	info.Inode, info.ModTime = 8, time.Now()
	im := x.Found(info)
	if v := x.View(im); v.Hits != 0 {
		t.Errorf("the new file has %d hits", v.Hits)
	}
	batch, err := j.Flush()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []sdk.OpKind
	for _, op := range batch.Ops {
		kinds = append(kinds, op.Kind)
	}
	if !slices.Equal(kinds, []sdk.OpKind{sdk.OpDelete, sdk.OpPut}) {
		t.Errorf("the driver is told %v, want a delete and a put", kinds)
	}
}
