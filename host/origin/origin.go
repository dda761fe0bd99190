// Package origin is where images come from: a directory, an HTTP server, an S3
// bucket.
package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// The failures of an origin. Every error of an [Origin] wraps one of them, or
// is that of the context.
var (
	// ErrNotFound says that the origin answered that it has no such image.
	ErrNotFound = fmt.Errorf("origin: image %w", sdk.ErrNotFound)
	// ErrDenied says that the origin refuses to hand out the image.
	ErrDenied = errors.New("origin: access denied")
	// ErrChanged says that the origin's image is no longer the version asked
	// for.
	ErrChanged = errors.New("origin: image has changed")
	// ErrUnavailable says that the origin did not answer, or broke off.
	ErrUnavailable = fmt.Errorf("origin: %w", sdk.ErrUnavailable)
)

// Digest is a checksum that an origin declares for the whole image.
type Digest struct {
	Algorithm string // "sha512", "sha256" or "md5"
	Sum       []byte
}

// Object is what an origin says of an image.
type Object struct {
	// Version identifies the content: the strongest declared digest
	// ("sha256:…"), else the strong ETag with its quotes, else size and
	// modification time ("stat:SIZE-NANOSECONDS"), else a weak validator
	// ("weak:…"), by which nothing can be resumed: see [Joins]. Whether two
	// answers are about the same bytes is not for their versions to say, but
	// for [Judge].
	Version      string
	Size         int64    // bytes of the whole image; -1: unknown
	Digests      []Digest // strongest first; often empty
	ETag         string   `json:",omitempty"` // as in [Validators]
	File         string   `json:",omitempty"` // as in [Validators]
	LastModified time.Time
	URL          string  // for people: where the image is
	ContentType  string  `json:",omitempty"` // in lower case, without parameters; "": unknown
	Caching      Caching `json:",omitzero"`  // how long it may be kept

	// OpenEnded says that nothing but the end of the connection ends the body.
	// Whether it is whole is known only where Size is, to which it is held
	// then, or by a digest.
	OpenEnded bool `json:",omitempty"`

	// Refused is why the bytes are to be passed through and not stored.
	Refused Refusal `json:",omitempty"`
}

// Validators returns that by which the answer can be compared with another.
func (o Object) Validators() Validators {
	return Validators{ETag: o.ETag, LastModified: o.LastModified, Size: o.Size, Digests: o.Digests, File: o.File}
}

// Request asks for the bytes of an image.
type Request struct {
	Name    string
	Offset  int64
	Length  int64  // -1: to the end
	Version string // if not empty, the version that the bytes must be of

	// Known is what is known of that version besides; nil: nothing. It tells
	// another version that has the same name for itself, or none, and the same
	// one where the origin has another name for it.
	Known *Validators

	// Alone says that the bytes are put together with no others, so that a
	// weak validator suffices by which they are of that version.
	Alone bool
}

// Suspect is the body of a transfer whose bytes need not be those of the
// origin. Whoever has found them wrong says so, also after Close.
type Suspect interface{ Wrong() }

// Origin hands out images.
type Origin interface {
	// Name is the label of the origin's configuration block.
	Name() string

	// Stat says what the origin has under name, without its bytes.
	Stat(ctx context.Context, name string) (Object, error)

	// Open returns the bytes asked for, beginning exactly at Offset: an
	// origin without ranges is read from its start and the prefix thrown
	// away. When Version is given and the origin has another one, Open fails
	// with ErrChanged. The body breaks off with an error wrapping
	// ErrUnavailable, never with a clean EOF, when it is shorter than
	// declared. The context covers the body too.
	Open(ctx context.Context, r Request) (Object, io.ReadCloser, error)

	// Terms are those of the origin's configuration.
	Terms() Terms
}
