package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
)

// Scan calls yield for each image, in no order, and stops at its first error.
// It reads the block table of each image, because the version in it is part
// of Info: two small system calls more than a stat. A file that vanishes
// meanwhile is left out, and one that appears may be.
//
// Afterwards it removes block tables whose image is gone.
func (s *Store) Scan(yield func(Info) error) error {
	tables, err := s.tables()
	if err != nil {
		return err
	}
	var stop error
	err = s.files("scan", ".", func(fi fs.FileInfo) error {
		id := fi.Name()
		if !ValidID(id) {
			return nil
		}
		var t *blockTable
		if name := tableName(id, inode(fi)); tables[name] {
			delete(tables, name)
			t = s.readTable(id, fi)
		}
		stop = yield(makeInfo(id, fi, t))
		return stop
	})
	if stop != nil {
		return stop
	}
	if err != nil {
		return fmt.Errorf("scan cache directory: %w", err)
	}
	for name := range tables {
		s.sweepTable(name)
	}
	return nil
}

// tables returns the names of all block tables.
func (s *Store) tables() (map[string]bool, error) {
	entries, err := s.fs.ReadDir("scan.blocks", blocksDir)
	if err != nil {
		return nil, fmt.Errorf("list block tables: %w", err)
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[join(blocksDir, e.Name())] = true
	}
	return names, nil
}

// sweepTable removes a table that was there when the scan began, and whose
// image the scan did not meet, unless the image has come meanwhile or a
// commit under way will bring it. Should the inode have found a new use at
// this very moment, then the new image is merely not verified.
func (s *Store) sweepTable(name string) {
	id, hex, ok := splitName(path.Base(name))
	if !ok {
		return // not made by this program
	}
	ino, err := strconv.ParseUint(hex, 16, 64)
	if err != nil || s.writes(id) {
		return
	}
	fi, err := s.lstat("scan.lstat", id)
	if err == nil && inode(fi) == ino || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.dropTable("scan.sweep", id, ino)
}

// writes reports whether a file that may become the image id is being
// written.
func (s *Store) writes(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.staged {
		if st.id == id {
			return true
		}
	}
	return false
}
