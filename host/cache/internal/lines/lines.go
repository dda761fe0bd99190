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
	"fmt"
	"hash/crc32"
	"io"
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

// ReadFile returns all bytes of a file. op labels the call for [store.FS].
func ReadFile(fsys store.FS, op, name string) ([]byte, error) {
	f, err := fsys.OpenFile(op, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// ReplaceFile writes b durably under a new name, renames it to name, and returns
// the file, open for appending. After an error the old file remains valid; but if
// the last step failed, a restart may find the new one.
func ReplaceFile(fsys store.FS, op, name string, b []byte) (store.File, error) {
	tmp := name + ".new"
	f, err := fsys.OpenFile(op+".rewrite", tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(op+".rename", tmp, name)
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
