package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"sync"
)

// scanners is how many images a scan looks at at once. On a cold disk each
// block table is a read of its own, and a scan takes as long as they wait in
// line: 100 000 took 40 s one by one.
const scanners = 16

// scanChunk is how many names are looked at before yield is called for them.
const scanChunk = 1024

// Scan calls yield for each image, one after the other and in no order, and
// stops at its first error. It reads the block table of each image, because
// the version in it is part of Info. A file that vanishes meanwhile is left
// out, and one that appears may be. A file that cannot be looked at is left
// out too, and is the error in the end.
//
// Afterwards it removes block tables whose image is gone.
func (s *Store) Scan(yield func(Info) error) error {
	tables, err := s.tables()
	if err != nil {
		return err
	}
	entries, err := s.fs.ReadDir("scan", ".")
	if err != nil {
		return fmt.Errorf("scan cache directory: %w", err)
	}
	var unread error
	for chunk := range slices.Chunk(entries, scanChunk) {
		for _, f := range s.inspect(chunk) {
			switch {
			case errors.Is(f.err, fs.ErrNotExist): // or no image
				continue
			case f.err != nil:
				unread = f.err
				continue
			}
			if err := yield(f.info); err != nil {
				return err
			}
			delete(tables, f.table)
		}
	}
	if unread != nil {
		return fmt.Errorf("scan cache directory: %w", unread)
	}
	for name := range tables {
		s.sweepTable(name)
	}
	return nil
}

// found is what a scan finds under one name.
type found struct {
	info  Info
	table string // where its table is, if it has one
	err   error
}

// inspect looks at several files at once.
func (s *Store) inspect(entries []fs.DirEntry) []found {
	list := make([]found, len(entries))
	var work sync.WaitGroup
	for first := range min(scanners, len(entries)) {
		work.Go(func() {
			for i := first; i < len(entries); i += scanners {
				list[i] = s.inspectFile(entries[i].Name())
			}
		})
	}
	work.Wait()
	return list
}

func (s *Store) inspectFile(id string) found {
	if !ValidID(id) {
		return found{err: fs.ErrNotExist}
	}
	fi, err := s.lstat("scan.stat", id)
	if err != nil {
		return found{err: err}
	}
	return found{info: makeInfo(id, fi, s.readTable(id, fi)), table: tableName(id, inode(fi))}
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
