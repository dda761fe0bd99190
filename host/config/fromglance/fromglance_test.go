package fromglance

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb"
	"github.com/imgcache/imgcache-host/plugins/builtin/sqlite"
	"github.com/imgcache/imgcache-host/plugins/builtin/xattr"
	"github.com/imgcache/imgcache-host/sdk"
)

var update = flag.Bool("update", false, "rewrite the expected files")

// load reads a translation as serve would.
func load(t *testing.T, path string, hcl []byte) (*config.Config, error) {
	t.Helper()
	if err := os.WriteFile(path, hcl, 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load([]string{path})
}

// drivers are those that ship, with their options.
var drivers = map[string][]sdk.Option{
	"sqlite": sqlite.Manifest.Options, "xattr": xattr.Manifest.Options, "centraldb": centraldb.Manifest.Options,
}

// TestTranslate compares the translations of configurations as they are
// installed by Debian, Kolla and Puppet, and of some that are rarer, with the
// expected ones. Each is valid, and no password is in it.
func TestTranslate(t *testing.T) {
	t.Setenv(originVariable, "https://images.example/")
	t.Setenv(dsnVariable, "mysql://a:b@c/d")
	inputs, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("%d configurations of Glance are found, %v", len(inputs), err)
	}
	for _, input := range inputs {
		made, err := Translate([]string{input})
		if err != nil {
			t.Errorf("%s: %v", input, err)
			continue
		}
		got := string(made.HCL) + "\n" + strings.Join(made.Notes, "\n") + "\n"
		wantFile := strings.TrimSuffix(input, ".conf") + ".want"
		if *update {
			if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(wantFile)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", input, diff)
		}
		if strings.Contains(got, "canary") {
			t.Errorf("%s: a password is in the translation", input)
		}
		c, err := load(t, filepath.Join(t.TempDir(), "made.hcl"), made.HCL)
		if err != nil {
			t.Errorf("%s: %v", input, err)
			continue
		}
		if c.Warnings != nil {
			t.Errorf("%s: %v", input, c.Warnings)
		}
		if _, err := c.Cache.Driver.Decode(drivers[c.Cache.Driver.Plugin]); err != nil {
			t.Errorf("%s: options that the driver does not have: %v", input, err)
		}
	}
}

