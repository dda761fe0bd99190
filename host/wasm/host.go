package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
)

const (
	// maxLine is what is kept of a line that a module logs or prints.
	maxLine = 4 << 10
	// maxLines is how many lines a module may log between two calls of the
	// host: the supervisor limits the rate over time.
	maxLines = 100
)

// offerLog lets the module log.
func offerLog(ctx context.Context, r wazero.Runtime, log *slog.Logger) error {
	logged := 0
	f := api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
		level, p, n := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
		text, ok := mod.Memory().Read(p, min(n, maxLine))
		if logged++; !ok || logged > maxLines*maxLines {
			return // a pointer outside of the memory, or a flood
		}
		log.Log(ctx, slogLevel(level), string(text))
	})
	_, err := r.NewHostModuleBuilder(abi.Module).NewFunctionBuilder().
		WithGoModuleFunction(f, []api.ValueType{i32, i32, i32}, nil).
		WithParameterNames("level", "ptr", "len").Export(abi.ImportLog).Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("offer %s: %w", abi.ImportLog, err)
	}
	return nil
}

// slogLevel translates 0 debug, 1 info, 2 warn, 3 error.
func slogLevel(level uint32) slog.Level {
	return slog.LevelDebug + slog.Level(4*min(level, 3))
}

// offerAbort is what AssemblyScript calls when it throws.
func offerAbort(ctx context.Context, r wazero.Runtime) error {
	f := api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
		panic(fmt.Errorf("abort called at line %d, column %d", uint32(stack[2]), uint32(stack[3])))
	})
	_, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().
		WithGoModuleFunction(f, []api.ValueType{i32, i32, i32, i32}, nil).
		WithParameterNames("message", "file", "line", "column").Export("abort").Instantiate(ctx)
	return err
}

// output takes what a module prints: into the log, and the last of it to
// explain a trap.
type output struct {
	log *slog.Logger

	mu    sync.Mutex
	lines int
	last  []byte
}

// Write takes a piece of output.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, p...)
	if over := len(o.last) - maxLine; over > 0 {
		o.last = append(o.last[:0], o.last[over:]...)
	}
	for line := range bytes.Lines(p) {
		if o.lines++; o.lines <= maxLines {
			o.log.Info("module prints", "line", string(bytes.TrimSpace(line)))
		}
	}
	return len(p), nil
}

// reset forgets what was printed before a call.
func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines, o.last = 0, o.last[:0]
}

// explain shortens wazero's error to its first line and adds the panic that
// the module printed.
func (o *output) explain(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\n")
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range bytes.Lines(o.last) {
		if s := strings.TrimSpace(string(line)); strings.HasPrefix(s, "panic:") || strings.HasPrefix(s, "fatal error:") {
			text += ": " + s
			break
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", text, context.DeadlineExceeded)
	}
	return errors.New(text)
}
