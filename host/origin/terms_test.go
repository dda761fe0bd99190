package origin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// timed is an origin whose bodies give a piece every so often.
type timed struct {
	terms Terms
	size  int
	piece int
	pause time.Duration
	mu    sync.Mutex
	open  int
	most  int // open at once
}

func (o *timed) Name() string { return "timed" }
func (o *timed) Terms() Terms { return o.terms }
func (o *timed) Stat(context.Context, string) (Object, error) {
	return Object{Size: int64(o.size)}, nil
}

func (o *timed) Open(context.Context, Request) (Object, io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open++
	o.most = max(o.most, o.open)
	return Object{Size: int64(o.size)}, &timedBody{o: o, rest: bytes.NewReader(make([]byte, o.size))}, nil
}

type timedBody struct {
	o    *timed
	rest *bytes.Reader
	shut bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	time.Sleep(b.o.pause)
	return b.rest.Read(p[:min(len(p), b.o.piece)])
}

func (b *timedBody) Close() error {
	b.o.mu.Lock()
	defer b.o.mu.Unlock()
	if !b.shut {
		b.shut = true
		b.o.open--
	}
	return nil
}

// transfers reads n images at once and returns how long it took, and the
// first error.
func transfers(t *testing.T, o Origin, n int) (took time.Duration, first error) {
	t.Helper()
	begun := time.Now()
	var all sync.WaitGroup
	errs := make(chan error, n)
	for range n {
		all.Go(func() {
			_, body, err := o.Open(t.Context(), Request{Name: "a", Length: -1})
			if err != nil {
				errs <- err
				return
			}
			_, err = io.Copy(io.Discard, body)
			body.Close()
			body.Close() // gives the turn back once
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil && first == nil {
			first = err
		}
	}
	return time.Since(begun), first
}

func TestBound(t *testing.T) {
	for _, tt := range []struct {
		name  string
		terms Terms
		o     *timed
		n     int
		most  int
		took  time.Duration // in a bubble, so exactly
		err   error
	}{
		{name: "nothing bounds", o: &timed{size: 10, piece: 10, pause: time.Second}, n: 9, most: 9, took: 2 * time.Second},
		{name: "two at once", terms: Terms{Concurrency: 2}, o: &timed{size: 10, piece: 10, pause: time.Second}, n: 9, most: 2, took: 10 * time.Second},
		// The burst, 1 MiB, is free.
		{name: "bandwidth is shared", terms: Terms{Bandwidth: 1 << 20}, o: &timed{size: 5 << 20, piece: 1 << 20}, n: 2, most: 2, took: 9 * time.Second},
		{name: "too slow", terms: Terms{MinRate: 1000}, o: &timed{size: 1 << 20, piece: 999, pause: time.Second}, n: 1, most: 1, took: paceWindow, err: ErrSlow},
		{name: "just quick enough", terms: Terms{MinRate: 1000}, o: &timed{size: 30_000, piece: 1000, pause: time.Second}, n: 1, most: 1, took: 31 * time.Second},
		{name: "our own bound is not the origin's fault", terms: Terms{MinRate: 10 << 20, Bandwidth: 1 << 20}, o: &timed{size: 32 << 20, piece: 1 << 20}, n: 1, most: 1, took: 31 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.o.terms = tt.terms
				took, err := transfers(t, Bound(tt.o), tt.n)
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				if err != nil && !errors.Is(err, ErrUnavailable) {
					t.Errorf("%v is no ErrUnavailable", err)
				}
				if tt.o.most != tt.most || took != tt.took {
					t.Errorf("%d at once in %v, want %d in %v", tt.o.most, took, tt.most, tt.took)
				}
				if tt.o.open != 0 {
					t.Errorf("%d transfers are left open", tt.o.open)
				}
			})
		})
	}
}

// Who gives up waiting for a turn takes none.
func TestBoundGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &timed{terms: Terms{Concurrency: 1}, size: 1, piece: 1}
		b := Bound(o)
		_, body, err := b.Open(t.Context(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := b.Open(ctx, Request{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		body.Close()
		_, body, err = b.Open(t.Context(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
	})
}
