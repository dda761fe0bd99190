package cache

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/host/store"
)

// adopted counts the images in the directory that have no block table, since
// another program stored them.
type adopted struct {
	images     int
	unreadable int
	first      store.Info // of the unreadable ones
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

// report logs what was adopted. The files are not changed: they keep their owners
// and modes.
func (a *adopted) report(log *slog.Logger) {
	if a.images > 0 {
		log.Info("some images have no block tables and are served unverified", "images", a.images)
	}
	if a.unreadable > 0 {
		log.Warn("some images cannot be read by this process and are fetched again when they are requested; change the owner of their files, or delete them",
			"images", a.unreadable, "first", a.first.ID, "error", a.first.Unreadable)
	}
}

// unopened notes that the file of a cached image cannot be opened. If this process
// lacks the permission, that is not a failure of the disk; the image is fetched again
// and replaced.
func (c *Cache) unopened(id string, err error) {
	if errors.Is(err, fs.ErrPermission) {
		c.log.Warn("the file of a cached image cannot be read by this process; the image is fetched again", "image", id, "error", err)
		return
	}
	c.disk.fail(err)
}
