// Package origin gets images from where they come from: a directory, an HTTP server
// or an S3 bucket.
package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// The failures of an origin. Every error of an [Origin] wraps one of these, or is
// that of the context.
var (
	// ErrNotFound says that the origin answered that it has no such image.
	ErrNotFound = fmt.Errorf("origin: image %w", sdk.ErrNotFound)
	// ErrDenied says that the origin refuses to send the image.
	ErrDenied = errors.New("origin: access denied")
	// ErrChanged says that the origin no longer has the version that was asked
	// for.
	ErrChanged = errors.New("origin: image has changed")
	// ErrUnavailable says that the origin did not answer, gave no usable answer,
	// or broke off the transfer.
	ErrUnavailable = fmt.Errorf("origin: %w", sdk.ErrUnavailable)
)

// Digest is a checksum that an origin declares for the whole image.
type Digest struct {
	Algorithm string // "sha512", "sha256" or "md5"
	Sum       []byte
}

// Object is what an origin says about an image.
type Object struct {
	// Version identifies the content. It is the strongest declared digest
	// ("sha256:…"), or else the strong ETag with its quotes, or else size and
	// modification time ("stat:SIZE-NANOSECONDS"), or else a weak validator
	// ("weak:…"), with which no transfer can be continued: see [Joins]. To find
	// out whether two answers are about the same bytes use [Judge], not their
	// versions.
	Version      string
	Size         int64    // bytes of the whole image; -1: unknown
	Digests      []Digest // strongest first; often empty
	ETag         string   `json:",omitempty"` // as in [Validators]
	File         string   `json:",omitempty"` // as in [Validators]
	LastModified time.Time
	URL          string  // for people: where the image is
	ContentType  string  `json:",omitempty"` // in lower case, without parameters; "": unknown
	Caching      Caching `json:",omitzero"`  // how long it may be kept

	// OpenEnded says that only the end of the connection ends the body. Whether
	// it is complete can be checked only by Size or a digest.
	OpenEnded bool `json:",omitempty"`

	// Refused is why the bytes are to be passed through and not stored; "": they
	// may be stored.
	Refused Refusal `json:",omitempty"`
}

// Validators returns the parts of the answer by which it can be compared with
// another.
func (o Object) Validators() Validators {
	return Validators{ETag: o.ETag, LastModified: o.LastModified, Size: o.Size, Digests: o.Digests, File: o.File}
}

// Request asks for the bytes of an image.
type Request struct {
	Name    string
	Offset  int64
	Length  int64  // -1: to the end
	Version string // the version that the bytes must have; "": any

	// Known is what else is known about that version; nil: nothing. With it
	// different bytes are noticed even if the version is the same or there is
	// none, and the same bytes even if the origin has another version for them
	// now.
	Known *Validators

	// Alone says that the bytes are not put together with others. Then a weak
	// validator suffices to prove that they are of that version.
	Alone bool
}

// Suspect is the body of a transfer whose bytes may differ from those of the origin.
// A reader that finds them wrong calls Wrong, even after Close.
type Suspect interface{ Wrong() }

// Origin is where images come from.
type Origin interface {
	// Name is the label of the origin's configuration block.
	Name() string

	// Stat describes the image that the origin has under name.
	Stat(ctx context.Context, name string) (Object, error)

	// Open returns the requested bytes, beginning exactly at Offset: an origin
	// without ranges is read from its start and the prefix skipped. If Version is
	// set and the origin has another one, Open fails with ErrChanged. If the body
	// is shorter than declared, it breaks off with an error wrapping
	// ErrUnavailable, never with io.EOF. The context is for the body too.
	Open(ctx context.Context, r Request) (Object, io.ReadCloser, error)

	// Terms returns the terms of the origin's configuration.
	Terms() Terms
}
