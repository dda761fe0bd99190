package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize/english"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/config"
)

// The exit codes.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2 // of the command line or the configuration
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5
)

// usageError says that the command line is wrong.
type usageError struct {
	error
	command string
}

func (e usageError) Unwrap() error { return e.error }

// configError says that the configuration is wrong.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var cfg configError
	var diags *config.Diagnostics // includes options of plugins, which are checked when the service starts
	switch {
	case errors.As(err, &usage), errors.As(err, &cfg), errors.As(err, &diags):
		return exitUsage
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, client.ErrDenied):
		return exitDenied
	case errors.Is(err, cache.ErrNotFound):
		return exitNotFound
	default:
		return exitError
	}
}

// report writes an error for people: what is wrong, where, and what to do if
// that is known.
func report(w io.Writer, err error) {
	var diags *config.Diagnostics
	if errors.As(err, &diags) {
		fmt.Fprintf(w, "imgcache-host: the configuration has %s\n\n", english.Plural(diags.Len(), "problem", ""))
		var text strings.Builder
		_ = diags.Write(&text) // which never fails
		fmt.Fprint(w, visibleText(text.String()))
		return
	}
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	fmt.Fprintf(w, "imgcache-host: %s\n", visibleText(strings.TrimSpace(text)))
	if advice := advise(err); advice != "" {
		fmt.Fprintf(w, "  %s\n", advice)
	}
}

// advise says what to do about an error, or "".
func advise(err error) string {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return fmt.Sprintf("See: %s --help", usage.command)
	case errors.Is(err, client.ErrUnreachable):
		return "Is the service running? Start it with imgcache-host serve --config FILE, or name its socket with --socket or IMGCACHE_SOCKET.\n  With --config FILE most commands also work on the cache directory of a service that does not run."
	case errors.Is(err, client.ErrDenied):
		return "Use an account that may write to the socket: see mode and group of the unix listener in the configuration."
	default:
		return ""
	}
}
