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
	"sync"
	"testing"

	"github.com/imgcache/imgcache-host/host/conformance"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// buildPlugin returns the path of the plugin in a directory. Each is built once.
func buildPlugin(t *testing.T, dir string) string {
	t.Helper()
	return buildOnce(t, filepath.Base(dir), nil, dir)
}

// builds has a function for each file that was built, by its name.
var builds sync.Map

// buildOnce returns the path of what go build makes of the arguments. It is
// built by the first test that wants it.
func buildOnce(t *testing.T, name string, env []string, args ...string) string {
	t.Helper()
	build, _ := builds.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		dir, err := shared()
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		cmd := exec.Command("go", append([]string{"build", "-o", path}, args...)...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		return path, nil
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// inMemory returns a directory for the stores of plugins that are checked, in
// memory if that can be: there thousands of files that are synced take no time.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ic")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// check runs plugin check, on a small scale. It leaves nothing behind.
func check(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := inMemory(t)
	var out, errs bytes.Buffer
	a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs}
	code = a.run(t.Context(), append([]string{"plugin", "check", "--dir", dir, "--entries", "3000"}, args...))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v; it leaves %v", err, left)
	}
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
	var suite struct {
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []struct{} `xml:"testcase"`
	}
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
	for fault, name := range map[string]string{
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
		"touches backwards":    "touch never moves the last access back",
		"half of a gap":        "a gap is refused and changes nothing",
		"loses the last":       "a batch is durable when it is acknowledged",
		"hangs":                "list ends with its context",
		"dies":                 "an empty batch has its place in the sequence",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			timeout := "1m"
			if fault == "hangs" {
				timeout = "2s"
			}
			config := filepath.Join(t.TempDir(), "plugin.hcl")
			writeFile(t, config, fmt.Sprintf("fault = %q\n", fault))
			junit := filepath.Join(t.TempDir(), "junit.xml")
			code, out, errs := check(t, path, "--config", config, "--output", "json", "--junit", junit, "--timeout", timeout, "--only", name)
			var answer struct {
				Cases  []conformance.Case
				Failed int
			}
			if err := json.Unmarshal([]byte(out), &answer); err != nil {
				t.Fatalf("%v: %s %s", err, out, errs)
			}
			i := slices.IndexFunc(answer.Cases, func(c conformance.Case) bool { return c.Name == name })
			if i < 0 || len(answer.Cases[i].Failures) == 0 || answer.Cases[i].Sentence != sdktest.Sentence(name) {
				t.Errorf("it does not name the case %q and its sentence: %s", name, out)
			}
			if code != exitError || answer.Failed == 0 || !strings.Contains(errs, "breaks the contract") {
				t.Errorf("exit code %d, %d failures, %s", code, answer.Failed, errs)
			}
			if b, err := os.ReadFile(junit); err != nil || !strings.Contains(string(b), "<failure message=") {
				t.Errorf("%v: %s", err, b)
			}
		})
	}
}

// TestCheckSaysWhatIsBroken: people read the sentence of the contract, and what
// was seen.
func TestCheckSaysWhatIsBroken(t *testing.T) {
	config := filepath.Join(t.TempDir(), "plugin.hcl")
	writeFile(t, config, "fault = \"fails on absent\"\n")
	path := buildPlugin(t, "./testdata/wrongdriver")
	code, out, errs := check(t, path, "--config", config, "--only", "absent id")
	for _, line := range []string{
		"BROKEN  delete of an absent id is no error  (", "        contract: An absent id is no error.\n",
		"        seen: Apply(batch 1 of 1 operations) = ", "ok      touch of an absent id creates nothing  (",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in:\n%s", line, out)
		}
	}
	if code != exitError || !strings.Contains(errs, "breaks the contract: 1 of 2 cases failed") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	code, out, errs = check(t, path, "--only", "no such case")
	if code != exitError || out != "" || !strings.Contains(errs, "no case has a name that contains the text of --only") {
		t.Errorf("exit code %d, %s %s", code, out, errs)
	}
}

// TestCheckPolicies holds a shipped policy to its contract, and finds what is
// wrong with modules that break it.
func TestCheckPolicies(t *testing.T) {
	t.Parallel()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "imgcache-host"), append([]string{"plugin", "check", "--dir", inMemory(t)}, args...)...)
		cmd.Env = append(os.Environ(), quietRace)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(filepath.Join(dir, "plugins", "lru.wasm"), "--budget", "1m")
	if err != nil || strings.Contains(out, "BROKEN") || !strings.Contains(out, "ok      the largest batch is answered within the budget") {
		t.Errorf("%v: %s", err, out)
	}
	for module, name := range map[string]string{
		"nan": "records are scored one by one", "trap": "no records have no scores", "foreign": "an empty cache has nothing to propose",
		"forget": "no events are no error", "abort": "records are scored one by one", "missing": "", "import": "", "oldabi": "",
	} {
		t.Run(module, func(t *testing.T) {
			out, err := run(filepath.Join("../../testdata/wasm", module+".wasm"), "--only", name)
			if err == nil {
				t.Fatalf("it passes: %s", out)
			}
			broken := "BROKEN  " + name + "  ("
			if name == "" {
				broken = "load " // it is not even started
			}
			if !strings.Contains(out, broken) {
				t.Errorf("no %q in:\n%s", broken, out)
			}
		})
	}
}

// TestBench measures a policy and a driver.
func TestBench(t *testing.T) {
	t.Parallel()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	for plugin, things := range map[string][]string{
		"lru.wasm":               {"start and configure", "score 65536 records"},
		"sieve.wasm":             {"observe 1000 accesses", "select 3276 of 65536 images", "restore, in bytes"},
		"imgcache-driver-sqlite": {"apply 1000 touches", "list 2000 records"},
	} {
		t.Run(plugin, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "imgcache-host"), "plugin", "bench", "--time", "20ms", "--entries", "2000",
				"--output", "json", filepath.Join(dir, "plugins", plugin))
			cmd.Env = append(os.Environ(), quietRace)
			out, err := cmd.Output()
			var answer struct{ Measures []conformance.Measure }
			if err == nil {
				err = json.Unmarshal(out, &answer)
			}
			for _, thing := range things {
				if !slices.ContainsFunc(answer.Measures, func(m conformance.Measure) bool { return m.Name == thing && m.Calls > 0 && m.Median > 0 }) {
					t.Errorf("%v; %s was not measured: %s", err, thing, out)
				}
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