// TestTranslationIsRight looks at a configuration that came from a Glance, read
// back.
func TestTranslationIsRight(t *testing.T) {
	made, err := Translate([]string{"testdata/kolla.conf", "testdata/puppet.conf"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, filepath.Join(t.TempDir(), "made.hcl"), made.HCL)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(c.Node.Name, c.Cache.Dir, c.Cache.MaxSize, c.Cache.StallTime, c.Cache.Driver.Plugin, c.Origins[0].Type, c.Origins[0].Path)
	want := fmt.Sprintln("10.0.0.11", "/var/lib/glance/image-cache", 10<<30, "12h0m0s", "sqlite", "directory", "/var/lib/glance/images")
	if got != want {
		t.Errorf("read back:\n%swant\n%s", got, want)
	}
}

// TestRefusals translates what nothing can be made of. Each error names file
// and line.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"[DEFAULT]\nimage_cache_dir", "x.conf:2: there is no = or : in this line"},
		{"image_cache_dir = /x", "x.conf:1: the option image_cache_dir stands in no section; write [DEFAULT] above it"},
		{"[DEFAULT\n", "x.conf:1: a section must end with ]"},
		{"[]\n", "x.conf:1: a section must have a name, such as [DEFAULT]"},
		{"[DEFAULT]\n= 1\n", "x.conf:2: there is no name in front of the ="},
		{"[DEFAULT]\n a = b\n", "x.conf:2: a line that begins with a space continues the value above it, and there is none; remove the space"},
		{"[DEFAULT]\na = b\n# c\n d\n", "x.conf:4: a line that begins with a space continues the value above it, and there is none; remove the space"},
		{"[DEFAULT]\nimage_cache_dir = \xff\n", "x.conf:2: this is not UTF-8 text"},
		{"[DEFAULT]\nimage_cache_dir = cache\n", "x.conf:2: image_cache_dir: expected a path that begins with /"},
		{"[DEFAULT]\nimage_cache_dir = $state_path/cache\n", "x.conf:2: image_cache_dir: it refers to $state_path, which is not set; set it, or write $$ for a dollar sign"},
		{"[DEFAULT]\nimage_cache_dir = /$a\na = $b\nb = $a\n", "x.conf:3: a: it refers to itself, or to too many others"},
		{"[DEFAULT]\nimage_cache_max_size = 10G\nimage_cache_stall_time = -1\n", "x.conf:2: image_cache_max_size: expected a whole number from 0 to 2^63-1\nx.conf:3: image_cache_stall_time: expected a whole number from 0 to 2^63-1"},
		{"[DEFAULT]\nimage_cache_driver = redis\n", `x.conf:2: image_cache_driver: "redis" is not a driver of Glance; expected centralized_db, sqlite or xattr`},
		{"[DEFAULT]\nimage_cache_driver = centralized_db\n[database]\nconnection = mysql://a@b/c\n", "the driver centralized_db knows a node by worker_self_reference_url, which is not set in these files; name the file that has it too"},
		{"[DEFAULT]\nimage_cache_driver = centralized_db\nworker_self_reference_url = http://a:1\n", "the driver centralized_db needs [database] connection, which is not set in these files; name the file that has it too"},
		{"[DEFAULT]\nimage_cache_driver = centralized_db\nworker_self_reference_url = http://a:1\n[database]\nconnection = sqlite:////glance.db\n", `x.conf:5: [database] connection: the driver centraldb supports MySQL, MariaDB and PostgreSQL, not "sqlite"`},
		{"[DEFAULT]\nworker_self_reference_url = node:9292\n", "x.conf:2: worker_self_reference_url: expected a URL such as http://host:9292"},
		{"[DEFAULT]\nenabled_backends = a:file\n[glance_store]\ndefault_backend = b\n", "x.conf:4: [glance_store] default_backend: there is no such store in enabled_backends (x.conf:2)"},
		{"[glance_store]\nfilesystem_store_datadirs = /a:high\n", "x.conf:2: [glance_store] filesystem_store_datadirs: expected PATH:PRIORITY, where the priority is a whole number"},
	} {
		options, err := parse("x.conf", tc.text)
		if err == nil {
			_, err = translate([]string{"x.conf"}, options)
		}
		if err == nil || err.Error() != tc.want {
			t.Errorf("%q: %v, want %s", tc.text, err, tc.want)
		}
	}
}

// TestManyReferences gives a value that would be as long as 2^40 others.
func TestManyReferences(t *testing.T) {
	text := "[DEFAULT]\nimage_cache_dir = /$a0\n"
	for i := range 40 {
		text += fmt.Sprintf("a%d = $a%d$a%d\n", i, i+1, i+1)
	}
	options, err := parse("x.conf", text+"a40 = x\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := translate([]string{"x.conf"}, options); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("translate: %v, want an error", err)
	}
}

// TestUnsetDriver takes the driver that Glance would have without being told.
func TestUnsetDriver(t *testing.T) {
	const url, mysql, lite = "worker_self_reference_url = http://a:1\n", "[database]\nconnection = mysql://a@b/c\n", "[database]\nconnection = sqlite:////x\n"
	for text, want := range map[string]string{
		"": "sqlite", mysql: "sqlite", url: "sqlite", url + lite: "sqlite", url + mysql: "centraldb",
	} {
		options, err := parse("x.conf", "[DEFAULT]\n"+text)
		if err != nil {
			t.Fatal(err)
		}
		made, err := translate([]string{"x.conf"}, options)
		if err != nil || !strings.Contains(string(made.HCL), fmt.Sprintf("driver %q", want)) {
			t.Errorf("%q: %v, want the driver %s in\n%s", text, err, want, made.HCL)
		}
	}
}

