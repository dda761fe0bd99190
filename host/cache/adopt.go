package cache

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/host/store"
)

// adopted counts the images in the directory that another program stored, as
// far as a block table tells.
type adopted struct {
	images     int
	unreadable int
	first      store.Info // the first unreadable one
}

func (a *adopted) count(info store.Info) {
	if info.Verified {
		return
	}
	a.images++
	if info.Unreadable == nil {
		return
	}
	if a.unreadable == 0 {
		a.first = info
	}
	a.unreadable++
}

// report tells the operator what was adopted. Nothing of it is changed: the
// files keep their owners and modes.
func (a *adopted) report(log *slog.Logger) {
	if a.images > 0 {
		log.Info("images without block tables are served as unverified", "images", a.images)
	}
	if a.unreadable > 0 {
		log.Warn("images that this process may not read are fetched anew when they are asked for; give it their files, or delete them",
			"images", a.unreadable, "first", a.first.ID, "error", a.first.Unreadable)
	}
}

// unopened deals with a cached image whose file cannot be opened. One that
// belongs to somebody else is no sign of a bad disk: it is fetched anew and
// replaced.
func (c *Cache) unopened(id string, err error) {
	if errors.Is(err, fs.ErrPermission) {
		c.log.Warn("the file of a cached image may not be read; it is fetched anew", "image", id, "error", err)
		return
	}
	c.disk.fail(err)
}
