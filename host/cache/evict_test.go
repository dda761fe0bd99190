package cache

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// TestTrashThatStays: what cannot be unlinked stays charged, holds nobody up,
// and is tried again.
func TestTrashThatStays(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"a", "b"} {
		plant(t, dir, id, 10, before(time.Hour))
	}
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 100, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		synctest.Wait() // the start is over
		fsys := storetest.New(t, dir)
		e.fsys.FS = fsys
		fsys.Inject(storetest.On("reclaim", 0, syscall.EIO))
		if err := e.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if total, pending := e.pool.State(); total != 20 || pending != 0 {
			t.Errorf("%d bytes are charged, %d of them leaving; the file is still there", total, pending)
		}
		time.Sleep(evict.ReclaimAgain)
		fsys.Inject(nil)
		time.Sleep(evict.ReclaimAgain + time.Second)
		if total, pending := e.pool.State(); total != 10 || pending != 0 || imageBytes(t, dir) != 10 {
			t.Errorf("%d bytes are charged, %d of them leaving, the files have %d", total, pending, imageBytes(t, dir))
		}
	})
}
