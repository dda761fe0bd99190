// Package docs has the tests of what the documents say.
package docs

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// root is the checkout.
const root = ".."

// blocks returns the commands of a document, in their order.
func blocks(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(text, -1) {
		script.Write(m[1])
	}
	return script.String()
}

// shortDir returns a directory with a name short enough for sockets in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ic")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// publish makes a module proxy that has this checkout as its one version, as
// far as authors of plugins need it.
func publish(t *testing.T) (proxy string) {
	t.Helper()
	m := module.Version{Path: "github.com/imgcache/imgcache-host", Version: "v0.1.0"}
	proxy = t.TempDir()
	dir := filepath.Join(proxy, filepath.FromSlash(m.Path), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := zip.Create(&archive, m, moduleFiles(t, "go.mod", "LICENSE", "sdk", "pluginproto")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"list":              []byte(m.Version + "\n"),
		m.Version + ".info": []byte(`{"Version": "` + m.Version + `"}`),
		m.Version + ".mod":  gomod,
		m.Version + ".zip":  archive.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return proxy
}

// file is a file of the checkout, for a module's archive.
type file string

func (f file) Path() string                 { return filepath.ToSlash(string(f)) }
func (f file) Lstat() (os.FileInfo, error)  { return os.Lstat(filepath.Join(root, string(f))) }
func (f file) Open() (io.ReadCloser, error) { return os.Open(filepath.Join(root, string(f))) }

func moduleFiles(t *testing.T, names ...string) (files []zip.File) {
	t.Helper()
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			name, err := filepath.Rel(root, path)
			files = append(files, file(name))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// binaries returns the directory of imgcache-host: IMGCACHE_BIN, or one that
// is built now.
func binaries(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("IMGCACHE_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	output(t, "go", "build", "-o", filepath.Join(dir, "imgcache-host"), "./cmd/imgcache-host")
	output(t, "go", "build", "-o", filepath.Join(dir, "plugins", "imgcache-driver-sqlite"), "./plugins/builtin/sqlite/imgcache-driver-sqlite")
	return dir
}

// TestPolicy runs the commands of policy.md.
func TestPolicy(t *testing.T) {
	follow(t, "policy.md",
		`(?m)^cheap-first +policy +wasm .*running`,
		`(?m)^sqlite +driver +process .*running`,
		`evicted.*cheap-first: score`,
		`evicted.*image-big.*big-first: score`,
	)
}

// TestQuickStart runs the commands of plugins/README.md.
func TestQuickStart(t *testing.T) {
	follow(t, filepath.Join("plugins", "README.md"),
		`(?m)^ok .*the manifest is valid`,
		`(?m)^mine +policy +wasm .*running`,
		`(?m)^reloaded +mine`,
	)
}

// follow runs the commands of a document as they stand, in one shell and an
// empty directory, as somebody who has the released module and the service,
// and looks for patterns in the output.
func follow(t *testing.T, document string, wants ...string) {
	t.Helper()
	bin := binaries(t)
	modules := output(t, "go", "env", "GOMODCACHE")
	cache := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euxo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+blocks(t, document))
	cmd.Dir = shortDir(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // the service too
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(),
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"),
		// Modules that this one names come from where it got them itself.
		"GOPROXY=file://"+publish(t)+",file://"+filepath.Join(modules, "cache", "download")+","+output(t, "go", "env", "GOPROXY"),
		"GOMODCACHE="+cache,
		"GOFLAGS=-modcacherw",
		"GONOSUMDB=github.com/imgcache/*",
		"GOWORK=off",
	)
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(cmd.Dir, "service.log"))
		t.Fatalf("%v\n%s\nlog of the service:\n%s", err, out, log)
	}
	for _, want := range wants {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// TestExampleIsInDocument: the Go policy of the document is the example, and
// so is built and checked with the examples.
func TestExampleIsInDocument(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(root, "plugins", "examples", "go-policy", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(blocks(t, "policy.md"), strings.Replace(string(example), "Command go-policy", "Command cheap-first", 1)) {
		t.Errorf("policy.md does not show plugins/examples/go-policy/main.go")
	}
}
