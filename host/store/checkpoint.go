package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"
)

// A checkpoint is a file with the name of a partial file. It says how far the
// partial file can be trusted:
//
//	offset  bytes  what
//	0       8      "imgfil" 0x00 0x01; the last byte is the version
//	8       4      bytes in a block
//	12      4      m, the length of the label
//	16      m      the label, which the caller chooses
//	16+m    4      CRC32C of everything before
//	20+m    4n     CRC32C of each of the first n blocks of the partial file
//
// It is never synced. After a crash of the program everything that was written
// is there. After a loss of power, what is missing in either file shows as a
// block with a wrong checksum, and the partial file is cut before that block.
const (
	checkpointMagic  = "imgfil\x00\x01"
	checkpointHeader = 16
)

// checkpoint is the open file of a staged one.
type checkpoint struct {
	file  File
	next  int64 // offset of the next checksum
	noted int   // number of checksums written
}

func (c *checkpoint) close() {
	if c != nil {
		c.file.Close()
	}
}

// Unfinished is a partial file that [Store.Resume] can continue.
type Unfinished struct {
	Name    string // in incomplete/
	ID      string
	Size    int64 // bytes; Resume may find that fewer are correct
	ModTime time.Time
	Label   []byte // what was given to Checkpoint
}

// Checkpoint lets a later run continue the file if this run ends before its
// commit. label, of at most 64 KiB, says what the file is for. After an error
// the file is as it was, without a checkpoint.
func (st *Staged) Checkpoint(label []byte) error {
	if len(label) > maxMeta {
		return fmt.Errorf("the label of a checkpoint has %d bytes; expected at most %d", len(label), maxMeta)
	}
	le := binary.LittleEndian
	b := append([]byte(nil), checkpointMagic...)
	b = le.AppendUint32(b, BlockSize)
	b = le.AppendUint32(b, uint32(len(label)))
	b = append(b, label...)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	f, err := st.s.fs.OpenFile("checkpoint", join(fillsDir, st.name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, filePerm)
	if err != nil {
		return fmt.Errorf("make checkpoint: %w", err)
	}
	st.notes = &checkpoint{file: f, next: int64(len(b))}
	if _, err := f.WriteAt(b, 0); err != nil {
		st.forget()
		return fmt.Errorf("write checkpoint: %w", err)
	}
	st.note()
	return nil
}

// note adds the checksums of blocks that are complete now. If that fails, the
// file loses its checkpoint.
func (st *Staged) note() {
	c := st.notes
	if c == nil || c.noted == len(st.sums.sums) {
		return
	}
	var b []byte
	for _, sum := range st.sums.sums[c.noted:] {
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	if _, err := c.file.WriteAt(b, c.next); err != nil {
		st.s.log.Warn("a restart would begin this transfer again", "image", st.id, "error", fmt.Errorf("write checkpoint: %w", err))
		st.forget()
		return
	}
	c.next += int64(len(b))
	c.noted = len(st.sums.sums)
}

// Resumable reports whether a later run could continue the file.
func (st *Staged) Resumable() bool { return st.notes != nil && st.notes.noted > 0 }

// forget removes the checkpoint.
func (st *Staged) forget() {
	if st.notes == nil {
		return
	}
	st.notes.close()
	st.notes = nil
	if err := st.s.remove("checkpoint.remove", join(fillsDir, st.name)); err != nil {
		st.s.log.Debug("could not remove the checkpoint", "image", st.id, "error", err)
	}
}

// unfinished reports whether a partial file of ours has a checkpoint for at
// least one block.
func (s *Store) unfinished(p Partial) (Unfinished, bool) {
	u := Unfinished{Name: p.Name, ID: p.ID, Size: p.Size, ModTime: p.ModTime}
	f, err := s.fs.OpenFile("checkpoint.open", join(fillsDir, p.Name), os.O_RDONLY, 0)
	if err != nil {
		return u, false
	}
	defer f.Close()
	label, sums, err := readCheckpoint(f)
	if err != nil {
		s.log.Warn("a checkpoint cannot be used; its transfer begins again", "file", p.Name, "error", err)
	}
	u.Label = label
	return u, err == nil && len(sums) > 0 && p.Size >= BlockSize
}

var errCheckpoint = errors.New("not a checkpoint")

// readCheckpoint returns the label and the checksums. Every error of its
// content wraps errCheckpoint.
func readCheckpoint(f File) (label []byte, sums []uint32, err error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	const most = 1 << 30 // the checksums of 256 TiB
	if fi.Size() > most {
		return nil, nil, fmt.Errorf("%w: %d bytes", errCheckpoint, fi.Size())
	}
	b := make([]byte, fi.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, fi.Size()), b); err != nil {
		return nil, nil, err
	}
	return parseCheckpoint(b)
}

func parseCheckpoint(b []byte) (label []byte, sums []uint32, err error) {
	le := binary.LittleEndian
	if len(b) < checkpointHeader || string(b[:len(checkpointMagic)]) != checkpointMagic {
		return nil, nil, fmt.Errorf("%w: no header", errCheckpoint)
	}
	n := int(le.Uint32(b[12:]))
	if le.Uint32(b[8:]) != BlockSize || n > maxMeta || len(b) < checkpointHeader+n+4 {
		return nil, nil, fmt.Errorf("%w: block size %d, label of %d bytes", errCheckpoint, le.Uint32(b[8:]), n)
	}
	end := checkpointHeader + n
	if crc32.Checksum(b[:end], castagnoli) != le.Uint32(b[end:]) {
		return nil, nil, fmt.Errorf("%w: wrong checksum", errCheckpoint)
	}
	label = b[checkpointHeader:end]
	for b = b[end+4:]; len(b) >= 4; b = b[4:] {
		sums = append(sums, le.Uint32(b))
	}
	return label, sums, nil
}

// Resume continues a partial file that [Store.Recover] reported or that was
// released. It calls yield with the bytes of the file, in order, as long as
// their checksums are right, and cuts the file after the last correct block. An
// error of yield is returned. After an error the file is as it was, without an
// owner; the error is fs.ErrNotExist when the file or its checkpoint is gone.
func (s *Store) Resume(name string, yield func([]byte) error) (*Staged, error) {
	id, _, ours := splitName(name)
	if !ours {
		return nil, fmt.Errorf("%w: %q is not the name of a partial file", ErrBadID, name)
	}
	st := &Staged{s: s, id: id, name: name}
	s.mu.Lock()
	taken := s.staged[name] != nil
	if !taken {
		s.staged[name] = st
	}
	s.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("%s/%s is being written", incompleteDir, name)
	}
	if err := st.reopen(yield); err != nil {
		st.disown()
		st.notes.close()
		if st.file != nil {
			st.file.Close()
		}
		return nil, fmt.Errorf("resume partial file: %w", err)
	}
	return st, nil
}

