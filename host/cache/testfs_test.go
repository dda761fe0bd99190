package cache

import (
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
)

func newTestFS(t *testing.T) store.FS {
	t.Helper()
	fsys, err := store.OpenFS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}
