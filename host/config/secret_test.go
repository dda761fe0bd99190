package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

// The canaries are values that no option takes as it stands, or that another
// check refuses. Each has a mark in it that no message may have.
var canaries = []string{
	"kanarienvogel", "kanarienvogel\n\"x\"\x01", "7130713", "-7130713h", "7130713d", "7130713XB", "1ms7130713",
	"2001-07-13T07:13:07Z", "07130713", "7130713 * * * *",
	"kanarienvogel:80:80", "/kanarienvogel/../", "/v1/kanarienvogel/", "../kanarienvogel", "kanarienvogel\x00",
	"http://kanarienvogel.example/a/b?c", "http://user:kanarienvogel@h/", "ftp://kanarienvogel",
	"/" + strings.Repeat("kanarienvogel", 20), "0.7130713", "71307130713TiB", "713071h", "",
}

var marks = []string{"kanarienvogel", "7130713", "71307", "2001-07-13"}

// forms are the ways in which an option may be made of a value that is read.
var forms = []string{
	`env("CANARY")`, `file("canary")`, `"${env("CANARY")}"`, `[env("CANARY")]`, `[env("CANARY"), env("CANARY")]`,
	`{ x = env("CANARY") }`, `{ (env("CANARY")) = "x" }`, `{ (env("CANARY")) = 1, (env("CANARY")) = 2 }`,
	`{ for x in ["a", "b"] : env("CANARY") => x }`, `{ a = 1 }[env("CANARY")]`, `env(env("CANARY"))`, `file(env("CANARY"))`,
	`env(file("canary"), 1, 2)`, `env("CANARY") + 1`, `env("CANARY") ? 1 : 2`, `upper(env("CANARY"))`,
}