// dialects are files that oslo.config reads, or refuses, in ways of its own.
var dialects = [][]string{
	{"[DEFAULT]\na = 1\nb=2\nc:3\nd = e = f\ne : = g\n"},
	{"[DEFAULT]\na = 1\n[g]\na = 2\n[DEFAULT]\na = 3\n[G]\nb = 4\n[default]\na = 5\n"},
	{"[DEFAULT]\na = 1\na = 2\n", "[DEFAULT]\na = 3\n[x]\ny = 1\n", "[DEFAULT]\nb = 4\n"},
	{"[DEFAULT]\na = 1\n  2\n\t3  \nb =\n  4\n  # no comment\n\n; a comment\n#b = 5\n"},
	{"[DEFAULT]\na = 'x'\nb = \"y\nc = ' z '\nd = \"\ne = 'x\"\nf = ''\ng =\nh = \"x\" \"y\"\n"},
	{"[DEFAULT]\r\na = 1\r\nb = 2\rc = 3\n  4\r\n"},
	{"[DEFAULT]\na = \u00a0 x \u2003\nb\u00a0= \x1c y \x1f\nc = d\x0c\x0be\u0085f\n"},
	{"[DEFAULT]\na = 1\n\n  2\n"},
	{"  a = 1\n"},
	{"[DEFAULT]\n[x\n"},
	{"[]\n"},
	{"[]]\n[ ]\n"},
	{"[DEFAULT]\n\n=1\n"},
	{"[DEFAULT]\nnothing\n"},
	{"[DEFAULT]\na = 1\n# c\n 2\n"},
	{"#[DEFAULT]\n\n[DEFAULT] \na = ä €\n[x]#\n"},
	{"[DEFAULT]\na = 1\nb = $a ${a} $$a \\$a ${a $ $1 $-a ${}\n"},
	{"[DEFAULT]\na = 1\nb = $g.a ${g.a}\n[g]\na = 2\nc = $a $b\n"},
	{"[DEFAULT]\na = $b\nb = $a\n"},
	{"[DEFAULT]\na = x$a\n"},
	{"[DEFAULT]\na = $b\nb = $c\nc = $d$d\nd = '$$e'\n"},
	{"[DEFAULT]\na = 1\nb = $A\n"},
	{"[DEFAULT]\na = ${b}\n"},
	{"[DEFAULT]\na = $g.b\n[g]\na = 1\n"},
	{"[DEFAULT]\na = $G.a\n[G]\na = 1\n"},
	{""},
	{"\n\n"},
	{"[DEFAULT]\na = \\\n  b\n"},
}

// TestAsOslo reads files as oslo.config itself does, which the package
// python3-glance brings.
func TestAsOslo(t *testing.T) {
	in, err := json.Marshal(dialects)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/oslo.py")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("oslo.config (package python3-glance): %v\n%s", err, exit.Stderr)
	}
	var answers []any
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(dialects) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for i, texts := range dialects {
		if diff := cmp.Diff(answers[i], read(texts)); diff != "" {
			t.Errorf("%q: -oslo.config +here:\n%s", texts, diff)
		}
	}
}

// read is what oslo.py does, with the code of this package.
func read(texts []string) any {
	var all settings
	for _, text := range texts {
		found, err := parse("x", text)
		if err != nil {
			return lineOf(err)
		}
		all = append(all, found...)
	}
	values := map[string]any{}
	for _, s := range all {
		s, _ = all.last(s.section, s.option)
		e := expander{settings: all}
		values[s.section+" "+s.option] = e.expand(s)
		if e.err != nil || len(e.unknown) > 0 {
			return 0.0
		}
	}
	return values
}

var lineNumber = regexp.MustCompile(`^x:(\d+): `)

// lineOf is the number of the line in an error, as JSON has it.
func lineOf(err error) any {
	var n float64
	if m := lineNumber.FindStringSubmatch(err.Error()); m != nil {
		_, _ = fmt.Sscan(m[1], &n)
	}
	return n
}

// FuzzTranslate checks that whatever is accepted becomes a valid configuration,
// and that whatever is no INI is refused with its line.
func FuzzTranslate(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, input := range inputs {
		text, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, texts := range dialects {
		f.Add(texts[0])
	}
	f.Setenv(originVariable, "https://images.example/")
	path := filepath.Join(f.TempDir(), "made.hcl")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return // longer ones find nothing new
		}
		options, err := parse("x", text)
		if err != nil {
			if lineOf(err).(float64) < 1 {
				t.Fatalf("no place: %v", err)
			}
			return
		}
		made, err := translate([]string{"x"}, options)
		if err != nil {
			return
		}
		if c, err := load(t, path, made.HCL); err != nil || c.Cache.Dir == "" {
			t.Fatalf("%v in:\n%s", err, made.HCL)
		}
	})
}