func (st *Staged) reopen(yield func([]byte) error) (err error) {
	if st.file, err = st.s.fs.OpenFile("resume", st.path(), os.O_RDWR, 0); err != nil {
		return err
	}
	f, err := st.s.fs.OpenFile("resume.checkpoint", join(fillsDir, st.name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st.notes = &checkpoint{file: f}
	label, sums, err := readCheckpoint(f)
	if err != nil {
		return err
	}
	if err := st.reread(sums, yield); err != nil {
		return err
	}
	if err := st.file.Truncate(st.Size()); err != nil {
		return err
	}
	st.zerosFrom = st.Size()
	st.end.Store(st.Size())
	n := len(st.sums.sums)
	st.notes.noted, st.notes.next = n, int64(checkpointHeader+len(label)+4+4*n)
	return f.Truncate(st.notes.next)
}

// reread reads the blocks that have the right checksum, and stops at the first
// that has not.
func (st *Staged) reread(sums []uint32, yield func([]byte) error) error {
	buf := make([]byte, BlockSize)
	for i, want := range sums {
		n, err := st.file.ReadAt(buf, int64(i)*BlockSize)
		if n < BlockSize {
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
		if crc32.Checksum(buf, castagnoli) != want {
			st.s.log.Warn("the partial file is damaged from this offset on, which is fetched again", "image", st.id, "offset", st.Size())
			return nil
		}
		if err := yield(buf); err != nil {
			return err
		}
		st.sums.write(buf)
		st.size.Add(BlockSize)
	}
	return nil
}

// dropCheckpoints removes checkpoints whose partial file is gone.
func (s *Store) dropCheckpoints() error {
	var errs []error
	err := s.files("checkpoint.list", fillsDir, func(fi fs.FileInfo) error {
		_, err := s.lstat("checkpoint.lstat", join(incompleteDir, fi.Name()))
		if !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err := s.remove("checkpoint.drop", join(fillsDir, fi.Name())); err != nil {
			errs = append(errs, fmt.Errorf("remove checkpoint: %w", err))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// Park gives up the file, so that [Store.Resume] can continue it. It can be
// read until Release.
func (st *Staged) Park() Unfinished {
	u := Unfinished{Name: st.name, ID: st.id, Size: st.Size(), ModTime: time.Now()}
	st.notes.close()
	st.notes = nil
	st.disown()
	return u
}
