package wasm

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// ReadManifest returns the manifest in the custom section of a module, and
// whether it has one. The module is neither compiled nor run. Errors wrap
// sdk.ErrInvalid.
func ReadManifest(code []byte) (m sdk.Manifest, declared bool, err error) {
	text, declared, err := manifestSection(code)
	if declared {
		m, err = parseManifest(text)
	}
	return m, declared, err
}

// maxManifest bounds a manifest in bytes: as much as the service takes of what a
// plugin says of itself. A module has room for millions of options.
const maxManifest = 64 << 10

func parseManifest(text []byte) (sdk.Manifest, error) {
	var m sdk.Manifest
	if len(text) > maxManifest {
		return m, fmt.Errorf("%w: manifest: it has %d bytes; expected at most %d", sdk.ErrInvalid, len(text), maxManifest)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", sdk.ErrInvalid, err)
	}
	if err := m.Speaks(abi.Version); err != nil {
		return m, err
	}
	if err := m.Validate(); err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	for _, c := range []sdk.Capability{sdk.CapNodes, sdk.CapHeartbeat} {
		if m.Has(c) {
			return m, fmt.Errorf("%w: manifest: only a program can have the capability %q, because a module cannot reach other nodes", sdk.ErrInvalid, c)
		}
	}
	return m, nil
}

var errSection = fmt.Errorf("%w: the module ends in the middle of a section", sdk.ErrInvalid)

// preamble is the beginning of a core module: the magic number and version 1.
const preamble = "\x00asm\x01\x00\x00\x00"

// manifestSection returns the contents of the custom section that holds the
// manifest, and whether there is one.
func manifestSection(code []byte) (text []byte, ok bool, err error) {
	if len(code) < len(preamble) || string(code[:len(preamble)]) != preamble {
		return nil, false, fmt.Errorf("%w: this is not a WebAssembly module", sdk.ErrInvalid)
	}
	for rest := code[len(preamble):]; len(rest) > 0; {
		const custom = 0
		id := rest[0]
		section, after, ok := sized(rest[1:])
		if !ok {
			return nil, false, errSection
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
