package cache

import (
	"bytes"
	"crypto/md5" //nolint:gosec // Glance declares MD5; it is checked, never trusted alone when a stronger one is there
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/imgcache/imgcache-host/host/origin"
)

// digester computes one digest of a whole image: the strongest of the declared
// ones or, if there is none, SHA-256 for our own use.
type digester struct {
	algorithm string
	want      []byte // nil: nothing declared
	hash      hash.Hash
}

// strength orders the algorithms. Digests by others are not checked.
var strength = map[string]int{"md5": 1, "sha256": 2, "sha512": 3}

func newDigester(declared []origin.Digest) *digester {
	d := &digester{algorithm: "sha256"}
	best := 0
	for _, have := range declared {
		if strength[have.Algorithm] > best {
			best = strength[have.Algorithm]
			d.algorithm, d.want = have.Algorithm, have.Sum
		}
	}
	switch d.algorithm {
	case "sha512":
		d.hash = sha512.New()
	case "md5":
		d.hash = md5.New() //nolint:gosec // see the import
	default:
		d.hash = sha256.New()
	}
	return d
}

func (d *digester) write(p []byte) { d.hash.Write(p) }

// clone returns a digester that has seen the same bytes.
func (d *digester) clone() (*digester, error) {
	h, err := d.hash.(hash.Cloner).Clone()
	if err != nil {
		return nil, fmt.Errorf("clone %s state: %w", d.algorithm, err)
	}
	return &digester{algorithm: d.algorithm, want: d.want, hash: h}, nil
}

// verify compares the digest with the declared one, if any.
func (d *digester) verify() error {
	if got := d.hash.Sum(nil); d.want != nil && !bytes.Equal(got, d.want) {
		return fmt.Errorf("%w: the %s is %x; expected %x", ErrVerify, d.algorithm, got, d.want)
	}
	return nil
}

// sha256 returns the SHA-256 in hex, or "" if another digest was computed.
func (d *digester) sha256() string {
	if d.algorithm != "sha256" {
		return ""
	}
	return hex.EncodeToString(d.hash.Sum(nil))
}

// hasher runs a digester beside the transfer, on another processor: hashing a byte
// costs about as much as everything else that a fill does with it.
type hasher struct {
	in   chan piece
	done chan struct{}
}

// piece is a part of a buffer that is to be hashed.
type piece struct {
	p    []byte
	free []byte // if not nil, the buffer, which is free after this piece
}

// hashAhead is how many pieces the transfer may be ahead of the hash: enough to
// even out the reads of a socket, and few enough to bound the memory of a fill.
const hashAhead = 4

func newHasher(d *digester) *hasher {
	h := &hasher{in: make(chan piece, hashAhead), done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for piece := range h.in {
			d.write(piece.p)
			if piece.free != nil {
				blocks.put(piece.free)
			}
		}
	}()
	return h
}

// wait returns when everything is hashed. After that the caller may use the digester
// again.
func (h *hasher) wait() {
	close(h.in)
	<-h.done
}
