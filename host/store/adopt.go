package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// formerName is the place for a table that was written for another file of the
// same id and size. Only reading all bytes of this file can tell whether the
// checksums fit it too, as they do after a directory was copied.
func formerName(id string) string { return join(blocksDir, id+"~"+formerSuffix) }

const formerSuffix = "former"

// Sums computes the checksums of an image's blocks from its bytes, which are
// written to it in order.
type Sums struct{ sums summer }

// Write takes the next bytes and never fails.
func (s *Sums) Write(p []byte) (int, error) {
	s.sums.write(p)
	return len(p), nil
}

// Former returns what was stored with an earlier file of this id, if that file
// had exactly the same bytes.
func (im *Image) Former(sums *Sums) (Meta, bool) {
	t, err := im.s.readTableFile(formerName(im.info.ID), im.info.Size)
	if err != nil || t.size != im.info.Size || !slices.Equal(t.sums, sums.sums.all()) {
		return Meta{}, false
	}
	return t.meta, true
}

// Vouch notes that each block of the image was read and found correct. An image
// without a block table gets one, with m and the checksums of all its bytes;
// otherwise sums may be nil. The error is fs.ErrNotExist when the file was
// changed since it was opened or is no longer the image.
func (im *Image) Vouch(m Meta, sums *Sums) (Info, error) {
	t := &blockTable{identity: identify(im.stat), meta: m}
	if im.table != nil {
		t.sums = im.table.sums
	} else {
		t.sums = sums.sums.all()
	}
	if err := im.unchanged(); err != nil {
		return Info{}, fmt.Errorf("vouch for image: %w", err)
	}
	var err error
	if im.table != nil && im.table.identity == t.identity && im.table.meta == m {
		err = im.s.fs.Chtimes("vouch.time", tableName(im.info.ID, t.inode), im.s.now())
	} else {
		err = im.s.replaceTable(im.info.ID, t)
	}
	if err != nil {
		return Info{}, fmt.Errorf("vouch for image: %w", err)
	}
	if err := im.s.remove("vouch.former", formerName(im.info.ID)); err != nil {
		im.s.log.Debug("could not remove the former block table", "image", im.info.ID, "error", err)
	}
	// If the file was changed meanwhile, the table is right and the file is not.
	if current, err := im.s.isImage(im.info.ID, im.stat); !current {
		im.s.dropTable("vouch.undo", im.info.ID, t.inode)
		return Info{}, fmt.Errorf("vouch for image: %s was replaced in the meantime: %w", im.info.ID, errors.Join(err, fs.ErrNotExist))
	}
	return makeInfo(im.info.ID, im.stat, t), nil
}

// unchanged returns fs.ErrNotExist unless the open file is the image and is as
// it was when it was opened.
func (im *Image) unchanged() error {
	fi, err := im.file.Stat()
	if err != nil {
		return err
	}
	current, err := im.s.isImage(im.info.ID, fi)
	if err == nil && (!current || identify(fi) != identify(im.stat)) {
		err = fmt.Errorf("%s was changed or replaced in the meantime: %w", im.info.ID, fs.ErrNotExist)
	}
	return err
}

// Checked returns when every block of an image was last known to be correct: at
// its commit or by Vouch. The zero time means that it is not known.
func (s *Store) Checked(id string) time.Time {
	if !sdk.ValidID(id) {
		return time.Time{}
	}
	fi, err := s.lstat("checked.image", id)
	if err != nil {
		return time.Time{}
	}
	table, err := s.lstat("checked.table", tableName(id, inode(fi)))
	if err != nil {
		return time.Time{}
	}
	return table.ModTime()
}

// replaceTable is writeTable for an image. At every moment the image has a
// whole table or none, never a part of one.
func (s *Store) replaceTable(id string, t *blockTable) error {
	b, err := t.encode()
	if err != nil {
		return fmt.Errorf("encode block table: %w", err)
	}
	if err := replaceFile(s.fs, "vouch.table", tableName(id, t.inode), b); err != nil {
		return fmt.Errorf("replace block table: %w", err)
	}
	return nil
}

// claim looks for the table of a file without one among the tables of other
// inodes: after a directory was copied, no table has the right inode. A table
// with the same modification time is used at once; one with only the same size
// is put where Former finds it.
func (s *Store) claim(id string, fi fs.FileInfo, tables []string) *blockTable {
	if len(tables) == 0 || s.writes(id) {
		return nil // the tables may belong to a running commit
	}
	if current, err := s.isImage(id, fi); err != nil || !current {
		return nil
	}
	file := identify(fi)
	for _, name := range tables {
		t, err := s.readTableFile(name, file.size)
		if err != nil || t.size != file.size {
			continue
		}
		target := formerName(id)
		if t.fits(file) {
			target = tableName(id, file.inode)
		}
		if name == target {
			continue
		}
		if err := s.fs.Rename("claim.rename", name, target); err != nil {
			s.log.Warn("could not take over the block table", "image", id, "error", err)
			continue
		}
		if t.fits(file) {
			return t
		}
	}
	return nil
}

// strays sorts the names of tables by image.
func strays(tables map[string]bool) map[string][]string {
	byID := map[string][]string{}
	for name := range tables {
		if id, _, ok := splitName(path.Base(name)); ok {
			byID[id] = append(byID[id], name)
		}
	}
	return byID
}

// sweepTable removes a table that existed when the scan began and that the scan
// did not need, unless its image has been committed meanwhile or is being
// committed. If a new image gets the same inode at this very moment, it is
// merely not verified.
func (s *Store) sweepTable(name string) {
	id, suffix, ok := splitName(path.Base(name))
	if !ok || s.writes(id) {
		return // not made by this program, or in use
	}
	fi, err := s.lstat("scan.lstat", id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		ino, perr := strconv.ParseUint(suffix, 16, 64)
		waits := suffix == formerSuffix && s.peekTable(id, fi) == nil
		if waits || perr == nil && ino == inode(fi) {
			return
		}
	}
	if err := s.remove("scan.sweep", name); err != nil {
		s.log.Warn("could not remove the block table", "image", id, "error", err)
	}
}
