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
		abi.Module:                        m.offerLog,
		"env":                             m.offerAbort,
		wasi_snapshot_preview1.ModuleName: offerWASI,
	}
}

// offerWASI offers what language runtimes want. The configuration of the
// instance gives it no files, arguments or environment.
func offerWASI(r wazero.Runtime) wazero.HostModuleBuilder {
	b := r.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	return b
}

// offerLog offers the log.
func (m *Module) offerLog(r wazero.Runtime) wazero.HostModuleBuilder {
	log := func(_ context.Context, mod api.Module, level, ptr, size uint32) {
		text, ok := mod.Memory().Read(ptr, size)
		if !ok {
			panic(fmt.Errorf("%s.%s of memory that the module does not have", abi.Module, abi.ImportLog))
		}
		m.output.line(slogLevel(level), text)
	}
	return r.NewHostModuleBuilder(abi.Module).NewFunctionBuilder().WithFunc(log).Export(abi.ImportLog)
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
