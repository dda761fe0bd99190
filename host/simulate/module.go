package simulate

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/sdk"
)

// Module returns the policy that text names: FILE.wasm, or the NAME of a module
// in one of the directories. Options may follow, as in gdsf?cost=byte; sizes
// among them are in bytes. The module runs in this process, once for each
// instance; its compiled code is kept in the directory compiled.
func Module(text string, dirs []string, compiled string) (Policy, error) {
	name, query, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return Policy{}, fmt.Errorf("%w: the options of %s: %w", sdk.ErrInvalid, name, err)
	}
	path, err := find(name, dirs)
	if err != nil {
		return Policy{}, err
	}
	code, err := os.ReadFile(path)
	if err != nil {
		return Policy{}, err
	}
	label := strings.TrimSuffix(filepath.Base(name), ".wasm")
	if query != "" {
		label += "?" + query
	}
	return Policy{Name: label, Open: func(ctx context.Context) (any, func(), error) {
		m, err := wasm.Load(ctx, code, wasm.Options{CacheDir: compiled, Interruptible: true})
		if err != nil {
			return nil, nil, fmt.Errorf("load %s: %w", path, err)
		}
		end := func() { _ = m.Close(context.WithoutCancel(ctx)) }
		options, err := optionsOf(m.Manifest(), values)
		if err == nil {
			err = m.Configure(ctx, sdk.Settings{Options: options})
		}
		if err != nil {
			end()
			return nil, nil, fmt.Errorf("configure %s: %w", name, err)
		}
		return m.Plugin(), end, nil
	}}, nil
}

func find(name string, dirs []string) (string, error) {
	if strings.HasSuffix(name, ".wasm") {
		return name, nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name+".wasm")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("policy %s: %w: no %s.wasm in %s", name, sdk.ErrNotFound, name, strings.Join(dirs, ", "))
}

// optionsOf checks values against the options that the policy declares, and
// adds the defaults.
func optionsOf(m sdk.Manifest, values url.Values) (sdk.Config, error) {
	options := sdk.Config{}
	known := map[string]sdk.Option{}
	for _, o := range m.Options {
		known[o.Name] = o
		if o.Default != "" {
			options[o.Name] = o.Default
		}
	}
	for name := range values {
		o, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("%w: it has no option %q", sdk.ErrInvalid, name)
		}
		options[name] = values.Get(name)
		if err := o.Check(options[name]); err != nil {
			return nil, err
		}
	}
	for _, o := range m.Options {
		if o.Required && options[o.Name] == "" {
			return nil, fmt.Errorf("%w: it needs the option %s", sdk.ErrInvalid, o.Name)
		}
	}
	return options, nil
}
