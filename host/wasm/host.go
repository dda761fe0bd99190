package wasm

import (
	"context"
	"fmt"
	"log/slog"
	"unicode/utf16"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
)

// offers returns the modules that a guest may import from, by name.
func (m *Module) offers() map[string]func(wazero.Runtime) wazero.HostModuleBuilder {
	return map[string]func(wazero.Runtime) wazero.HostModuleBuilder{
		abi.Module:                        m.offerOwn,
		"env":                             m.offerAbort,
		wasi_snapshot_preview1.ModuleName: offerWASI,
	}
}

// offerWASI offers what language runtimes need. The configuration of the
// instance gives it no files, arguments or environment.
func offerWASI(r wazero.Runtime) wazero.HostModuleBuilder {
	b := r.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	return b
}

// offerOwn offers the functions that are this host's own: the log, and keys and
// values.
func (m *Module) offerOwn(r wazero.Runtime) wazero.HostModuleBuilder {
	return r.NewHostModuleBuilder(abi.Module).
		NewFunctionBuilder().WithFunc(m.log).Export(abi.ImportLog).
		NewFunctionBuilder().WithFunc(m.kvGet).Export(abi.ImportKVGet).
		NewFunctionBuilder().WithFunc(m.kvScan).Export(abi.ImportKVScan).
		NewFunctionBuilder().WithFunc(m.kvWrite).Export(abi.ImportKVWrite)
}

// view returns the memory at an address from a module. An address outside of
// its memory is a trap.
func view(mod api.Module, name string, at, size uint32) []byte {
	if size == 0 {
		return nil // the address has no meaning
	}
	b, ok := mod.Memory().Read(at, size)
	if !ok {
		panic(fmt.Errorf("%s.%s with an address outside of the module's memory", abi.Module, name))
	}
	return b
}

func (m *Module) log(_ context.Context, mod api.Module, level, text, size uint32) {
	m.output.line(slogLevel(level), view(mod, abi.ImportLog, text, size))
}

// slogLevel translates 0 debug, 1 info, 2 warn, 3 error; others are errors.
func slogLevel(level uint32) slog.Level {
	return slog.LevelDebug + slog.Level(min(level, 3))*(slog.LevelInfo-slog.LevelDebug)
}

// offerAbort offers what AssemblyScript calls before it traps.
func (m *Module) offerAbort(r wazero.Runtime) wazero.HostModuleBuilder {
	abort := func(_ context.Context, mod api.Module, message, _, line, column uint32) {
		panic(fmt.Errorf("abort: %q at line %d, column %d", assemblyScriptText(mod.Memory(), message), line, column))
	}
	return r.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(abort).Export("abort")
}

// assemblyScriptText reads a string of AssemblyScript: UTF-16, its length in
// bytes in front. A pointer that cannot be one reads as nothing.
func assemblyScriptText(mem api.Memory, ptr uint32) string {
	if ptr < 4 {
		return "" // null
	}
	size, _ := mem.ReadUint32Le(ptr - 4)
	b, _ := mem.Read(ptr, min(size, maxLine)&^1)
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
	}
	return string(utf16.Decode(units))
}
