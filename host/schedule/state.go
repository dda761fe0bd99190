package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/imgcache/imgcache-host/host/plainfile"
)

// record is what is stored about a schedule between two starts of the service.
type record struct {
	When   string    `json:"when"` // the timetable
	Began  time.Time `json:"began"`
	Result string    `json:"result,omitempty"`
	Error  string    `json:"error,omitempty"`
}

// state is the directory of the records: one file for each schedule, which
// only the goroutine of that schedule touches.
type state string

func (s state) path(name string) string { return filepath.Join(string(s), name+".json") }

// maxRecord bounds the file of a schedule, in bytes. It has some hundred; an error
// text makes it longer.
const maxRecord = 1 << 20

// load returns the record of a schedule; a zero one if there is none.
func (s state) load(name string) (r record, err error) {
	text, err := plainfile.Read(s.path(name), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, fmt.Errorf("read %s: %w", s.path(name), err)
	}
	return r, nil
}

// store replaces the record of a schedule. After an error the old one is
// still there.
func (s state) store(name string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(s), 0o750); err != nil {
		return err
	}
	draft := s.path(name) + ".new"
	_ = os.Remove(draft) // writing would follow a link, and wait at a FIFO
	if err := os.WriteFile(draft, text, 0o640); err != nil {
		return err
	}
	return os.Rename(draft, s.path(name))
}
