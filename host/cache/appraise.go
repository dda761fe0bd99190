package cache

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// appraisal finds out what an image is of which the cache does not know
// everything: its block table is missing, or its version. Of one that is known
// it wants to see nothing.
type appraisal struct {
	version string // that the image is believed to have; may be empty
	obj     origin.Object
	known   bool
	sums    store.Sums
	own     *digester   // SHA-256
	claims  []*digester // digests that the bytes must have
}

// appraise prepares the appraisal of an open image. The error is that of the
// context; an origin that does not answer has no say.
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
		return a, nil // of an origin that is not configured any more
	}
	ask, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	obj, err := o.Stat(ask, name)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		c.log.Info("the origin has no say about an image that another program stored", "image", file.Info().ID, "error", err)
	case len(obj.Digests) > 0:
		a.obj = obj
		a.claims = append(a.claims, newDigester(obj.Digests))
	}
	return a, nil
}

// versionDigest returns the digest that a version is.
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

// verdict says why the bytes are not the image, once all were seen.
func (a *appraisal) verdict() error {
	for _, d := range a.claims {
		if err := d.verify(); err != nil {
			return err
		}
	}
	return nil
}

// meta returns what is to be stored with the image. What the origin says of
// bytes whose digest is right goes before what an earlier file of the same
// bytes had, and that before the version that the driver's record has.
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