// TestDiagnosticsShowNoSecrets gives every option values of env() and file() that
// are wrong in many ways, alone and in two blocks at once. What is said shows the
// expression and no part of a value.
func TestDiagnosticsShowNoSecrets(t *testing.T) {
	dir := t.TempDir()
	said := map[string]bool{}
	for n, canary := range canaries {
		if strings.Contains(canary, "\x00") {
			canary = "kanarienvogel" // an environment has no zero bytes
		}
		t.Setenv("CANARY", canary)
		if err := os.WriteFile(filepath.Join(dir, "canary"), []byte(canary), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range places() {
			for _, a := range p.body.args {
				for i, form := range forms {
					if i > 1 && n%8 != 0 { // the forms do not depend on the value
						continue
					}
					option := p.name + "." + a.name
					text := withOption(p, a.name, form)
					for _, words := range saidOf(dir, text) {
						said[option] = said[option] || strings.Contains(words, "CANARY") || strings.Contains(words, "canary")
						for _, mark := range marks {
							if strings.Contains(words, mark) {
								t.Fatalf("%s of %s, value %q: shown in\n%s", form, option, canary, words)
							}
						}
					}
				}
			}
		}
	}
	for _, p := range places() {
		for _, a := range p.body.args {
			if !said[p.name+"."+a.name] {
				t.Errorf("nothing was said of %s.%s; the test must have a value that it does not take", p.name, a.name)
			}
		}
	}
}

// withOption is a configuration with two blocks that have the option.
func withOption(p place, option, expr string) string {
	var b strings.Builder
	path := strings.Split(p.name, " / ")
	if path[0] == "" {
		return option + " = " + expr + "\n" + others("")
	}
	head := strings.Fields(path[0])
	for i := range 2 {
		line := option + " = " + expr
		for n := len(path) - 1; n > 0; n-- {
			line = fmt.Sprintf("%s {\n%s\n}", path[n], line)
		}
		labels := strings.Join(head[1:], " ")
		switch head[0] {
		case "cache":
			labels = `"default"`
		case "node", "log", "shutdown":
		default:
			labels += fmt.Sprintf(` "n%d"`, i)
		}
		fmt.Fprintf(&b, "%s %s {\n%s\n%s}\n", head[0], labels, line, companions(path, option))
		if head[0] == "cache" || labels == "" {
			break
		}
	}
	return b.String() + others(head[0])
}

// companions are the options with which another one is compared.
func companions(path []string, option string) string {
	switch {
	case option == "max_size":
		return "dir = \"/c\"\nmax_image_size = 9223372036854775807\n"
	case path[0] == "cache" && option != "dir":
		return "dir = \"/c\"\n"
	case option == "run":
		return "every = \"1s\"\n"
	case path[0] == "schedule" && option != "every":
		return "every = \"1s\"\nrun = [\"prune\"]\n"
	case path[0] == "schedule":
		return "jitter = \"24000000h\"\nrun = [\"prune\"]\n"
	}
	return ""
}

// others makes the rest of a configuration that is right.
func others(block string) string {
	text := ""
	for _, b := range []struct{ name, text string }{
		{"listener", "listener \"tcp\" \"l\" {\n address = \"127.0.0.1:1\"\n}\n"},
		{"cache", "cache \"default\" {\n dir = \"/c\"\n}\n"},
		{"origin", "origin \"directory\" \"o\" {\n path = \"/o\"\n}\norigin \"directory\" \"p\" {\n path = \"/p\"\n prefix = \"/p/\"\n}\n"},
	} {
		if b.name != block || block == "origin" {
			text += b.text
		}
	}
	return text
}

// saidOf returns all that is said of a configuration.
func saidOf(dir, text string) []string {
	c, err := load([]source{{"test.hcl", dir, []byte(text)}})
	if err != nil {
		return []string{err.Error(), err.(*Diagnostics).Brief()}
	}
	if c.Warnings != nil {
		return []string{c.Warnings.Error()}
	}
	return nil
}

// TestComparedOptionsShowNoSecrets has messages that show another option than the
// one they are about.
func TestComparedOptionsShowNoSecrets(t *testing.T) {
	for name, test := range map[string]struct{ value, text, about string }{
		"origin inside the cache": {"/kanarienvogel", "cache \"default\" {\n dir = env(\"CANARY\")\n}\norigin \"directory\" \"in\" {\n path = \"/kanarienvogel/x\"\n prefix = \"/in/\"\n}\n" + others("cache"), "Origin inside the cache"},
		"trace inside the cache":  {"/kanarienvogel", "cache \"default\" {\n dir = env(\"CANARY\")\n trace {\n path = \"${env(\"CANARY\")}/x\"\n}\n}\n" + others("cache"), "Trace inside the cache"},
		"admin socket":            {"/kanarienvogel/" + strings.Repeat("x", 100), "node {\n run_dir = env(\"CANARY\")\n}\n" + others(""), "Path of a socket too long"},
		"open images":             {"127.0.0.1:7130", "listener \"tcp\" \"t\" {\n address = env(\"CANARY\")\n}\norigin \"http\" \"h\" {\n endpoint = \"http://h/\"\n prefix = \"/h/\"\n headers = { Authorization = \"x\" }\n}\n" + others(""), "Private images are open"},
		"keyring":                 {"/kanarienvogel", "origin \"directory\" \"k\" {\n path = \"/k\"\n prefix = \"/k/\"\n checksums {\n file = \"SUMS\"\n signature {\n keyring = env(\"CANARY\")\n}\n}\n}\n" + others(""), "Unreadable keyring"},
	} {
		t.Setenv("CANARY", test.value)
		words := strings.Join(saidOf("/", test.text), "\n")
		if !strings.Contains(words, test.about) || !strings.Contains(words, `env("CANARY")`) {
			t.Errorf("%s: said is %s", name, words)
		}
		for line := range strings.Lines(words) {
			if (strings.Contains(line, "kanarienvogel") || strings.Contains(line, "7130")) && !strings.Contains(line, " | ") { // the line of the file itself
				t.Errorf("%s: shown in %s", name, line)
			}
		}
	}
}

// TestPluginOptionsShowNoSecrets has options that the host and the plugin refuse.
func TestPluginOptionsShowNoSecrets(t *testing.T) {
	t.Setenv("CANARY", "kanarienvogel \"7\"")
	c := parse(t, strings.Replace(smallest, `dir = "images"`, "dir = \"images\"\n  driver = driver.local", 1)+
		"driver \"sqlite\" \"local\" {\n  config {\n    a = env(\"CANARY\")\n    b = \"x\"\n  }\n}\n")
	for _, kind := range []sdk.OptionType{sdk.TypeNumber, sdk.TypeBool, sdk.TypeDuration, sdk.TypeSize} {
		_, err := c.Cache.Driver.Decode([]sdk.Option{{Name: "a", Type: kind}, {Name: "b", Type: sdk.TypeString}})
		if err == nil || strings.Contains(err.Error(), "kanarienvogel") || !strings.Contains(err.Error(), `env("CANARY")`) {
			t.Errorf("option of type %s: %v", kind, err)
		}
	}
	options, err := c.Cache.Driver.Decode([]sdk.Option{{Name: "a", Type: sdk.TypeString}, {Name: "b", Type: sdk.TypeString}})
	if err != nil {
		t.Fatal(err)
	}
	refused := c.Cache.Driver.Refused(errors.New("no database " + options["a"] + " for " + fmt.Sprintf("%q", options["a"])))
	if words := refused.Error(); strings.Contains(words, "kanarienvogel") || !strings.Contains(words, `No database (env("CANARY")) for "(env("CANARY"))".`) {
		t.Errorf("refused by the plugin:\n%s", words)
	}
}

// TestMissingFileOfAPluginShowsNoSecret names a file by a value that is read.
func TestMissingFileOfAPluginShowsNoSecret(t *testing.T) {
	t.Setenv("CANARY", "/kanarienvogel")
	for _, option := range []string{"command", "wasm"} {
		c := parse(t, smallest+"plugin \"lru\" {\n kind = \"policy\"\n "+option+" = env(\"CANARY\")\n}\n")
		if words := c.Cache.Policy.Missing(c.Plugins[0]).Error(); strings.Contains(words, "kanarienvogel") || !strings.Contains(words, `names the file env("CANARY"), which`) {
			t.Errorf("%s: %s", option, words)
		}
	}
}

// TestUnsetVariableIsNamed has what may be said: the names in the configuration.
func TestUnsetVariableIsNamed(t *testing.T) {
	words := strings.Join(saidOf("/", "plugin_dir = env(\"IMGCACHE_TEST_UNSET\")\n"+others("")), "\n")
	if !strings.Contains(words, "the environment variable IMGCACHE_TEST_UNSET is not set") {
		t.Errorf("said is %s", words)
	}
}
