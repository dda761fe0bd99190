package docs

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/config"
)

// documents returns the text of the Markdown files of the project by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../*.md", "*.md", "plugins/*.md", "../pluginproto/abi/*.md", "../testdata/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(text)
		}
	}
	if len(texts) < 5 {
		t.Fatalf("only %d documents are found", len(texts))
	}
	return texts
}

// TestLinks follows the links of each document to files of the project.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)[^):]*\)`) // an address elsewhere has a colon
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// TestNamedTestsExist looks for each test that a document calls a proof.
func TestNamedTestsExist(t *testing.T) {
	exists := map[string]bool{}
	definition := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, m := range definition.FindAllStringSubmatch(string(code), -1) {
			exists[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	for path, text := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !exists[m[1]] {
				t.Errorf("%s names %s, which is no test", path, m[1])
			}
		}
	}
}

// TestConfigurationOfReadme loads the configuration that README.md begins with.
func TestConfigurationOfReadme(t *testing.T) {
	readme := documents(t)["../README.md"]
	_, rest, _ := strings.Cut(readme, "```hcl\n")
	block, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("README.md has no configuration")
	}
	path := filepath.Join(t.TempDir(), "imgcache.hcl")
	if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load([]string{path}); err != nil {
		t.Error(err)
	}
}

// TestMetricsAreDocumented compares the names of metrics in the code with
// those of operating.md, in both directions.
func TestMetricsAreDocumented(t *testing.T) {
	inCode := map[string]bool{}
	for _, where := range []struct{ path, name, prefix string }{
		{"../host/httpd/metrics.go", `"(?:imgcache_)?([a-z]+(?:_[a-z]+)+)"`, ""},
		{"../host/plugin/metrics.go", `describe\("([a-z_]+)"`, "plugin_"},
		{"../host/shadow/metrics.go", `describe\("([a-z_]+)"`, "shadow_"},
		{"../host/watchers.go", `counter\("([a-z_]+)"`, ""},
	} {
		code, err := os.ReadFile(where.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(where.name).FindAllStringSubmatch(string(code), -1) {
			inCode[where.prefix+strings.TrimPrefix(m[1], "http_")] = true
		}
	}
	inText := map[string]bool{}
	for line := range strings.Lines(documents(t)["operating.md"]) {
		if !strings.HasPrefix(line, "| `imgcache_") {
			continue
		}
		cell := strings.Split(line, "|")[1]
		for _, m := range regexp.MustCompile("`(?:imgcache)?_([a-z_]+)").FindAllStringSubmatch(cell, -1) {
			inText[strings.TrimPrefix(m[1], "http_")] = true
		}
	}
	if len(inText) == 0 {
		t.Fatal("operating.md has no table of metrics")
	}
	missing := func(from, in map[string]bool) []string {
		return slices.DeleteFunc(slices.Sorted(maps.Keys(from)), func(n string) bool { return in[n] })
	}
	if list := missing(inCode, inText); len(list) > 0 {
		t.Errorf("operating.md lacks the metrics %q", list)
	}
	if list := missing(inText, inCode); len(list) > 0 {
		t.Errorf("operating.md has metrics %q, which are not in the code", list)
	}
}
