package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBrokenConfiguration starts the service with configurations that cannot
// work. It says where and why, and leaves with the code for that.
func TestBrokenConfiguration(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		replace [2]string // in goodConfig
		line    int
		stderr  []string
	}{
		{"misspelt option", [2]string{"max_size", "max_sise"}, 10, []string{"max_sise", `Did you mean "max_size"?`}},
		{"size without unit", [2]string{`"1GiB"`, `"1"`}, 10, []string{"max_size"}},
		{"unknown block", [2]string{`origin "directory"`, `source "directory"`}, 13, []string{"source"}},
		{"unknown kind of origin", [2]string{`"directory"`, `"directori"`}, 13, []string{`"directory"`}},
		{"unfinished block", [2]string{"path = \"files\"\n}", "path = \"files\"\n"}, 13, []string{"losing brace"}},
		{"unknown driver", [2]string{"# more", "driver = driver.local\n}\ndriver \"postgres\" \"local\" {"}, 13, []string{`There is no driver plugin "postgres"`}},
		{"unknown policy", [2]string{"# more", "policy = policy.mine\n}\npolicy \"luru\" \"mine\" {"}, 13, []string{"luru", "lru"}},
		{
			"file of a plugin that is missing",
			[2]string{"# more", "driver = driver.local\n}\nplugin \"mine\" {\nkind = \"driver\"\ncommand = \"/nonexistent/mine\"\n}\ndriver \"mine\" \"local\" {"},
			17,
			[]string{"/nonexistent/mine, which does not exist"},
		},
		{
			"misspelt option of a plugin",
			[2]string{"# more", "driver = driver.local\n}\ndriver \"sqlite\" \"local\" {\nconfig {\nbusy_timeoud = \"5s\"\n}"},
			15,
			[]string{"busy_timeoud", "busy_timeout"},
		},
		{
			"bad value of a plugin's option",
			[2]string{"# more", "driver = driver.local\n}\ndriver \"sqlite\" \"local\" {\nconfig {\nbusy_timeout = \"soon\"\n}"},
			15,
			[]string{"busy_timeout"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			run, err := os.MkdirTemp("/tmp", "ic")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(run) })
			modules, err := compiled()
			if err != nil {
				t.Fatal(err)
			}
			good := fmt.Sprintf(goodConfig, filepath.Dir(modules), run)
			file := filepath.Join(t.TempDir(), "service.hcl")
			writeFile(t, file, strings.Replace(good, tc.replace[0], tc.replace[1], 1))
			code, _, stderr := command(t, "serve", "--config", file)
			if code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			for _, want := range append(tc.stderr, fmt.Sprintf("service.hcl:%d,", tc.line)) {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr lacks %s:\n%s", want, stderr)
				}
			}
		})
	}
}

const goodConfig = `node {
  data_dir = %q
  run_dir  = %q
}
listener "tcp" "public" {
  address = "127.0.0.1:0"
}
cache "default" {
  dir      = "images"
  max_size = "1GiB"
# more
}
origin "directory" "files" {
  path = "files"
}
`
