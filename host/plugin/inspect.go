package plugin

import (
	"context"
	"fmt"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/sdk"
)

// Info is what is known about a plugin without configuring it.
type Info struct {
	Path      string       `json:"path"`
	Runtime   string       `json:"runtime"` // "process" or "wasm"
	Manifest  sdk.Manifest `json:"manifest"`
	SHA256    string       `json:"sha256"`
	Signature string       `json:"signature,omitempty"` // what Config.Admit says about it
}

// Inspect returns what a plugin says about itself. A module with its manifest in the
// custom section is not run. Any other plugin is started, as for the service, and
// stopped.
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
		err = fmt.Errorf("%s: its process ended before it could be inspected: %s", spec, st.LastError)
	}
	return info, err
}

// read returns what is known about a module without running it. declared says that
// its manifest is among that.
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
		err = fmt.Errorf("it is a %s; expected a %s", m.Kind, spec.Kind)
	}
	return info, declared, err
}
