package cache

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// appraisal finds out what an image is that has no block table, or whose version
// is not known. For an image that is known it does nothing.
type appraisal struct {
	version string // from the driver's record or the file; may be empty
	obj     origin.Object
	known   bool // the image has a table and a version
	sums    store.Sums
	own     *digester   // SHA-256
	claims  []*digester // of digests that the bytes must have
}

// appraise prepares the appraisal of an open image. An origin that does not answer
// is ignored. The error is that of the context.
func (c *Cache) appraise(ctx context.Context, file *store.Image, version string) (*appraisal, error) {
	a := &appraisal{version: version, known: file.Info().Verified && version != ""}
	if a.known {
		return a, nil
	}
	a.own = newDigester(nil)
	if d, ok := versionDigest(version); ok {
		a.claims = append(a.claims, newDigester([]origin.Digest{d}))
		return a, nil
	}
	o, name, err := c.cfg.Origins.ByID(file.Info().ID)
	if err != nil {
		return a, nil // its origin is no longer configured
	}
	ask, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	obj, err := o.Stat(ask, name)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		c.log.Info("the origin could not be asked about an image that another program stored; it is checked without its digest", "image", file.Info().ID, "error", err)
	case len(obj.Digests) > 0:
		a.obj = obj
		a.claims = append(a.claims, newDigester(obj.Digests))
	}
	return a, nil
}

// versionDigest returns the digest in a version, if the version is one.
func versionDigest(version string) (origin.Digest, bool) {
	if !digestVersion(version) {
		return origin.Digest{}, false
	}
	algorithm, digits, _ := strings.Cut(version, ":")
	sum, err := hex.DecodeString(digits)
	return origin.Digest{Algorithm: algorithm, Sum: sum}, err == nil
}

// write takes the next block.
func (a *appraisal) write(block []byte) {
	if a.known {
		return
	}
	_, _ = a.sums.Write(block) // never fails
	a.own.write(block)
	for _, d := range a.claims {
		d.write(block)
	}
}

// verdict returns why the bytes are not the image, or nil. All blocks must have
// been written.
func (a *appraisal) verdict() error {
	for _, d := range a.claims {
		if err := d.verify(); err != nil {
			return err
		}
	}
	return nil
}

// meta returns what is to be stored with the image. The version is, in this order,
// that of the origin, whose digest the bytes have; that of an earlier file with the
// same bytes; or that of the driver's record.
func (a *appraisal) meta(file *store.Image) store.Meta {
	m := file.Info().Meta
	if a.known {
		return m
	}
	if former, ok := file.Former(&a.sums); ok && !file.Info().Verified {
		m = former
	}
	switch {
	case a.obj.Version != "":
		m.Version, m.URL, m.OriginModTime = a.obj.Version, a.obj.URL, a.obj.LastModified
	case m.Version == "":
		m.Version = a.version
	}
	m.SHA256 = fmt.Sprintf("%x", a.own.hash.Sum(nil))
	return m
}
