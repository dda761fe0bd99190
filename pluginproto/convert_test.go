package pluginproto

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// fill gives every field below v a value of its own, so that one that a
// conversion forgets or confuses shows.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(int64(*n), int64(*n)).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", *n)), reflect.ValueOf(fmt.Sprint("value", *n)))
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		t.Fatalf("no value for a field of type %v", v.Type())
	}
}

// roundTrip converts a filled value, and the zero value, there and back.
func roundTrip[V, M any](t *testing.T, from func(V) M, to func(M) V) {
	t.Helper()
	var v V
	n := 0
	fill(t, reflect.ValueOf(&v).Elem(), &n)
	if got := to(from(v)); !reflect.DeepEqual(got, v) {
		t.Errorf("\n%+v came back as\n%+v", v, got)
	}
}

func TestEveryFieldTravels(t *testing.T) {
	roundTrip(t, FromManifest, ToManifest)
	roundTrip(t, FromSettings, ToSettings)
	roundTrip(t, FromEntry, ToEntry)
	roundTrip(t, FromBatch, ToBatch)
	roundTrip(t, FromNode, ToNode)
}

func TestZeroTimeTravels(t *testing.T) {
	if e := ToEntry(FromEntry(sdk.Entry{ID: "a"})); !reflect.DeepEqual(e, sdk.Entry{ID: "a"}) {
		t.Errorf("came back as %+v", e)
	}
}

// TestNilMessages are what a peer may send in place of a message.
func TestNilMessages(t *testing.T) {
	b := ToBatch(&pluginv1.ApplyRequest{Ops: []*pluginv1.Op{nil, {Kind: math.MaxInt32}, {Kind: -1}, {Kind: 256 + 1}}})
	for i, op := range b.Ops {
		if op.Kind != 0 {
			t.Errorf("operation %d has the kind %d", i, op.Kind)
		}
	}
	if m := ToManifest(nil); m.Validate() == nil {
		t.Error("no manifest is valid")
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	for _, want := range []error{
		sdk.ErrNotFound, sdk.ErrInvalid, sdk.ErrUnsupported, sdk.ErrUnavailable, context.Canceled, context.DeadlineExceeded,
	} {
		err := ToError(FromError(fmt.Errorf("a step: %w", want)))
		if !errors.Is(err, want) || err.Error() != "a step: "+want.Error() {
			t.Errorf("%v came back as %v", want, err)
		}
	}
	if err := ToError(FromError(errors.New("its own"))); !errors.Is(err, sdk.ErrUnavailable) || err.Error() != "its own" {
		t.Errorf("another error came back as %v", err)
	}
	if FromError(nil) != nil || ToError(nil) != nil {
		t.Error("nil became an error")
	}
}

func TestForeignErrors(t *testing.T) {
	for _, err := range []error{
		status.Error(codes.ResourceExhausted, "too much"), status.Error(codes.Internal, "oops"), errors.New("no status"),
	} {
		got := ToError(err)
		if !errors.Is(got, sdk.ErrUnavailable) || !strings.Contains(got.Error(), status.Convert(err).Message()) {
			t.Errorf("%v became %v", err, got)
		}
	}
}
