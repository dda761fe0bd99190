package wasm

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// readManifest returns the manifest of the custom section or, where the
// toolchain could not write one, of the export.
func (m *Module) readManifest(ctx context.Context) (sdk.Manifest, error) {
	for _, section := range m.compiled.CustomSections() {
		if section.Name() == abi.ManifestSection {
			return parseManifest(section.Data())
		}
	}
	if m.guest.mod.ExportedFunction(abi.FuncManifest) == nil {
		return sdk.Manifest{}, fmt.Errorf("%w: the module has neither the custom section %s nor the export %s",
			sdk.ErrInvalid, abi.ManifestSection, abi.FuncManifest)
	}
	b, err := m.guest.bytes(ctx, abi.FuncManifest, 16<<10)
	if err != nil {
		return sdk.Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	return parseManifest(b)
}

// ReadManifest returns the manifest of a module's custom section without
// running any of its code. The error wraps sdk.ErrNotFound when there is no
// such section.
func ReadManifest(ctx context.Context, code []byte) (sdk.Manifest, error) {
	r, err := newRuntime(ctx, Options{Memory: DefaultMemory})
	if err != nil {
		return sdk.Manifest{}, err
	}
	defer r.Close(ctx)
	compiled, err := r.CompileModule(ctx, code)
	if err != nil {
		return sdk.Manifest{}, fmt.Errorf("%w: compile: %w", sdk.ErrInvalid, err)
	}
	for _, section := range compiled.CustomSections() {
		if section.Name() == abi.ManifestSection {
			return parseManifest(section.Data())
		}
	}
	return sdk.Manifest{}, fmt.Errorf("custom section %s: %w", abi.ManifestSection, sdk.ErrNotFound)
}

func parseManifest(b []byte) (sdk.Manifest, error) {
	var m sdk.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", sdk.ErrInvalid, err)
	}
	return m, m.Validate()
}
