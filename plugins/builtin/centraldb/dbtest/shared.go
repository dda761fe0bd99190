package dbtest

import (
	"slices"
	"sync"
	"testing"
)

// M runs the tests of a package, and then ends the servers that they share.
type M struct{ *testing.M }

// Run implements what testing.M has.
func (m M) Run() int {
	code := m.M.Run()
	for _, end := range slices.Backward(ends) {
		end()
	}
	return code
}

var (
	sharing sync.Mutex
	shared  []*Server
	ends    []func()
)

// Each runs a test with each product. The servers are shared by all tests of
// the package, which begins with [M]; a test leaves them as it found them.
func Each(t *testing.T, f func(*testing.T, *Server)) {
	t.Helper()
	sharing.Lock()
	if shared == nil {
		shared = []*Server{PostgreSQL(outliving{t}), MariaDB(outliving{t})}
	}
	sharing.Unlock()
	for _, s := range shared {
		t.Run(s.Name(), func(t *testing.T) { f(t, s) })
	}
}

// outliving is the test that is the first to need the servers. What it would
// do at its end is left to M.
type outliving struct{ testing.TB }

func (t outliving) Cleanup(f func()) { ends = append(ends, f) }
