package wasm

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// ReadManifest returns the manifest of a module. A module that has it in the
// custom section is not compiled and not run. Errors wrap sdk.ErrInvalid.
func ReadManifest(ctx context.Context, code []byte) (sdk.Manifest, error) {
	text, ok, err := manifestSection(code)
	if err != nil {
		return sdk.Manifest{}, err
	}
	if ok {
		return parseManifest(text)
	}
	m, err := Load(ctx, code, Options{Interruptible: true})
	if err != nil {
		return sdk.Manifest{}, err
	}
	return m.Manifest(), m.Close(ctx)
}

func parseManifest(text []byte) (sdk.Manifest, error) {
	var m sdk.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", sdk.ErrInvalid, err)
	}
	if err := m.Validate(); err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	if m.Kind != sdk.KindPolicy {
		return m, fmt.Errorf("%w: manifest: kind %q, and a module is a %q", sdk.ErrInvalid, m.Kind, sdk.KindPolicy)
	}
	return m, nil
}

// preamble begins a core module: the magic number and version 1.
const preamble = "\x00asm\x01\x00\x00\x00"

// manifestSection returns the contents of the custom section that holds the
// manifest, and whether there is one.
func manifestSection(code []byte) (text []byte, ok bool, err error) {
	if len(code) < len(preamble) || string(code[:len(preamble)]) != preamble {
		return nil, false, fmt.Errorf("%w: this is no WebAssembly module", sdk.ErrInvalid)
	}
	for rest := code[len(preamble):]; len(rest) > 0; {
		const custom = 0
		id := rest[0]
		section, after, ok := sized(rest[1:])
		if !ok {
			return nil, false, fmt.Errorf("%w: the module ends in the middle of a section", sdk.ErrInvalid)
		}
		if name, text, ok := sized(section); ok && id == custom && string(name) == abi.ManifestSection {
			return text, true, nil
		}
		rest = after
	}
	return nil, false, nil
}

// sized reads a length and that many bytes.
func sized(b []byte) (data, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n:][:size], b[n:][size:], true
}
