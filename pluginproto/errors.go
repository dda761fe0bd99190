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

// maxText is what is kept of the text of an error of the other side, in bytes.
const maxText = 2 << 10

// ToError returns the error that a call came back with: errors.Is recognises
// the sentinel, and the text is kept, cut when it is very long. A code that
// carries no sentinel becomes sdk.ErrUnavailable; so does the end of a
// context, which errors.Is recognises as well.
func ToError(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%w: %w", sdk.ErrUnavailable, err)
	}
	text := st.Message()
	if len(text) > maxText {
		text = text[:maxText] + " …"
	}
	for _, s := range sentinels {
		if st.Code() == s.code {
			return &remoteError{text, s.err}
		}
	}
	return &remoteError{fmt.Sprintf("%s: %s", st.Code(), text), sdk.ErrUnavailable}
}

// remoteError is an error of the other side.
type remoteError struct {
	text     string
	sentinel error
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Is(target error) bool {
	gaveUp := e.sentinel == context.Canceled || e.sentinel == context.DeadlineExceeded
	return target == e.sentinel || gaveUp && target == sdk.ErrUnavailable
}
