package host_test

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/imgcache/imgcache-host"

// rule says what packages may not import. A pattern is an import path, or one
// with /... for it and all below it; ./x is a package of this module, and std
// the standard library.
type rule struct {
	name   string
	of     []string // the packages that the rule is about
	except []string // and those that it is not about
	deep   bool     // imports of imports count too
	only   []string // nothing else may be imported; empty: see never
	never  []string // this may not be imported
	why    string
}

var (
	// database/sql/driver is none of them: it holds interfaces, which a UUID of
	// minio-go satisfies, and brings no database along.
	sqlDrivers = []string{
		"database/sql", "github.com/mattn/go-sqlite3/...", "modernc.org/sqlite/...",
		"github.com/go-sql-driver/mysql/...", "github.com/jackc/pgx/...", "github.com/lib/pq/...",
	}
	runtimes = []string{
		"github.com/tetratelabs/wazero/...", "github.com/hashicorp/go-plugin/...", "google.golang.org/grpc/...",
	}
)

// rules are the import rules of DESIGN.md. What only tests import is free.
var rules = []rule{
	{
		name: "contract needs the standard library only", deep: true,
		of:   []string{"./sdk", "./sdk/guest", "./sdk/guest/kv", "./pluginproto/abi"},
		only: []string{"std", "./sdk", "./sdk/guest", "./sdk/guest/kv", "./pluginproto/abi"},
		why:  "whoever writes a plugin takes on whatever these take on, and a Wasm module carries it along",
	},
	{
		name: "plugins know no host", deep: true,
		of:    []string{"./plugins/...", "./sdk/...", "./pluginproto/..."},
		never: []string{"./host/...", "./cmd/..."},
		why:   "the plugins that ship must need nothing that a third party cannot use",
	},
	{
		name: "engine knows no plugin runtime and no SQL", deep: true,
		of:    []string{"./host/cache/..."},
		never: slices.Concat(runtimes, sqlDrivers),
		why:   "the engine sees sdk.Driver and sdk.Scorer; how they are run or where they store is not its business",
	},
	{
		name:  "engine speaks no HTTP",
		of:    []string{"./host/cache/..."},
		never: []string{"net/http/...", "./host/httpd"},
		why:   "statuses and headers belong to host/httpd and host/origin",
	},
	{
		name: "rooms of the engine know no engine", deep: true,
		of:    []string{"./host/cache/internal/...", "./host/cache/evict", "./host/cache/records"},
		never: []string{"./host/cache"},
		why:   "a room is understood, and tested, without the engine that uses it",
	},
	{
		name: "evict and records do not know each other", deep: true,
		of:    []string{"./host/cache/evict", "./host/cache/internal/..."},
		never: []string{"./host/cache/records"},
		why:   "both act on the index, which keeps the order of what happens",
	},
	{
		name: "what is kept knows nobody who decides", deep: true,
		of:    []string{"./host/cache/internal/...", "./host/cache/records"},
		never: []string{"./host/cache/evict", "./host/origin"},
		why:   "who leaves, and where images come from, are questions to the engine and to evict",
	},
	{
		name: "host links no database and no attributes", deep: true,
		of:    []string{"./host/...", "./cmd/..."},
		never: append([]string{"github.com/pkg/xattr/...", "./plugins/builtin/..."}, sqlDrivers...),
		why:   "where records live is a plugin's choice, and a crash of its library is the plugin's alone",
	},
	{
		name:  "rapid stays in tests",
		of:    []string{"./..."},
		never: []string{"pgregory.net/rapid/..."},
		why:   "it adds flags to every program that links it",
	},
	{
		name: "wazero stays in host/wasm",
		of:   []string{"./..."}, except: []string{"./host/wasm"},
		never: []string{"github.com/tetratelabs/wazero/..."},
		why:   "a module may only ever run in the runner's process, where it can be killed",
	},
	{
		name: "minio-go stays in host/origin",
		of:   []string{"./..."}, except: []string{"./host/origin"},
		never: []string{"github.com/minio/..."},
		why:   "a server of objects is an origin like any other; its requests, errors and checksums are nobody else's business",
	},
	{
		name: "go-crypto stays in host/origin",
		of:   []string{"./..."}, except: []string{"./host/origin"},
		never: []string{"github.com/ProtonMail/go-crypto/..."},
		why:   "whether a publisher has signed is decided in one place, by one set of rules",
	},
	{
		name: "go-plugin stays in host/plugin and sdk/serve",
		of:   []string{"./..."}, except: []string{"./host/plugin", "./sdk/serve"},
		never: []string{"github.com/hashicorp/go-plugin/..."},
		why:   "there is one supervisor and one plugin side; everybody else sees the interfaces of sdk",
	},
	{
		name: "generated types stay at the wire",
		of:   []string{"./..."}, except: []string{"./pluginproto/...", "./host/plugin", "./sdk/serve"},
		never: []string{"./pluginproto/imgcache/..."},
		why:   "a change of the wire format must end at the conversions",
	},
	{
		name:  "runner reaches gRPC through sdk/serve",
		of:    []string{"./host/wasm"},
		never: []string{"google.golang.org/grpc/..."},
		why:   "a Wasm module is served like any plugin; a second way to serve would be a second contract",
	},
}

