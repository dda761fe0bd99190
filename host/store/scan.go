package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// scanners is how many images a scan looks at at once. On a cold disk each
// block table is a separate read, and reads one by one are slow: 100 000 took
// 40 s.
const scanners = 16

// scanChunk is how many names are looked at before yield is called for them.
const scanChunk = 1024

// Scan calls yield for each image, one after the other and in no order, and
// stops at its first error. It reads the block table of each image, because
// the version in it is part of Info, and tries to open images without a table.
// It leaves out files that vanish meanwhile, and perhaps files that appear. It
// leaves out files that it cannot look at, and returns an error about them.
//
// If an image has no block table of its own but one that belongs to it, as
// after the directory was copied, it gets that one. At the end tables whose
// image is gone are removed.
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
	byID := sync.OnceValue(func() map[string][]string { return strays(tables) })
	for chunk := range slices.Chunk(entries, scanChunk) {
		for _, f := range s.inspect(chunk, byID) {
			switch {
			case errors.Is(f.err, fs.ErrNotExist): // it is gone, or not an image
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

// Names returns the names in the cache directory that images can have. It does not
// look whether they are files: see [Store.Stat].
func (s *Store) Names() (map[string]bool, error) {
	entries, err := s.fs.ReadDir("names", ".")
	if err != nil {
		return nil, fmt.Errorf("list cache directory: %w", err)
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		if sdk.ValidID(e.Name()) {
			names[e.Name()] = true
		}
	}
	return names, nil
}

// found is what a scan finds under one name.
type found struct {
	info  Info
	table string // name of its table; empty: it has none
	err   error
}

// inspect looks at several files at once.
func (s *Store) inspect(entries []fs.DirEntry, tables func() map[string][]string) []found {
	list := make([]found, len(entries))
	var work sync.WaitGroup
	for first := range min(scanners, len(entries)) {
		work.Go(func() {
			for i := first; i < len(entries); i += scanners {
				list[i] = s.inspectFile(entries[i].Name(), tables)
			}
		})
	}
	work.Wait()
	return list
}

func (s *Store) inspectFile(id string, tables func() map[string][]string) found {
	if !sdk.ValidID(id) {
		return found{err: fs.ErrNotExist}
	}
	fi, err := s.lstat("scan.stat", id)
	if err != nil {
		return found{err: err}
	}
	t, err := s.loadTable(id, fi)
	if err != nil {
		s.log.Warn("the block table cannot be used", "image", id, "error", err)
	} else if t == nil {
		t = s.claim(id, fi, tables()[id])
	}
	info := makeInfo(id, fi, t)
	if t == nil {
		info.Unreadable = s.tryOpen(id)
	}
	return found{info: info, table: tableName(id, inode(fi))}
}

// tryOpen returns the error if this process may not read an image that another
// program stored, perhaps as another user.
func (s *Store) tryOpen(id string) error {
	f, err := s.fs.OpenFile("scan.open", id, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
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

// writes reports whether this process is writing a file that may become the
// image id.
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
