// Command imgcache-host runs a cache of machine images, and manages one that
// runs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	launcher(os.Args)
	ctx, stop := withSignals(context.Background())
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, args: os.Args}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// withSignals returns a context that the first SIGINT or SIGTERM cancels, so
// that running transfers may end. A second signal ends the process at once.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
			return
		}
		if _, again := <-signals; again {
			fmt.Fprintln(os.Stderr, "imgcache-host: second signal: ending at once")
			os.Exit(exitError)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}
