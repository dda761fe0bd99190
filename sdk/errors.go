package sdk

import "errors"

// The closed set of errors that keep their meaning across gRPC and
// WebAssembly: errors.Is recognises them on the other side. Every other error
// arrives as [ErrUnavailable] with its text kept.
var (
	// ErrNotFound says that the named thing is absent.
	ErrNotFound = errors.New("not found")

	// ErrInvalid says that the request can never succeed as it stands: a bad
	// argument, a gap in the sequence of batches, an unknown option.
	ErrInvalid = errors.New("invalid")

	// ErrUnsupported says that the plugin lacks the capability asked for.
	ErrUnsupported = errors.New("unsupported")

	// ErrUnavailable says that the plugin, or the store behind it, cannot
	// answer now; the same call may succeed later.
	ErrUnavailable = errors.New("unavailable")
)
