package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// inC is how the documents compile a policy in C.
var inC = []string{"--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-s", "-Wall", "-Wextra", "-Werror"}

// cPolicy writes the policy in C that a document shows, and that must be
// complete, to a file.
func cPolicy(t *testing.T, name, pattern string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s shows no policy in C", name)
	}
	path := filepath.Join(t.TempDir(), "policy.c")
	if err := os.WriteFile(path, m[1], 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExamples builds every example policy, those in the documents too, and
// holds it to the contract through WebAssembly.
func TestExamples(t *testing.T) {
	abi := filepath.Join(root, "pluginproto", "abi")
	for _, tt := range []struct {
		name  string
		build []string // and -o PATH
		env   []string
	}{
		{
			name:  "cheap-first",
			build: []string{"go", "build", "-C", root, "-buildmode=c-shared", "-o", "OUT", "./plugins/examples/go-policy"},
			env:   []string{"GOOS=wasip1", "GOARCH=wasm"},
		},
		{
			name:  "half-life",
			build: append(append([]string{"clang"}, inC...), "-I", abi, "-o", "OUT", filepath.Join(root, "plugins", "examples", "c-policy", "policy.c")),
		},
		{
			name:  "oldest",
			build: append(append([]string{"clang"}, inC...), "-I", abi, "-o", "OUT", cPolicy(t, filepath.Join(abi, "ABI.md"), "(?s)```c\n(.*?)```")),
		},
		{
			name:  "big-first",
			build: append(append([]string{"clang"}, inC...), "-o", "OUT", cPolicy(t, "policy.md", "(?s)cat >big-first.c <<'EOT'\n(.*?)EOT\n")),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.name+".wasm")
			args := append([]string(nil), tt.build[1:]...)
			for i := range args {
				if args[i] == "OUT" {
					args[i] = path
				}
			}
			cmd := exec.CommandContext(t.Context(), tt.build[0], args...)
			cmd.Env = append(os.Environ(), tt.env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			conform(t, tt.name, path)
		})
	}
}

// conform holds the scoring policy in a module to the contract.
func conform(t *testing.T, name, path string) {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	compiled := t.TempDir()
	load := func(t *testing.T) *wasm.Module {
		t.Helper()
		m, err := wasm.Load(t.Context(), code, wasm.Options{CacheDir: compiled})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close(context.Background()) })
		return m
	}
	manifest := load(t).Manifest()
	if manifest.Name != name {
		t.Errorf("the name of the policy is %q, want %q", manifest.Name, name)
	}
	sdktest.Manifest(t, manifest)
	sdktest.Scorer(t, func(t *testing.T) sdk.Scorer {
		m := load(t)
		options := sdk.Config{}
		for _, o := range manifest.Options {
			options[o.Name] = o.Default
		}
		if err := m.Configure(t.Context(), sdk.Settings{Options: options}); err != nil {
			t.Fatal(err)
		}
		return m.Plugin().(sdk.Scorer)
	})
}
