package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/scaffold"
)

// TestNew begins each plugin that can be begun, builds it with make, and lets
// plugin check hold it to its contract. Those are the examples too.
func TestNew(t *testing.T) {
	t.Parallel()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, choice := range scaffold.Choices() {
		lang, kind, _ := strings.Cut(choice, " ")
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			work := t.TempDir()
			run := func(dir, name string, args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), name, args...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "GOWORK=off", "GOSUMDB=off", quietRace)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v; are the packages of scripts/setup there?\n%s", err, out)
				}
			}
			run(work, filepath.Join(bin, "imgcache-host"), "plugin", "new", "--lang", lang, "--kind", kind, "mine")
			dir, plugin := filepath.Join(work, "mine"), "mine.wasm"
			if kind == "driver" {
				plugin = "imgcache-driver-mine"
			}
			if lang == "go" { // which is not published from here
				sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
				if err != nil {
					t.Fatal(err)
				}
				writeFile(t, filepath.Join(dir, "go.sum"), string(sums))
				run(dir, "go", "mod", "edit", "-replace", "github.com/imgcache/imgcache-host="+root)
			}
			run(dir, "make")
			run(dir, filepath.Join(bin, "imgcache-host"), "plugin", "check", "--entries", "300", "--budget", "1m", "--dir", inMemory(t), "./"+plugin)
			run(dir, "make", "clean")
			if _, err := os.Stat(filepath.Join(dir, plugin)); err == nil {
				t.Error("make clean leaves the plugin")
			}
		})
	}
}

// TestNewRefuses what cannot be begun, and leaves nothing.
func TestNewRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "there", "precious")
	for _, tt := range []struct{ lang, kind, name, why string }{
		{"rust", "driver", "mine", `no template for a driver in "rust"; the choices are go policy, go driver, c policy`},
		{"cobol", "policy", "mine", `"cobol"`},
		{"go", "policy", "../mine", "expected a lower-case letter"},
		{"go", "policy", "there", "exists already"},
	} {
		var out, errs strings.Builder
		a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs}
		code := a.run(t.Context(), []string{"plugin", "new", "--lang", tt.lang, "--kind", tt.kind, tt.name})
		if code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), tt.why) {
			t.Errorf("%v: exit code %d, %s%s", tt, code, &out, &errs)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 1 {
		t.Errorf("%v, %v is left", err, left)
	}
}
