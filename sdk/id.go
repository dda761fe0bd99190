package sdk

import (
	"slices"
	"strings"
)

// MaxIDLen is the length of the longest image id in bytes. Names made of an
// id, such as that of its block table, stay below the 255 bytes of a file
// name.
const MaxIDLen = 128

// reserved are the names in a cache directory that follow the grammar of ids
// but are not images: its own directories, and files that Glance puts beside its
// images. If they were ids, a delete or a prune could destroy them.
var reserved = map[string]bool{
	"incomplete": true,
	"invalid":    true,
	"queue":      true,

	// Locks, which are here when Glance has no lock_path.
	"image_cache_db_init":        true, // the sqlite driver at its start
	"sqlite_centralized_migrate": true, // the move to the central database
	"glance-cache":               true, // a prefetch
	"glance-cache-clean":         true,
	"glance-cache-prune":         true,

	"checkme": true, // probe of the xattr driver
}

// databases are the endings of files of Glance's sqlite driver: the database,
// whose name is an option of Glance, and the files that SQLite keeps beside it.
var databases = []string{".db", ".db-journal", ".db-wal", ".db-shm"}

func isReserved(name string) bool {
	return reserved[name] || slices.ContainsFunc(databases, func(end string) bool { return strings.HasSuffix(name, end) })
}

// ValidID reports whether id can name an image: it matches
// [A-Za-z0-9][A-Za-z0-9._-]{0,127} and is not the name of a directory of the
// cache or of a file that Glance keeps among its images. Such an id is a
// single path element and means the same in every encoding. The host passes
// only such ids to a driver.
func ValidID(id string) bool {
	if id == "" || len(id) > MaxIDLen || isReserved(id) {
		return false
	}
	for i := range len(id) {
		c := id[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}
