package plugin

import (
	"context"
	"fmt"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/sdk"
)

// Info is what is known of a plugin without configuring it.
type Info struct {
	Path      string       `json:"path"`
	Runtime   string       `json:"runtime"` // "process" or "wasm"
	Manifest  sdk.Manifest `json:"manifest"`
	SHA256    string       `json:"sha256"`
	Signature string       `json:"signature,omitempty"` // what Config.Admit says of it
}

// Inspect returns what a plugin says of itself. A module that has its manifest
// in the custom section is not run; any other plugin is started, as it would
// be for the service, and stopped.
func (s *Supervisor) Inspect(ctx context.Context, spec Spec) (Info, error) {
	if spec.runtime() == runtimeWasm {
		if info, declared, err := s.read(spec); err != nil {
			return info, fmt.Errorf("%s: %w", spec, err)
		} else if declared {
			return info, nil
		}
	}
	p, err := s.Start(ctx, spec)
	if err != nil {
		return Info{}, err
	}
	st := p.Status()
	info := Info{Path: st.Path, Runtime: st.Runtime, Manifest: p.Manifest(), SHA256: st.SHA256, Signature: st.Signature}
	err = s.Stop(p)
	if err == nil && info.SHA256 == "" {
		err = fmt.Errorf("%s: it ended before it could be inspected: %s", spec, st.LastError)
	}
	return info, err
}

// read returns what is known of a module without running it, and whether its
// manifest is.
func (s *Supervisor) read(spec Spec) (info Info, declared bool, err error) {
	b, err := s.stage(spec)
	if err != nil {
		return info, false, err
	}
	defer b.remove()
	code, err := b.content()
	if err != nil {
		return info, false, err
	}
	info = Info{Path: spec.Path, Runtime: spec.runtime(), SHA256: b.sum, Signature: b.signature}
	info.Manifest, declared, err = wasm.ReadManifest(code)
	if declared && err == nil {
		err = checkManifest(info.Manifest)
	}
	if m := info.Manifest; declared && err == nil && spec.Kind != "" && m.Kind != spec.Kind {
		err = fmt.Errorf("it is a %s", m.Kind)
	}
	return info, declared, err
}
