package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// buildPlugin builds the plugin in a directory.
func buildPlugin(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(dir))
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// writeTemp makes an empty file.
func writeTemp(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	writeFile(t, path, "")
	return path
}

// check runs plugin check.
func check(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs}
	code = a.run(t.Context(), append([]string{"plugin", "check"}, args...))
	return code, out.String(), errs.String()
}

// TestCheck holds the example driver to its contract, and shows the result in
// each form.
func TestCheck(t *testing.T) {
	path := buildPlugin(t, "../../plugins/examples/go-driver")
	source, err := os.ReadFile("../../plugins/examples/go-driver/main.go")
	if n := bytes.Count(source, []byte("\n")); err != nil || n > 100 {
		t.Errorf("the example driver has %d lines, %v; at most 100 are promised", n, err)
	}
	junit := filepath.Join(t.TempDir(), "junit.xml")
	code, out, errs := check(t, path, "--junit", junit)
	if code != exitOK || errs != "" || strings.Contains(out, "BROKEN") || strings.Count(out, "ok  ") < 30 {
		t.Fatalf("exit code %d, %s\n%s", code, errs, out)
	}
	var suite junitSuite
	b, err := os.ReadFile(junit)
	if err == nil {
		err = xml.Unmarshal(b, &suite)
	}
	if err != nil || suite.Tests != strings.Count(out, "\n") || suite.Failures != 0 || len(suite.Cases) != suite.Tests {
		t.Errorf("%v: %s", err, b)
	}
}

// TestCheckFindsWrongDrivers lets plugin check find each of some drivers that
// break their contract, and name the sentence.
func TestCheckFindsWrongDrivers(t *testing.T) {
	path := buildPlugin(t, "./testdata/wrongdriver")
	for fault, sentence := range map[string]string{
		"forgets all":          "a restart keeps the records",
		"forgets the sequence": "a restart keeps the place in the sequence",
		"counts replays":       "a repeated batch is acknowledged without effect",
		"accepts gaps":         "a gap is refused and changes nothing",
		"folds ids":            "ids are compared byte for byte",
		"fails on absent":      "delete of an absent id is no error",
		"resets hits":          "put keeps the hits of the same version",
		"creates on touch":     "touch of an absent id creates nothing",
		"truncates times":      "times keep microseconds",
		"lists twice":          "list yields each id once",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			config := filepath.Join(t.TempDir(), "plugin.hcl")
			writeFile(t, config, fmt.Sprintf("fault = %q\n", fault))
			junit := filepath.Join(t.TempDir(), "junit.xml")
			code, out, errs := check(t, path, "--config", config, "--output", "json", "--junit", junit, "--only", sentence)
			var answer struct {
				Cases []struct {
					Name     string
					Failures []string
				}
				Failed int
			}
			if err := json.Unmarshal([]byte(out), &answer); err != nil {
				t.Fatalf("%v: %s %s", err, out, errs)
			}
			i := slices.IndexFunc(answer.Cases, func(c struct {
				Name     string
				Failures []string
			},
			) bool {
				return c.Name == sentence
			})
			if i < 0 || len(answer.Cases[i].Failures) == 0 {
				t.Errorf("it does not name the sentence %q: %s", sentence, out)
			}
			if code != exitError || answer.Failed == 0 || !strings.Contains(errs, "of the contract") {
				t.Errorf("exit code %d, %d failures, %s", code, answer.Failed, errs)
			}
			if b, err := os.ReadFile(junit); err != nil || !strings.Contains(string(b), "<failure") {
				t.Errorf("%v: %s", err, b)
			}
		})
	}
}

// TestCheckOfNoDriver says what is wrong with what cannot be checked.
func TestCheckOfNoDriver(t *testing.T) {
	config := filepath.Join(t.TempDir(), "plugin.hcl")
	writeFile(t, config, "fautl = \"none\"\n")
	for name, tt := range map[string]struct {
		args []string
		code int
		text string
	}{
		"nothing there":   {[]string{"/nowhere/driver"}, exitNotFound, "/nowhere/driver"},
		"a module":        {[]string{writeTemp(t, "lru.wasm")}, exitError, "only drivers"},
		"no plugin":       {[]string{"/bin/true"}, exitError, "/bin/true"},
		"misspelt option": {[]string{buildPlugin(t, "./testdata/wrongdriver"), "--config", config}, exitUsage, `plugin.hcl:1,1`},
		"no such file":    {[]string{"/bin/true", "--config", config + "x"}, exitUsage, "plugin.hclx"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := check(t, tt.args...)
			if code != tt.code || out != "" || !strings.Contains(errs, tt.text) {
				t.Errorf("exit code %d, %s %s", code, out, errs)
			}
		})
	}
}
