package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"
)

// ChecksumsConfig says where the checksums of an origin's images are. File and
// Log are required.
//
// File and Signature are names of the origin. One that begins with a slash is
// one for all images; another one lies beside the image, or beside the list. In
// either {name} stands for the image: for its whole name behind a slash, else
// for the last part of it.
type ChecksumsConfig struct {
	File      string
	Required  bool     // images that are not listed are passed through and not stored
	Keyring   *Keyring // by one of whose keys a list must be signed; nil: by nobody
	Signature string   // of the list; "": it is within
	Log       *slog.Logger
}

// maxChecksums bounds a list, in bytes. It has room for 200 000 images; what is
// larger is no list, but an image under its name.
const maxChecksums = 16 << 20

// listTimeout is how long a list is read, with its signature. It is no longer
// than clients wait for an image, and long enough for 16 MiB at 5 Mbit/s.
const listTimeout = 30 * time.Second

// Checksums returns o with the digests that lists of checksums declare. What a
// list says of an image goes before what the origin says: the version is the
// listed digest, and a changed line another version. A list is asked for each
// time that an image is, by however many at once, and read when it has changed.
//
// Without a list, or a line in it, the image is as o has it; it is [RefusedSum]
// where checksums are required. A list that cannot be read counts as it was, if it
// was read since the start.
func Checksums(o Origin, cfg ChecksumsConfig) (Origin, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("origin %s: checksums: %w", o.Name(), err)
	}
	return &checksums{Origin: o, cfg: cfg, paired: newRecent[pairing](rememberedPairings)}, nil
}

// checksums is an origin with lists of checksums.
type checksums struct {
	Origin
	cfg    ChecksumsConfig
	paired *recent[pairing] // by the name of an image
	lists  heldLists
	asking singleflight.Group // by the name of a list
}

// Stat implements [Origin].
func (c *checksums) Stat(ctx context.Context, name string) (Object, error) {
	obj, err := c.Origin.Stat(ctx, name)
	if err != nil {
		return Object{}, err
	}
	return c.describe(ctx, name, obj)
}

// Open implements [Origin].
func (c *checksums) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	if r.Version != "" {
		return c.openVersion(ctx, r)
	}
	obj, body, err := c.Origin.Open(ctx, r)
	if err != nil {
		return Object{}, nil, err
	}
	if obj, err = c.describe(ctx, r.Name, obj); err != nil {
		body.Close()
		return Object{}, nil, err
	}
	return obj, body, nil
}

// describe adds to what the origin says of an image what is listed.
func (c *checksums) describe(ctx context.Context, name string, obj Object) (Object, error) {
	said, err := c.said(ctx, name)
	if err != nil {
		return Object{}, err
	}
	return c.declare(name, obj, said), nil
}

// saying is what the lists say of an image.
type saying struct {
	digests []Digest // strongest first; none where it is not listed
	refused Refusal  // why it is not to be stored
}

// declare adds what the lists say to what the origin says. What a digest tells
// to be whole needs no length.
func (c *checksums) declare(name string, obj Object, said saying) Object {
	if len(said.digests) > 0 {
		c.paired.put(name, pairing{now: obj.Validators(), version: obj.Version, digests: said.digests})
		obj.Digests = said.digests
		obj.Version = obj.Validators().version(c.Terms())
		if obj.Refused == RefusedEnd {
			obj.Refused = ""
		}
	}
	obj.Refused = cmp.Or(obj.Refused, said.refused)
	return obj
}

// openVersion opens an image of a version that a list has told, or else the
// origin. Bytes of a listed version are asked for by what the origin said of
// them when they were last seen. Of the rest of an image, which is checked as a
// whole, the digest says enough, also when the origin says something else
// meanwhile, as mirrors behind one name do.
func (c *checksums) openVersion(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	pair := c.paired.get(r.Name)
	if pair.declares(r.Version) {
		obj, body, err := c.openPaired(ctx, r, pair)
		if r.Length >= 0 || !errors.Is(err, ErrChanged) {
			return obj, body, err
		}
	}
	said, err := c.said(ctx, r.Name)
	if err != nil {
		return Object{}, nil, err
	}
	_, isDigest := digestOf(r.Version)
	switch {
	case declares(said.digests, r.Version):
		return c.openListed(ctx, r, pair, said.digests)
	case isDigest && len(said.digests) > 0:
		return Object{}, nil, fmt.Errorf("%w: %s is listed as %s now, not %s", ErrChanged, r.Name, said.digests[0].version(), r.Version)
	}
	obj, body, err := c.Origin.Open(ctx, r)
	if err == nil {
		obj = c.declare(r.Name, obj, said)
		obj.Version = r.Version
	}
	return obj, body, err
}

// openListed opens what a list has just called by the version that is asked for.
func (c *checksums) openListed(ctx context.Context, r Request, pair pairing, digests []Digest) (Object, io.ReadCloser, error) {
	alone := pairing{now: NoValidators(), digests: digests} // the digest, and the size
	switch {
	case pair.declares(r.Version): // it has been tried
		alone.now.Size = pair.now.Size
		return c.openPaired(ctx, r, alone)
	case r.Known == nil:
		return c.openPaired(ctx, r, alone)
	}
	alone.now.Size = r.Known.Size
	pair = pairing{now: *r.Known, digests: digests}
	pair.now.Digests = nil
	pair.version = pair.now.version(c.Terms())
	obj, body, err := c.openPaired(ctx, r, pair)
	if r.Length < 0 && errors.Is(err, ErrChanged) {
		return c.openPaired(ctx, r, alone)
	}
	return obj, body, err
}

