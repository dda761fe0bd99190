package records

import (
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
)

// lastDriver remembers over restarts which driver keeps the records. Its file has
// their names: first the one that was in use, then those that miss nothing but
// what their record logs hold. It is used by the recorder's goroutine. A nil
// mark remembers nothing.
type lastDriver struct {
	fs      store.FS
	path    string
	log     *slog.Logger
	offline bool // a command looks, and only a migration writes

	read bool
	last []string // what the file holds
}

// keep says that the records are merged, and who keeps them now. That it was
// another driver until now is worth a warning: an operator may have changed the
// driver without moving the records, or moved them without changing it.
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

// renew has the next write replace the file, which somebody else took away.
func (m *lastDriver) renew() {
	if m != nil {
		m.last = nil
	}
}

// compare reads the file and complains.
func (m *lastDriver) compare(now string) {
	data, err := lines.ReadFile(m.fs, "driver.read", m.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("it is not known which driver kept the records last", "error", err)
	}
	m.last, m.read = strings.Fields(string(data)), true
	switch {
	case len(m.last) == 0 || m.last[0] == now:
	case slices.Contains(m.last, now):
		m.log.Warn("the records were moved to another driver, and the configuration names the one before; it goes on, and misses nothing",
			"last", m.last[0], "now", now)
	default:
		m.log.Warn("another driver kept the records until now; hits and times that this one has may be older",
			"last", m.last[0], "now", now,
			"to move them", "stop the service, and: imgcache-host driver migrate --from "+m.last[0]+" --to "+now)
	}
}

// write replaces the file. Without it the next start cannot warn, and no more.
func (m *lastDriver) write(names []string) {
	if m == nil || slices.Equal(names, m.last) {
		return
	}
	f, err := lines.ReplaceFile(m.fs, "driver", m.path, []byte(strings.Join(names, " ")+"\n"))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		m.log.Warn("it is not remembered which driver keeps the records", "error", err)
		return
	}
	m.last, m.read = names, true
}
