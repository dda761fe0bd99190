package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPublishing runs the commands of publishing.md as they stand, with the
// configuration that it shows.
func TestPublishing(t *testing.T) {
	name := filepath.Join("plugins", "publishing.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindSubmatch(text)
	if shown == nil {
		t.Fatalf("%s shows no configuration", name)
	}
	module, err := os.ReadFile(filepath.Join(root, "testdata", "wasm", "flood.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	for file, content := range map[string]string{
		"cost.wasm": string(module),
		"imgcache.hcl": string(shown[1]) + `
listener "tcp" "public" {
  address = "127.0.0.1:0"
}
cache "default" {
  dir    = "cache"
  policy = policy.cheap
}
policy "cost" "cheap" {}
origin "directory" "files" {
  path = "."
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euxo", "pipefail", "-c", blocks(t, name))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+binaries(t)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"SIGNATURE     acme.pem", "cost.wasm: OK"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	locked, err := os.ReadFile(filepath.Join(dir, "plugins.lock.json"))
	if err != nil || !strings.Contains(string(locked), `"signature": "acme.pem"`) {
		t.Errorf("the lock file is %s, %v", locked, err)
	}
}