// openPaired opens what belongs to a listed version.
func (c *checksums) openPaired(ctx context.Context, r Request, pair pairing) (Object, io.ReadCloser, error) {
	version := r.Version
	r.Version, r.Known = pair.version, nil
	if pair.version != "" {
		r.Known = &pair.now
	}
	obj, body, err := c.Origin.Open(ctx, r)
	if err != nil {
		return Object{}, nil, err
	}
	if pair.now.Size >= 0 && obj.Size >= 0 && obj.Size != pair.now.Size {
		body.Close()
		return Object{}, nil, fmt.Errorf("%w: %s has %d bytes now, not %d", ErrChanged, r.Name, obj.Size, pair.now.Size)
	}
	obj = c.declare(r.Name, obj, saying{digests: pair.digests})
	obj.Version = version
	return obj, body, nil
}

// said returns what the lists say of an image as they are now. They say nothing
// of themselves.
func (c *checksums) said(ctx context.Context, name string) (saying, error) {
	if c.cfg.isList(name) {
		return saying{}, nil
	}
	file, signature := c.cfg.files(name)
	held, err := c.list(ctx, file, signature)
	if err != nil {
		return saying{}, err
	}
	said := saying{digests: c.cfg.listed(held.list, name)}
	if len(said.digests) == 0 && c.cfg.Required {
		said.refused = RefusedSum
	}
	return said, nil
}

// list returns the list for an image as it is now. However many ask at once,
// one question is under way; who leaves does not end it for the others.
func (c *checksums) list(ctx context.Context, file, signature string) (heldList, error) {
	answer := c.asking.DoChan(file, func() (any, error) {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
		defer cancel()
		return c.renew(own, file, signature), nil
	})
	select {
	case a := <-answer:
		return a.Val.(heldList), nil
	case <-ctx.Done():
		return heldList{}, context.Cause(ctx)
	}
}

// renew asks for a list, reads it if it has changed, and keeps it.
func (c *checksums) renew(ctx context.Context, file, signature string) heldList {
	before := c.lists.get(file)
	now, err := c.read(ctx, file, signature, before)
	switch {
	case err == nil:
		now.trouble = text(now.err)
	case before.usable():
		now = before // until the origin says something else
		now.trouble = "it counts as it was read before: " + text(err)
	default:
		now = heldList{err: err, trouble: text(err)}
	}
	c.say(file, before.trouble, now.trouble)
	c.lists.keep(file, now)
	return now
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// say logs what became of a list, when that is something new.
func (c *checksums) say(file, before, now string) {
	log := c.cfg.Log.With("origin", c.Name(), "list", file)
	switch {
	case now == before:
	case now != "":
		log.Warn("there is trouble with a list of checksums", "error", now, "required", c.cfg.Required)
	default:
		log.Info("a list of checksums is read again")
	}
}

// errNoList says that what the origin has under the name of a list is none, or
// not signed as it should be.
var errNoList = errors.New("no list of checksums")

// read returns the list as it is now, and in it why it counts as none. The
// error is that of an origin that does not tell.
func (c *checksums) read(ctx context.Context, file, signature string, before heldList) (heldList, error) {
	obj, err := c.Origin.Stat(ctx, file)
	switch {
	case errors.Is(err, ErrNotFound):
		return heldList{err: err}, nil
	case err != nil:
		return heldList{}, fmt.Errorf("ask for %s: %w", file, err)
	case c.unchanged(ctx, obj.Version, signature, before):
		return before, nil
	}
	var now heldList
	text, err := c.fetch(ctx, file, &now.version)
	if err == nil {
		now.size = int64(len(text))
		text, err = c.verify(ctx, text, signature, &now.signed)
	}
	if err == nil {
		if now.list = parseChecksums(text); now.list.empty() {
			err = fmt.Errorf("%w: %s holds no checksum", errNoList, file)
		}
	}
	switch {
	case errors.Is(err, errNoList), errors.Is(err, ErrNotFound):
		return heldList{err: err, version: now.version, signed: now.signed}, nil
	case err != nil:
		return heldList{}, err
	}
	if n := len(now.list.disputed); n > 0 {
		c.cfg.Log.Warn("a list has two checksums of one image, which count as none", "origin", c.Name(), "list", file, "images", n)
	}
	return now, nil
}

// unchanged reports whether a list that is of a version now is the one that was
// read. One that counts as none may only lack another signature.
func (c *checksums) unchanged(ctx context.Context, version, signature string, before heldList) bool {
	if version == "" || before.version != version {
		return false
	}
	if before.err == nil || c.cfg.Keyring == nil || signature == "" {
		return true
	}
	obj, err := c.Origin.Stat(ctx, signature) // whose failure is met again when it is read
	return err == nil && obj.Version != "" && obj.Version == before.signed
}

// verify returns what of a text is signed.
func (c *checksums) verify(ctx context.Context, text []byte, signature string, version *string) (signed []byte, err error) {
	switch {
	case c.cfg.Keyring == nil:
		return text, nil
	case signature == "":
		signed, err = c.cfg.Keyring.verifyInline(text)
	default:
		sig, err := c.fetch(ctx, signature, version)
		if err != nil {
			return nil, err
		}
		if signed, err = c.cfg.Keyring.verifyDetached(text, sig); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errNoList, signature, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoList, err)
	}
	return signed, nil
}

// fetch reads a file of the origin and says of which version it is.
func (c *checksums) fetch(ctx context.Context, file string, version *string) ([]byte, error) {
	obj, body, err := c.Origin.Open(ctx, Request{Name: file, Length: -1})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	defer body.Close()
	*version = obj.Version
	if obj.Size > maxChecksums {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are read", errNoList, file, obj.Size, maxChecksums)
	}
	text, err := readBounded(body, maxChecksums)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("%w: %s: %w", errNoList, file, err)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return text, nil
}
