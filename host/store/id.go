package store

import (
	"errors"
	"regexp"
)

// ErrBadID says that a name can be no image's id.
var ErrBadID = errors.New("bad image id")

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// reserved are the names in the cache directory that are no images: its own
// directories, and what Glance's drivers keep beside the images.
var reserved = map[string]bool{
	dirIncomplete: true, dirInvalid: true, dirQueue: true,
	"cache.db": true, "cache.db-journal": true, "cache.db-wal": true, "cache.db-shm": true, // Glance's sqlite driver
	"image_cache_db_init": true, // its lock file
	"checkme":             true, // what its xattr driver leaves behind
}

// ValidID reports whether id can name an image. Such a name holds no slash,
// no tilde and no leading dot, so that it cannot leave the directory, be one
// of our partial files, or be .imgcache.
func ValidID(id string) bool { return idPattern.MatchString(id) && !reserved[id] }
