package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// withManifest is a module that is nothing but a manifest: it cannot be run.
func withManifest(text string) []byte {
	section := append([]byte{byte(len(abi.ManifestSection))}, abi.ManifestSection...)
	section = append(section, text...)
	return append([]byte{0, 'a', 's', 'm', 1, 0, 0, 0, 0, byte(len(section))}, section...)
}

// TestInspect: a manifest that can be read is read, and otherwise the plugin is
// asked.
func TestInspect(t *testing.T) {
	s, dir := newStage(t), t.TempDir()
	declared := filepath.Join(dir, "a.wasm")
	content := withManifest(`{"name":"a","version":"2.0.0","kind":"policy","capabilities":["score"],"requests":["clock"]}`)
	write(t, declared, content)
	info, err := s.Inspect(t.Context(), Spec{Name: "a", Path: declared})
	if err != nil || info.Manifest.Version != "2.0.0" || info.SHA256 != sumOf(content) || info.Runtime != runtimeWasm || info.Path != declared {
		t.Errorf("a module with a section: %+v, %v", info, err)
	}
	if requests := info.Manifest.Requests; len(requests) != 1 || requests[0] != sdk.GrantClock {
		t.Errorf("it requests %q", requests)
	}
	flood := module(t, "flood")
	if info, err = s.Inspect(t.Context(), flood); err != nil || info.Manifest.Name != "flood" || info.SHA256 != sumOf(read(t, flood.Path)) {
		t.Errorf("a module without: %+v, %v", info, err)
	}
	if info, err = s.Inspect(t.Context(), spec("well")); err != nil || info.Manifest.Name != "actor" || info.SHA256 != sumOf(read(t, os.Args[0])) {
		t.Errorf("a program: %+v, %v", info, err)
	}
	if _, err = s.Inspect(t.Context(), Spec{Name: "a", Kind: sdk.KindDriver, Path: declared}); err == nil || !strings.Contains(err.Error(), "driver plugin a: it is a policy") {
		t.Errorf("a policy in place of a driver: %v", err)
	}
	if list := s.List(); len(list) != 0 {
		t.Errorf("%d plugins are kept", len(list))
	}
}

// TestAdmit: what the configuration does not let run does not, and what it says
// of the rest is told. It sees the very bytes that were hashed.
func TestAdmit(t *testing.T) {
	for name, b := range map[string]*bait{"program": programBait(t), "script": scriptBait(t)} {
		s := newStage(t)
		write(t, b.spec.Path, b.good)
		var content []byte
		s.cfg.Admit = func(c Candidate) (string, error) {
			if c.Name != b.spec.Name || c.Kind != b.spec.Kind || c.Path != b.spec.Path || c.SHA256 != sumOf(b.good) {
				t.Errorf("%s: the candidate is %+v", name, c)
			}
			var err error
			content, err = c.Content()
			return "by me", err
		}
		p, err := s.Start(t.Context(), b.spec)
		if err != nil {
			t.Fatal(err)
		}
		if st := p.Status(); st.Signature != "by me" || st.SHA256 != sumOf(b.good) || sumOf(content) != sumOf(b.good) {
			t.Errorf("%s: the status is %+v", name, st)
		}
		s.cfg.Admit = func(Candidate) (string, error) { return "", errors.New("not this one") }
		if _, err := s.Start(t.Context(), b.spec); err == nil || !strings.Contains(err.Error(), "not this one") {
			t.Errorf("%s: what may not run: %v", name, err)
		}
	}
}
