package pluginproto

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/imgcache/imgcache-host/sdk"
)

// sentinels are the errors that keep their meaning, with their codes.
var sentinels = []struct {
	err  error
	code codes.Code
}{
	{sdk.ErrNotFound, codes.NotFound},
	{sdk.ErrInvalid, codes.InvalidArgument},
	{sdk.ErrUnsupported, codes.Unimplemented},
	{sdk.ErrUnavailable, codes.Unavailable},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// FromError returns the gRPC status error that carries err and its text, nil
// for nil. An error that wraps no sentinel travels as sdk.ErrUnavailable.
func FromError(err error) error {
	if err == nil {
		return nil
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return status.Error(s.code, err.Error())
		}
	}
	return status.Error(codes.Unavailable, err.Error())
}

// ToError returns the error that a call came back with: errors.Is recognises
// the sentinel, and the text is kept. A code that carries no sentinel becomes
// sdk.ErrUnavailable.
func ToError(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%w: %w", sdk.ErrUnavailable, err)
	}
	for _, s := range sentinels {
		if st.Code() == s.code {
			return &remoteError{text: st.Message(), is: s.err}
		}
	}
	return &remoteError{text: fmt.Sprintf("%s: %s", st.Code(), st.Message()), is: sdk.ErrUnavailable}
}

// remoteError is an error of the other side.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }
