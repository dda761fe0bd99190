package docs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/gdsf"
	"github.com/imgcache/imgcache-host/plugins/builtin/lfu"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/plugins/builtin/s3fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestPoliciesAreDocumented looks in policies.md for each policy that ships,
// with its form, and for each option with its default; the Makefile ships the
// same.
func TestPoliciesAreDocumented(t *testing.T) {
	text := documents(t)["plugins/policies.md"]
	shipped := "POLICIES :="
	for _, m := range []sdk.Manifest{lru.Manifest, lfu.Manifest, fifo.Manifest, gdsf.Manifest, sieve.Manifest, s3fifo.Manifest} {
		form := "scoring"
		if m.Has(sdk.CapStateful) {
			form = "stateful"
		}
		rows := []string{fmt.Sprintf("| `%s` | %s |", m.Name, form)}
		for _, o := range m.Options {
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | `%s` |", m.Name, o.Name, o.Default))
		}
		for _, row := range rows {
			if strings.Count(text, "\n"+row) != 1 {
				t.Errorf("policies.md has no row %q", row)
			}
		}
		shipped += " " + m.Name
	}
	if makefile := output(t, "cat", "Makefile"); !strings.Contains(makefile, "\n"+shipped+"\n") {
		t.Errorf("the Makefile does not have the line %q", shipped)
	}
}
