package xattr

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/imgcache/imgcache-host/sdk"
)

// own keeps all of a record, in one attribute of ours. It keeps Glance's
// beside it, so that Glance can take the directory back.
type own struct {
	dir   *directory
	notes *notes
}

// sources returns the last complete batches. Without them every source is
// unknown, and the host reconciles.
func (o *own) sources(sdk.Batch) (sources, error) {
	value, err := o.dir.attrs.get(o.dir.private, sourcesName)
	if err != nil || value == nil {
		return nil, err
	}
	known, err := parseSources(string(value))
	if err != nil {
		o.notes.once(sourcesName, "the position in the record log is lost; the host sends its records again", "attribute", sourcesName, "error", err)
	}
	return known, nil
}

// keepSources keeps the newest ones that fit.
func (o *own) keepSources(s sources) error {
	for {
		err := o.dir.attrs.set(o.dir.private, sourcesName, []byte(s.encode()))
		if len(s) == 1 || !tooLong(err) && !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		s = s[:len(s)/2]
	}
}

func (o *own) load(im *image) (held, error) {
	value, err := o.dir.attrs.get(im.File, recordName)
	if err != nil {
		return held{}, err
	}
	var h held
	if value != nil {
		r, err := parseRecord(string(value))
		if err == nil && r.long != "" {
			r.entry.Version, err = o.readVersion(im.id, r.long)
		}
		switch {
		case err == nil:
			h = held{entry: r.entry, exists: true, batches: r.batches, long: r.long}
			h.entry.ID = im.id
		case errors.Is(err, errDamaged):
			o.notes.once("record of "+im.id, "a record is damaged and starts again from zero; the image is not affected", "id", im.id, "attribute", recordName)
		default:
			return held{}, err
		}
	}
	hits, err := o.dir.hits(im)
	h.see(im, hits)
	return h, err
}

// store writes the record at once. Glance's hits are never ahead of it, or they
// would be taken for what Glance has counted.
func (o *own) store(im *image, old, next held) error {
	r := record{entry: next.entry, batches: next.batches}
	if len(strconv.QuoteToASCII(r.entry.Version)) > maxVersion {
		var err error
		if r.long, err = o.keepVersion(im.id, old.long, r.entry.Version); err != nil {
			return fmt.Errorf("keep version: %w", err)
		}
		r.entry.Version = ""
	}
	if old.hits != nil && *old.hits > r.entry.Hits {
		if err := o.dir.setHits(im, old.hits, r.entry.Hits); err != nil {
			return err
		}
		old.hits = &r.entry.Hits
	}
	if err := o.dir.set(im, recordName, r.encode()); err != nil {
		return err
	}
	return o.dir.setHits(im, old.hits, r.entry.Hits)
}

// Where ext4 keeps the attributes of a file in one block there are 4 KiB for all
// of them, whoever set them, or even 1 KiB. So that a record always fits, a
// version longer than any digest and nearly any ETag lies in a file of its own,
// ID~SHA256, and the record has its digest. The file is written before the
// record that refers to it, and removed after.
const (
	maxVersion  = 256 // bytes of its text in quotation marks
	versionsDir = "versions"
)

func versionFile(id, sum string) string { return versionsDir + "/" + id + "~" + sum }

func (o *own) readVersion(id, sum string) (string, error) {
	text, err := o.dir.own.ReadFile(versionFile(id, sum))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errDamaged
	}
	if got := sha256.Sum256(text); err == nil && hex.EncodeToString(got[:]) != sum {
		return "", errDamaged
	}
	return string(text), err
}

// keepVersion returns the digest of a version, which has a file then. It needs
// no rename: a file that was written in part is not the one that its name says,
// and no record refers to it yet.
func (o *own) keepVersion(id, before, version string) (sum string, err error) {
	digest := sha256.Sum256([]byte(version))
	if sum = hex.EncodeToString(digest[:]); sum != before {
		err = o.dir.own.WriteFile(versionFile(id, sum), []byte(version), filePerm)
	}
	return sum, err
}

// sweep removes the files of versions to which no record refers any more.
// Usually there are none at all.
func (o *own) sweep() error {
	dir, err := o.dir.own.Open(versionsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		id, sum, _ := strings.Cut(name, "~")
		if used, err := o.refers(id, sum); err != nil {
			errs = append(errs, err)
		} else if !used {
			errs = append(errs, o.dir.own.Remove(versionsDir+"/"+name))
		}
	}
	return errors.Join(errs...)
}

func (o *own) refers(id, sum string) (used bool, err error) {
	err = o.dir.with(id, func(im *image) error {
		h, err := o.load(im)
		used = h.long == sum
		return err
	})
	return used, err
}
