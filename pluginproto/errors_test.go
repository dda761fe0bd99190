package pluginproto

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/imgcache/imgcache-host/sdk"
)

// TestErrorsMeanOneThing: an error is the sentinel that was sent and no other,
// but the end of a context leaves the caller without an answer, too.
func TestErrorsMeanOneThing(t *testing.T) {
	all := []error{sdk.ErrNotFound, sdk.ErrInvalid, sdk.ErrUnsupported, sdk.ErrUnavailable, context.Canceled, context.DeadlineExceeded}
	for _, sent := range all {
		got := ToError(FromError(sent))
		gaveUp := sent == context.Canceled || sent == context.DeadlineExceeded
		for _, s := range all {
			if want := s == sent || gaveUp && s == sdk.ErrUnavailable; errors.Is(got, s) != want {
				t.Errorf("%v: errors.Is %v is %v", sent, s, !want)
			}
		}
	}
}

// TestLongErrors: a plugin cannot fill the host's log with one answer.
func TestLongErrors(t *testing.T) {
	got := ToError(FromError(fmt.Errorf("%w: %s", sdk.ErrNotFound, strings.Repeat("x", 1<<20))))
	if !errors.Is(got, sdk.ErrNotFound) || len(got.Error()) > maxText+10 {
		t.Errorf("%d bytes arrived", len(got.Error()))
	}
}

// TestVersionOfAnyBytes: an ETag with bytes that are no UTF-8 must not keep its
// batch, and all that follow it, from being sent.
func TestVersionOfAnyBytes(t *testing.T) {
	e := sdk.Entry{ID: "a", Version: "\"caf\xe9\""}
	if _, err := proto.Marshal(FromEntry(e)); err != nil {
		t.Error(err)
	}
}
