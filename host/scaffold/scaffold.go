// Package scaffold starts a new plugin: it writes one of the examples to a
// directory, under a name that the author chooses.
package scaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/imgcache/imgcache-host/pluginproto"
	"github.com/imgcache/imgcache-host/plugins/examples"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	module = "github.com/imgcache/imgcache-host"
	// inCheckout is where the examples find the contract, and contract where
	// a new plugin does.
	inCheckout = "../../../pluginproto"
	contract   = "contract"
)

// Plugin says which plugin to write.
type Plugin struct {
	Name     string
	Language string
	Kind     sdk.Kind
	Version  string // of the host, whose library a plugin in Go is built with
}

// template is an example that can become another plugin.
type template struct {
	language string
	kind     sdk.Kind
	name     string   // of the example
	contract []string // what it needs of the contract
}

// dir is where the example is.
func (t template) dir() string { return t.language + "-" + string(t.kind) }

var (
	abi       = []string{"abi/ABI.md", "abi/imgcache_policy.h"}
	protos    = []string{"imgcache/plugin/v1/plugin.proto", "imgcache/plugin/v1/driver.proto"}
	templates = []template{
		{"go", sdk.KindPolicy, "cheap-first", nil},
		{"go", sdk.KindDriver, "onefile", nil},
		{"c", sdk.KindPolicy, "half-life", abi},
		{"rust", sdk.KindPolicy, "slru", abi[:1]},
		{"assemblyscript", sdk.KindPolicy, "density", abi[:1]},
		{"python", sdk.KindDriver, "ledger", protos},
	}
)

// Choices returns the languages and kinds of the templates, each as in "rust
// policy".
func Choices() []string {
	var all []string
	for _, t := range templates {
		all = append(all, t.language+" "+string(t.kind))
	}
	return all
}

// Write makes the directory, which must not exist, and writes the plugin into
// it. The error wraps [sdk.ErrInvalid] when there is no template for it, the
// name is not valid, or the directory exists.
func Write(dir string, p Plugin) error {
	if !sdk.ValidName(p.Name) {
		return fmt.Errorf("%w: the name %q: expected a lower-case letter, then up to 63 lower-case letters, digits, - or _", sdk.ErrInvalid, p.Name)
	}
	i := slices.IndexFunc(templates, func(t template) bool { return t.language == p.Language && t.kind == p.Kind })
	if i < 0 {
		return fmt.Errorf("%w: there is no template for a %s in %q; the choices are %s", sdk.ErrInvalid, p.Kind, p.Language, strings.Join(Choices(), ", "))
	}
	files, err := templates[i].files(p)
	if err != nil {
		return fmt.Errorf("read the template: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s exists already and is left as it is", sdk.ErrInvalid, dir)
	} else if err != nil {
		return err
	}
	for name, text := range files {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// files returns the text of each file of the plugin.
func (t template) files(p Plugin) (map[string]string, error) {
	files := map[string]string{}
	entries, err := examples.Files.ReadDir(t.dir())
	for _, e := range entries {
		text, unread := examples.Files.ReadFile(path.Join(t.dir(), e.Name()))
		files[e.Name()] = t.rename(string(text), p.Name)
		err = errors.Join(err, unread)
	}
	for _, name := range t.contract {
		text, unread := pluginproto.Contract.ReadFile(name)
		files[path.Join(contract, name)] = string(text)
		err = errors.Join(err, unread)
	}
	if t.language == "go" {
		files["go.mod"] = goMod(p)
	}
	return files, err
}

// rename gives the text of an example the name of the plugin.
func (t template) rename(text, name string) string {
	old := regexp.MustCompile(`\b(` + regexp.QuoteMeta(t.name) + `|` + regexp.QuoteMeta(t.dir()) + `)\b`)
	return old.ReplaceAllString(strings.ReplaceAll(text, inCheckout, contract), name)
}

// goMod names the library of a released host; the go command adds the rest,
// and finds the latest release when the host is not a release itself.
func goMod(p Plugin) string {
	text := "module " + p.Name + "\n\ngo 1.26\n"
	if semver.IsValid(p.Version) && semver.Prerelease(p.Version) == "" {
		text += "\nrequire " + module + " " + p.Version + "\n"
	}
	return text
}
