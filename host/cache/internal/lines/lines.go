// Package lines reads and writes the engine's own files, and replaces a file as a
// whole. The files are made of checked lines,
//
//	CRC32C-in-hex SPACE JSON NEWLINE
//
// so that a torn write or a damaged disk is noticed, and costs only the lines that
// it hit.
package lines

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"github.com/imgcache/imgcache-host/host/store"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends v as a checked line. It must be possible to write v as JSON.
func Append(b []byte, v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(b, body...), '\n')
}

// Parse reads a checked line, without its newline, into v. It reports
// whether the line is whole.
func Parse(text []byte, v any) bool {
	sum, body, ok := bytes.Cut(text, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	return ok && err == nil && crc32.Checksum(body, castagnoli) == uint32(want) && json.Unmarshal(body, v) == nil
}

// maxFile bounds what is read of a file, in bytes. The largest is the record log
// while some million images are new.
const maxFile = 1 << 30

// ErrTooLarge says that a file is larger than any of these files gets.
var ErrTooLarge = fmt.Errorf("larger than %d bytes", int64(maxFile))

// ReadFile returns all bytes of a file. op labels the call for [store.FS].
func ReadFile(fsys store.FS, op, name string) ([]byte, error) {
	f, err := fsys.OpenFile(op, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxFile {
		return nil, fmt.Errorf("%s: %w", name, ErrTooLarge)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// Absent reports whether an error of [ReadFile] means that there is no such file,
// and nothing else in its place.
func Absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !errors.Is(err, store.ErrNotRegular)
}

// ReplaceFile writes b durably under a new name, renames it to name, and returns
// the file, open for appending. What is no file and stands in the way is renamed,
// with ".damaged" behind its name. After an error the old file remains valid; but
// if the last step failed, a restart may find the new one.
func ReplaceFile(fsys store.FS, op, name string, b []byte) (store.File, error) {
	tmp := name + ".new"
	create := func() (store.File, error) {
		return fsys.OpenFile(op+".rewrite", tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	}
	f, err := create()
	if errors.Is(err, store.ErrNotRegular) && putAside(fsys, op, tmp) {
		f, err = create()
	}
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(op+".rename", tmp, name)
		if err != nil && putAside(fsys, op, name) {
			err = fsys.Rename(op+".rename", tmp, name)
		}
	}
	if err == nil {
		// If the old file came back after a loss of power, it would undo what
		// was acknowledged since.
		err = fsys.SyncDir(op+".syncdir", path.Dir(name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// putAside renames what has the name of a file and is none. It reports whether
// that was so and the name is free now.
func putAside(fsys store.FS, op, name string) bool {
	info, err := fsys.Lstat(op+".lstat", name)
	return err == nil && !info.Mode().IsRegular() && fsys.Rename(op+".setaside", name, name+".damaged") == nil
}
