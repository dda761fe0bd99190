package conformance

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// driver checks a driver against its contract. For each case the driver gets a
// new cache directory, node name and instance, and must use a separate store
// for at least one of these.
func (w *workshop) driver(report *sdktest.Report) {
	sdktest.Driver(report, func(r *sdktest.Report) sdktest.Subject {
		return w.mustOpenEmpty(r).subject()
	})
	sdktest.Durable(report, func(r *sdktest.Report) func() sdktest.Subject {
		var i *instance
		return func() sdktest.Subject {
			if i == nil {
				i = w.mustOpenEmpty(r)
			} else if err := i.restart(r.Context()); err != nil {
				r.Fatalf("it does not start again after it was killed: %v", err)
			}
			return i.subject()
		}
	})
}

func (w *workshop) mustOpenEmpty(r *sdktest.Report) *instance {
	i := w.mustOpen(r)
	empty := true
	err := i.p.Driver().List(r.Context(), func(entries []sdk.Entry) error {
		empty = empty && len(entries) == 0
		return nil
	})
	if err == nil && !empty {
		r.Fatalf("its store is not empty: it must be told apart by the cache directory, the node or the instance")
	}
	return i
}

func (i *instance) subject() sdktest.Subject {
	if strings.HasSuffix(i.check.Path, ".wasm") { // it sees no files
		return sdktest.Subject{Driver: i.p.Driver(), Entries: i.check.Entries}
	}
	return sdktest.Subject{
		Driver: i.p.Driver(), Entries: i.check.Entries,
		Create: func(id string) {
			if f, err := os.OpenFile(filepath.Join(i.cache(), id), os.O_CREATE, 0o640); err == nil {
				_ = f.Close() // an id that names no file has no record either
			}
		},
		Remove: func(id string) { _ = os.Remove(filepath.Join(i.cache(), id)) },
	}
}
