package records

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
)

// lastDriver remembers across restarts which driver keeps the records. Its file
// has the names of drivers: first the one that was in use, then those that lack
// nothing except what their record logs hold. Only the recorder's goroutine uses
// it. A nil lastDriver remembers nothing.
type lastDriver struct {
	fs      store.FS
	path    string
	log     *slog.Logger
	offline bool // for a single command: only a migration writes the file

	read bool
	last []string // what the file holds
}

// keep says that the records are merged, and which drivers keep them now. It warns
// if another driver was in use before: an operator may have changed the driver
// without moving the records, or moved them without changing the configuration.
func (m *lastDriver) keep(names []string) {
	if m == nil {
		return
	}
	if !m.read {
		m.compare(names[0])
	}
	if !m.offline {
		m.write(names)
	}
}

// renew makes the next call of write replace the file. It is called when another
// program removed the file.
func (m *lastDriver) renew() {
	if m != nil {
		m.last = nil
	}
}

// compare reads the file and warns if another driver kept the records.
func (m *lastDriver) compare(now string) {
	data, err := lines.ReadFile(m.fs, "driver.read", m.path)
	if err != nil && !lines.Absent(err) {
		m.log.Warn("could not read which driver kept the records last", "file", m.path, "error", err)
	}
	m.last, m.read = strings.Fields(string(data)), true
	switch {
	case len(m.last) == 0 || m.last[0] == now:
	case slices.Contains(m.last, now):
		m.log.Warn("the records were moved to another driver, but the configuration still names the one before; that keeps them again, and nothing is missing",
			"last", m.last[0], "now", now)
	default:
		m.log.Warn("another driver kept the records until now; the hits and times of this one may be out of date",
			"last", m.last[0], "now", now,
			"to move them", "stop the service and run: imgcache-host driver migrate --from "+m.last[0]+" --to "+now)
	}
}

// write replaces the file. If that fails, only the warning at the next start may be
// missing or wrong.
func (m *lastDriver) write(names []string) {
	if m == nil || slices.Equal(names, m.last) {
		return
	}
	f, err := lines.ReplaceFile(m.fs, "driver", m.path, []byte(strings.Join(names, " ")+"\n"))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		m.log.Warn("could not write which driver keeps the records", "error", err)
		return
	}
	m.last, m.read = names, true
}
