package abi

import (
	"errors"
	"fmt"

	"github.com/imgcache/imgcache-host/sdk"
)

// StatusOf returns the status that stands for err: that of the sentinel which
// it wraps, or StatusUnavailable.
func StatusOf(err error) Status {
	switch {
	case err == nil:
		return StatusOK
	case errors.Is(err, sdk.ErrNotFound):
		return StatusNotFound
	case errors.Is(err, sdk.ErrInvalid):
		return StatusInvalid
	case errors.Is(err, sdk.ErrUnsupported):
		return StatusUnsupported
	}
	return StatusUnavailable
}

// Err returns the error that a status stands for, nil for StatusOK. A status
// that this version does not know is sdk.ErrUnavailable.
func (s Status) Err() error {
	switch s {
	case StatusOK:
		return nil
	case StatusNotFound:
		return sdk.ErrNotFound
	case StatusInvalid:
		return sdk.ErrInvalid
	case StatusUnsupported:
		return sdk.ErrUnsupported
	case StatusUnavailable:
		return sdk.ErrUnavailable
	}
	return fmt.Errorf("%w: the guest returned the status %d", sdk.ErrUnavailable, uint32(s))
}
