package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// withSection appends a custom section to a module.
func withSection(code []byte, name, text string) []byte {
	body := append(binary.AppendUvarint(nil, uint64(len(name))), name...)
	body = append(body, text...)
	code = append(bytes.Clone(code), 0)
	return append(binary.AppendUvarint(code, uint64(len(body))), body...)
}

const sieveManifest = `{"name":"sieve","version":"1.0.0","kind":"policy","capabilities":["stateful","of the future"],"new":1}`

func TestReadManifest(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		want string // name of the plugin, or text of the error
	}{
		"section":       {withSection([]byte(preamble), abi.ManifestSection, sieveManifest), "sieve"},
		"section first": {withSection(misbehaved(t, "foreign"), abi.ManifestSection, sieveManifest), "sieve"},
		"no range":      {withSection([]byte(preamble), abi.ManifestSection, strings.Replace(sieveManifest, "{", `{"max_protocol":-1,`, 1)), "cannot go from 0 to -1"},
		"too new":       {withSection([]byte(preamble), abi.ManifestSection, `{"min_protocol":2,"max_protocol":3}`), "too new: it speaks version 2 to 3 of the plugin protocol, this host version 1"},
		"export":        {misbehaved(t, "foreign"), ""},
		"other section": {withSection(misbehaved(t, "foreign"), "imgcache.other", sieveManifest), ""},
		"no JSON":       {withSection([]byte(preamble), abi.ManifestSection, "{"), "manifest: unexpected end of JSON"},
		"bad name":      {withSection([]byte(preamble), abi.ManifestSection, strings.Replace(sieveManifest, "sieve", "S", 1)), `"S"`},
		"large":         {withSection([]byte(preamble), abi.ManifestSection, `{"options":[`+strings.Repeat("{},", 1<<20)+`{}]}`), "manifest: it has 3145744 bytes; expected at most 65536"},
		"nested":        {withSection([]byte(preamble), abi.ManifestSection, strings.Repeat("[", maxManifest)), "exceeded max depth"},
		"driver":        {withSection([]byte(preamble), abi.ManifestSection, `{"name":"a","kind":"driver"}`), "a"},
		"another kind":  {withSection([]byte(preamble), abi.ManifestSection, `{"name":"a","kind":"origin"}`), "origin"},
		"cut":           {withSection([]byte(preamble), abi.ManifestSection, sieveManifest)[:20], "middle of a section"},
	} {
		m, declared, err := ReadManifest(c.code)
		if declared != (c.want != "") && err == nil || err == nil && m.Name != c.want || err != nil && (!errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: ReadManifest() = %+v, %v, want %s", name, m, err, c.want)
		}
	}
}

// TestSectionDecides: the manifest says which exports are needed.
func TestSectionDecides(t *testing.T) {
	_, err := Load(t.Context(), withSection(misbehaved(t, "nan"), abi.ManifestSection, sieveManifest), Options{})
	if want := "does not export imgcache_observe"; !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("Load() = %v, want %q", err, want)
	}
}

func FuzzManifestSection(f *testing.F) {
	f.Add([]byte(preamble))
	f.Add(withSection([]byte(preamble), abi.ManifestSection, sieveManifest))
	f.Add(withSection(withSection([]byte(preamble), "name", "x"), abi.ManifestSection, ""))
	f.Fuzz(func(t *testing.T, code []byte) {
		text, ok, err := manifestSection(code)
		if ok && (err != nil || !bytes.Contains(code, text)) || err != nil && !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("manifestSection() = %q, %v, %v", text, ok, err)
		}
	})
}

// TestRunnerSaysWhy: what keeps the runner from starting is one line.
func TestRunnerSaysWhy(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.wasm")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(t.TempDir(), "huge.wasm")
	if err := errors.Join(os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 1<<40)); err != nil {
		t.Fatal(err)
	}
	trap := filepath.Join("..", "..", "testdata", "wasm", "trap.wasm")
	for _, c := range []struct {
		args   []string
		memory string
		code   int
		want   string
	}{
		{nil, "", 2, "path of one module"},
		{[]string{"a", "b"}, "", 2, "path of one module"},
		{[]string{"/nonexistent.wasm"}, "", 1, "no such file"},
		{[]string{text}, "", 1, "not a WebAssembly module"},
		{[]string{huge}, "", 1, "at most 33554432"},
		{[]string{trap}, "64MiB", 1, memoryEnv},
		{[]string{trap}, "-1", 1, memoryEnv},
	} {
		t.Setenv(memoryEnv, c.memory)
		var stderr strings.Builder
		code := RunnerMain(c.args, &stderr)
		if said := stderr.String(); code != c.code || !strings.Contains(said, c.want) || strings.Count(said, "\n") != 1 {
			t.Errorf("wasm-runner %q answers %d and says %q, want %d and %q", c.args, code, said, c.code, c.want)
		}
	}
}
