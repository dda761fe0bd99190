package config

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// computed are the options whose default depends on the machine or stands for
// something, with what the example says of it instead of a value.
var computed = map[string]string{
	"plugin_dir":                "none",
	"plugin_lock":               "plugins.lock.json beside the first configuration file, if it exists at the start",
	"node.name":                 "the name of the host",
	"node.advertise":            "none",
	"node.data_dir":             "/var/lib/imgcache for root, else ~/.local/share/imgcache",
	"node.run_dir":              "/run/imgcache for root, else $XDG_RUNTIME_DIR/imgcache",
	`listener "tcp".token_file`: "none",
	`listener "tcp".auth_file`:  "none",
	`listener "unix".group`:     "the group of the service",
	"cache.driver":              "the driver sqlite with its own defaults",
	"cache.policy":              "the policy lru with its own defaults",
	"cache.shadow":              "none",
	`origin "s3".key_prefix`:    "none",
	`origin "s3".region`:        "the server is asked",
	`origin "s3".path_style`:    "as is usual for the endpoint",
	`origin "s3".access_key`:    "none",
	`origin "s3".secret_key`:    "none",
	`origin "peer".token_file`:  "none",
	"pin.until":                 "for ever",
	"schedule.cron":             "none",
	"schedule.every":            "none",
	"plugin.command":            "searched by the name of the plugin",
	"plugin.wasm":               "searched by the name of the plugin",
	"plugin.sha256":             "not checked",
	"plugin.limits.memory":      "72MiB for a module; programs are not limited",
	"plugin.limits.timeout":     "30s for a driver, 5s for a policy",
	"plugin.limits.state":       "128MiB",

	`origin "directory".checksums.signature.file`: "the signature is within the list",
	`origin "http".checksums.signature.file`:      "the signature is within the list",
	`origin "s3".checksums.signature.file`:        "the signature is within the list",
}

// TestExampleIsComplete checks that config.hcl.example holds every option of
// the language, and says the default that the option really has.
func TestExampleIsComplete(t *testing.T) {
	said := exampleDefaults(t)
	for _, p := range places() {
		for _, a := range p.body.args {
			name := strings.TrimPrefix(strings.ReplaceAll(p.name, " / ", ".")+"."+a.name, ".")
			want := "Default: " + a.into.String() + "."
			if text, ok := computed[name]; ok {
				want = "Default: " + text + "."
			}
			if a.required {
				want = "Required."
			}
			got, ok := said[name]
			if !ok {
				t.Errorf("%s: not in the example", name)
			} else if got != want {
				t.Errorf("%s: the example says %q, want %q", name, got, want)
			}
			delete(said, name)
		}
	}
	for name := range said {
		t.Errorf("%s: the example documents what is no option", name)
	}
}

// TestExampleLoads checks that the example is a right configuration.
func TestExampleLoads(t *testing.T) {
	keyring, err := filepath.Abs(filepath.Join("..", "..", "testdata", "signed", "keyring.gpg"))
	if err != nil {
		t.Fatal(err)
	}
	// The keyring is read, and that of the example is on nobody's machine.
	text := bytes.ReplaceAll(example(t), []byte("/etc/imgcache/keys/publisher.gpg"), []byte(keyring))
	c, err := load([]source{{"config.hcl.example", "/etc/imgcache", text}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Warnings != nil {
		t.Errorf("warnings:\n%v", c.Warnings)
	}
	if c.Cache.Driver.Name != "local" || c.Cache.Policy.Name != "recent" || len(c.Origins) != 3 || len(c.Plugins) != 2 {
		t.Errorf("%+v", c)
	}
}

func example(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "config.hcl.example"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// statement is the last line of the comment above an option, if it says the
// default.
var statement = regexp.MustCompile(`# (Default: .*\.|Required\.)$`)

// exampleDefaults returns what the example says of the default of each
// option, by the option's path. An option that stands there a second time
// need not say it again.
func exampleDefaults(t *testing.T) map[string]string {
	t.Helper()
	text := example(t)
	file, diags := hclsyntax.ParseConfig(text, "config.hcl.example", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	lines := strings.Split(string(text), "\n")
	said := map[string]string{}
	var walk func(path string, b *hclsyntax.Body)
	walk = func(path string, b *hclsyntax.Body) {
		for name, a := range b.Attributes {
			key := strings.TrimPrefix(path+"."+name, ".")
			above := lines[a.SrcRange.Start.Line-2]
			if m := statement.FindStringSubmatch(above); m != nil {
				said[key] = m[1]
			} else if said[key] == "" {
				said[key] = ""
			}
		}
		for _, inner := range b.Blocks {
			switch {
			case inner.Type == "config": // the plugin's own
			case inner.Type == "listener" || inner.Type == "origin":
				walk(inner.Type+` "`+inner.Labels[0]+`"`, inner.Body)
			default:
				walk(strings.TrimPrefix(path+"."+inner.Type, "."), inner.Body)
			}
		}
	}
	walk("", file.Body.(*hclsyntax.Body))
	return said
}
