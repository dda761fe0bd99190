package centraldb

import (
	"math"

	"github.com/imgcache/imgcache-host/sdk"
)

// layout is the table that the records of images are in. Its statements have
// places as those of this package have; ? for the node is the number that the
// table knows it by.
type layout struct {
	list   string // the records of a node
	some   string // those of some images, LIST
	remove string // the same, to remove them
	drop   string // all of a node, to remove them
	write  string // inserts or replaces records
	row    string // one of those, where write has a place for each: ROWS

	// holders are the live nodes that hold an image: name, URL, last heartbeat.
	holders string

	versions bool              // it has a column for them
	maxHits  uint64            // that its column holds
	fits     func(string) bool // whether it has a place for an id
}

// The statements on our own table that both products understand.
const (
	ownColumns = `image_id, size, hits, last_accessed, last_modified, version`
	ownRecords = `SELECT ` + ownColumns + ` FROM imgcache_images WHERE node_id = ?`
	ownDrop    = `DELETE FROM imgcache_images WHERE node_id = ?`
	ownHolders = `SELECT n.name, n.url, n.seen FROM imgcache_images i JOIN imgcache_nodes n ON n.node_id = i.node_id
		WHERE i.image_id = ? AND n.seen >= NOW - ? ORDER BY n.seen DESC`
)

func anyID(string) bool { return true }

var ownInPostgres = &layout{
	list: ownRecords, some: ownRecords + ` AND image_id = ANY(?)`, remove: ownDrop + ` AND image_id = ANY(?)`, drop: ownDrop,
	write: `INSERT INTO imgcache_images (node_id, ` + ownColumns + `)
		SELECT ?::bigint, * FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[])
		ON CONFLICT (node_id, image_id) DO UPDATE SET version = excluded.version, size = excluded.size, hits = excluded.hits,
			last_accessed = excluded.last_accessed, last_modified = excluded.last_modified`,
	holders: ownHolders, versions: true, maxHits: math.MaxUint64, fits: anyID,
}

var ownInMySQL = &layout{
	list: ownRecords, some: ownRecords + ` AND image_id IN (LIST)`, remove: ownDrop + ` AND image_id IN (LIST)`, drop: ownDrop,
	write: `INSERT INTO imgcache_images (node_id, ` + ownColumns + `) VALUES ROWS
		ON DUPLICATE KEY UPDATE version = VALUES(version), size = VALUES(size), hits = VALUES(hits),
			last_accessed = VALUES(last_accessed), last_modified = VALUES(last_modified)`,
	row:     `(?, ?, ?, ?, ?, ?, ?)`,
	holders: ownHolders, versions: true, maxHits: math.MaxUint64, fits: anyID,
}

// values are those of a record after its node, in the order of the columns.
// The version is the last: a layout without versions leaves it away.
func (l *layout) values(e sdk.Entry) (id string, size, hits, accessed, modified int64, version string) {
	return e.ID, e.Size, int64(min(e.Hits, l.maxHits)), microseconds(e.LastAccessed), microseconds(e.LastModified), e.Version
}

// inColumns are the arguments of write for a product that takes arrays.
func (l *layout) inColumns(node int64, entries []sdk.Entry) []any {
	n := len(entries)
	ids, versions := make([]string, n), make([]string, n)
	sizes, hits, accessed, modified := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, e := range entries {
		ids[i], sizes[i], hits[i], accessed[i], modified[i], versions[i] = l.values(e)
	}
	args := []any{node, ids, sizes, hits, accessed, modified}
	if l.versions {
		args = append(args, versions)
	}
	return args
}

// inRows are the same for a product that has a place for each value.
func (l *layout) inRows(node int64, entries []sdk.Entry) []any {
	var args []any
	for _, e := range entries {
		id, size, hits, accessed, modified, version := l.values(e)
		args = append(args, node, id, size, hits, accessed, modified)
		if l.versions {
			args = append(args, version)
		}
	}
	return args
}