// graph holds the direct imports of each package by its import path.
type graph map[string][]string

// violations says how g breaks r, one line for each package that does.
func (r rule) violations(g graph) []string {
	var lines []string
	for _, pkg := range slices.Sorted(maps.Keys(g)) {
		if !matches(r.of, pkg) || matches(r.except, pkg) {
			continue
		}
		if chain := r.offence(g, pkg); chain != nil {
			lines = append(lines, fmt.Sprintf("%s: %s\n  because %s", r.name, strings.Join(chain, " imports "), r.why))
		}
	}
	return lines
}

// offence returns the shortest chain of imports from pkg to what it may not
// import, nil when there is none.
func (r rule) offence(g graph, pkg string) []string {
	chains, seen := [][]string{{pkg}}, map[string]bool{pkg: true}
	for len(chains) > 0 {
		chain := chains[0]
		chains = chains[1:]
		for _, imported := range g[chain[len(chain)-1]] {
			if seen[imported] {
				continue
			}
			seen[imported] = true
			longer := append(slices.Clone(chain), imported)
			if matches(r.never, imported) || len(r.only) > 0 && !matches(r.only, imported) {
				return longer
			}
			if r.deep {
				chains = append(chains, longer)
			}
		}
	}
	return nil
}

// matches reports whether one of patterns means the package.
func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == "std" {
			first, _, _ := strings.Cut(pkg, "/")
			return !strings.Contains(first, ".") // of all modules only std has none
		}
		if rest, ours := strings.CutPrefix(pattern, "."); ours {
			pattern = module + rest
		}
		root, below := strings.CutSuffix(pattern, "/...")
		return pkg == root || below && strings.HasPrefix(pkg, root+"/")
	})
}

// load asks the go command who imports what. Packages that a build constraint
// keeps from this system appear with those of theirs.
func load(t *testing.T, env ...string) graph {
	t.Helper()
	cmd := command("go", "list", "-e", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderrOf(err))
	}
	g := graph{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatal(err)
		}
		g[pkg.ImportPath] = pkg.Imports
	}
}

// command is one that runs in the root of the module.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	return cmd
}

func stderrOf(err error) []byte {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.Stderr
	}
	return nil
}

// TestLayers keeps the import rules, for this system and for Wasm.
func TestLayers(t *testing.T) {
	for _, env := range [][]string{nil, {"GOOS=wasip1", "GOARCH=wasm"}} {
		g := load(t, env...)
		if len(g[module+"/host/cache"]) == 0 {
			t.Fatalf("%v: go list knows no imports of host/cache", env)
		}
		for _, r := range rules {
			for _, line := range r.violations(g) {
				t.Errorf("%v %s", env, line)
			}
		}
	}
}

