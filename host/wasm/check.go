package wasm

import (
	"context"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// memoryName is the name of a module's exported memory.
const memoryName = "memory"

// The types of the exports, as signature writes them.
var types = map[string]string{
	abi.FuncVersion:   "() -> (i32)",
	abi.FuncAlloc:     "(i32) -> (i32)",
	abi.FuncFree:      "(i32, i32) -> ()",
	abi.FuncConfigure: "(i32, i32) -> (i32)",
	abi.FuncManifest:  "(i32, i32) -> (i32)",
	abi.FuncScore:     "(i32, i32) -> (i32)",
	abi.FuncObserve:   "(i32) -> (i32)",
	abi.FuncSelect:    "(i64, i64, i32, i32) -> (i32)",
	abi.FuncSnapshot:  "(i32, i32) -> (i32)",
	abi.FuncRestore:   "(i32, i32) -> (i32)",
	abi.FuncApply:     "(i32, i32) -> (i32)",
	abi.FuncList:      "(i32, i32, i32, i32) -> (i32)",
}

// signature writes the type of a function.
func signature(f api.FunctionDefinition) string {
	list := func(types []api.ValueType) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = api.ValueTypeName(t)
		}
		return "(" + strings.Join(names, ", ") + ")"
	}
	return list(f.ParamTypes()) + " -> " + list(f.ResultTypes())
}

// checkModule reports a missing export that every module must have, and exports
// of the ABI whose type is wrong.
func checkModule(c wazero.CompiledModule) error {
	if c.ExportedMemories()[memoryName] == nil {
		return fmt.Errorf("%w: the module does not export its memory as %q", sdk.ErrInvalid, memoryName)
	}
	have := c.ExportedFunctions()
	for name, want := range types {
		if f, ok := have[name]; ok && signature(f) != want {
			return fmt.Errorf("%w: the module's %s has the type %s; expected %s", sdk.ErrInvalid, name, signature(f), want)
		}
	}
	return checkNames(have, "", abi.FuncVersion, abi.FuncAlloc, abi.FuncFree)
}

// checkForm reports an export that the manifest promises and the module lacks.
// Exports that it does not promise are never called: a Go guest exports all
// forms.
func checkForm(c wazero.CompiledModule, m sdk.Manifest) error {
	if m.Kind == sdk.KindDriver {
		return checkNames(c.ExportedFunctions(), ", and its manifest says that it is a driver", abi.FuncApply, abi.FuncList)
	}
	for _, form := range []struct {
		capability sdk.Capability
		names      []string
	}{
		{sdk.CapScore, []string{abi.FuncScore}},
		{sdk.CapStateful, []string{abi.FuncObserve, abi.FuncSelect}},
		{sdk.CapSnapshot, []string{abi.FuncSnapshot, abi.FuncRestore}},
	} {
		if !m.Has(form.capability) {
			continue
		}
		why := fmt.Sprintf(", and its manifest declares the capability %q", form.capability)
		if err := checkNames(c.ExportedFunctions(), why, form.names...); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(have map[string]api.FunctionDefinition, why string, names ...string) error {
	for _, name := range names {
		if _, ok := have[name]; !ok {
			return fmt.Errorf("%w: the module does not export %s%s", sdk.ErrInvalid, name, why)
		}
	}
	return nil
}

// offer instantiates what the module imports, and reports an import that is
// not offered.
func (m *Module) offer(ctx context.Context) error {
	for _, memory := range m.compiled.ImportedMemories() {
		module, name, _ := memory.Import()
		return fmt.Errorf("%w: the module imports the memory %s.%s; expected a memory of its own", sdk.ErrInvalid, module, name)
	}
	offered := map[string]wazero.CompiledModule{}
	for _, f := range m.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		builder, ok := m.offers()[module]
		if !ok {
			return notOffered(module, name, "")
		}
		if offered[module] == nil {
			compiled, err := builder(m.runtime).Compile(ctx)
			if err != nil {
				return fmt.Errorf("prepare the imports of %s: %w", module, err)
			}
			offered[module] = compiled
		}
		switch have, ok := offered[module].ExportedFunctions()[name]; {
		case !ok:
			return notOffered(module, name, "")
		case signature(have) != signature(f):
			return notOffered(module, name, fmt.Sprintf(" with the type %s, only with %s", signature(f), signature(have)))
		}
	}
	for module, compiled := range offered {
		config := wazero.NewModuleConfig().WithName(module)
		if _, err := m.runtime.InstantiateModule(ctx, compiled, config); err != nil {
			return fmt.Errorf("offer the imports of %s: %w", module, err)
		}
	}
	return nil
}

func notOffered(module, name, how string) error {
	return fmt.Errorf("%w: the module imports %s.%s, which this host does not offer%s", sdk.ErrInvalid, module, name, how)
}