// TestRulesCanFail breaks each rule with a small graph of imports.
func TestRulesCanFail(t *testing.T) {
	const m = module
	broken := map[string]graph{
		"contract needs the standard library only":     {m + "/sdk": {"context", m + "/sdk/x"}, m + "/sdk/x": {"golang.org/x/sys/unix"}},
		"plugins know no host":                         {m + "/plugins/builtin/lru": {m + "/x"}, m + "/x": {m + "/host/store"}},
		"engine knows no plugin runtime and no SQL":    {m + "/host/cache": {m + "/x"}, m + "/x": {"google.golang.org/grpc/codes"}},
		"engine speaks no HTTP":                        {m + "/host/cache": {"net/http"}},
		"rooms of the engine know no engine":           {m + "/host/cache/evict": {m + "/x"}, m + "/x": {m + "/host/cache"}},
		"evict and records do not know each other":     {m + "/host/cache/evict": {m + "/host/cache/records"}},
		"what is kept knows nobody who decides":        {m + "/host/cache/internal/index": {m + "/host/cache/evict"}},
		"host links no database and no attributes":     {m + "/cmd/imgcache-host": {"example.com/metrics"}, "example.com/metrics": {"database/sql"}},
		"rapid stays in tests":                         {m + "/sdk/sdktest": {"pgregory.net/rapid"}},
		"wazero stays in host/wasm":                    {m + "/host": {"github.com/tetratelabs/wazero/api"}},
		"minio-go stays in host/origin":                {m + "/host/cache": {"github.com/minio/minio-go/v7"}},
		"go-crypto stays in host/origin":               {m + "/host/config": {"github.com/ProtonMail/go-crypto/openpgp"}},
		"go-plugin stays in host/plugin and sdk/serve": {m + "/host/wasm": {"github.com/hashicorp/go-plugin"}},
		"generated types stay at the wire":             {m + "/host/wasm": {m + "/pluginproto/imgcache/plugin/v1"}},
		"runner reaches gRPC through sdk/serve":        {m + "/host/wasm": {"google.golang.org/grpc"}},
	}
	whole := graph{
		m + "/sdk": {"context"}, m + "/host/wasm": {"github.com/tetratelabs/wazero", m + "/sdk/serve"},
		m + "/sdk/serve":  {"github.com/hashicorp/go-plugin", m + "/pluginproto/imgcache/plugin/v1", m + "/sdk"},
		m + "/host/cache": {m + "/host/origin", m + "/host/cache/evict", m + "/sdk"}, m + "/host/cache/evict": {m + "/host/cache/internal/index"}, m + "/host/origin": {"net/http"},
		m + "/plugins/builtin/sqlite": {"github.com/mattn/go-sqlite3", m + "/sdk/serve"},
	}
	for _, r := range rules {
		g, ok := broken[r.name]
		if !ok {
			t.Errorf("%s: no graph breaks this rule", r.name)
		} else if lines := r.violations(g); len(lines) != 1 || !strings.Contains(lines[0], r.why) {
			t.Errorf("%s: violations are %q, want one with the reason", r.name, lines)
		}
		if lines := r.violations(whole); len(lines) > 0 {
			t.Errorf("%s: a tree that keeps the rules breaks it: %s", r.name, lines)
		}
	}
}

// TestHostBuildsWithoutCgo builds the service as it ships and looks into it.
func TestHostBuildsWithoutCgo(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "imgcache-host")
	build := command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./cmd/imgcache-host")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the service must build on a machine without a C compiler: %v\n%s", err, out)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range info.Deps {
		if slices.Contains([]string{"github.com/mattn/go-sqlite3", "github.com/pkg/xattr", "github.com/jackc/pgx/v5", "github.com/go-sql-driver/mysql"}, dep.Path) {
			t.Errorf("the service links %s, which is for a plugin to do", dep.Path)
		}
	}
	code, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	// The names of functions are in every binary; that of one which is there
	// for certain proves that this search finds them.
	for name, want := range map[string]bool{"net/http.(*Server).Serve": true, "database/sql.(*DB)": false} {
		if got := bytes.Contains(code, []byte(name)); got != want {
			t.Errorf("the service contains %s: %v, want %v", name, got, want)
		}
	}
}
