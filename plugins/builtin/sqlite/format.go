package sqlite

// format is how records are kept in a database: its tables, and the
// statements on them. Both formats have the same statements with the same
// parameters and columns: id, version, size, hits, last access, last
// modification. Times are Unix nanoseconds, 0 when not known. Hits are
// unsigned, kept in the 64 bits of a signed number; a sum that these do not
// hold stays at the most that they do.
type format struct {
	journal    string   // how SQLite makes a transaction durable
	migrations []string // see database.migrate; nil: the tables are another program's
	session    string   // makes what each writing connection needs

	list, put, touch, remove string
}

// ownFormat is that of the driver's own database.
var ownFormat = &format{
	journal: "WAL",
	migrations: []string{
		`CREATE TABLE images (
			id            TEXT PRIMARY KEY NOT NULL,
			version       TEXT NOT NULL,
			size          INTEGER NOT NULL,
			hits          INTEGER NOT NULL,
			last_accessed INTEGER NOT NULL,
			last_modified INTEGER NOT NULL
		) STRICT, WITHOUT ROWID;
		CREATE TABLE sources (
			source TEXT PRIMARY KEY NOT NULL,
			seq    INTEGER NOT NULL,
			used   INTEGER NOT NULL
		) STRICT, WITHOUT ROWID;`,
	},
	list: "SELECT id, version, size, hits, last_accessed, last_modified FROM images",
	put: `INSERT INTO images (id, version, size, hits, last_accessed, last_modified) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT (id) DO UPDATE SET
			hits          = iif(version = excluded.version, hits, excluded.hits),
			last_accessed = iif(version = excluded.version, max(last_accessed, excluded.last_accessed), excluded.last_accessed),
			version = excluded.version, size = excluded.size, last_modified = excluded.last_modified`,
	touch: `UPDATE images SET
			hits          = iif(typeof(hits + ?2) = 'integer', hits + ?2, 0x7fffffffffffffff),
			last_accessed = max(last_accessed, ?3)
		WHERE id = ?1`,
	remove: "DELETE FROM images WHERE id = ?1",
}

// glanceFormat is that of Glance's driver of the same name, which writes with
// a rollback journal and knows nothing of sources. A put takes the hits as the
// host has them, since no version tells whether the record is of the same
// image. Times are seconds with a fraction; a double of today's has some
// fraction of a microsecond to spare.
var glanceFormat = &format{
	journal: "DELETE",
	session: `CREATE TABLE IF NOT EXISTS cached_images (
			image_id      TEXT PRIMARY KEY,
			last_accessed REAL DEFAULT 0.0,
			last_modified REAL DEFAULT 0.0,
			size          INTEGER DEFAULT 0,
			hits          INTEGER DEFAULT 0,
			checksum      TEXT
		);
		CREATE TEMP TABLE sources (source TEXT PRIMARY KEY NOT NULL, seq INTEGER NOT NULL, used INTEGER NOT NULL);`,
	list: `SELECT CAST(image_id AS TEXT), '', coalesce(CAST(size AS INTEGER), 0), coalesce(CAST(hits AS INTEGER), 0),
			` + nanosOfSeconds("last_accessed") + ", " + nanosOfSeconds("last_modified") + `
		FROM cached_images WHERE image_id IS NOT NULL`,
	put: `INSERT INTO cached_images (image_id, size, hits, last_accessed, last_modified) VALUES (?1, ?3, ?4, ?5 / 1e9, ?6 / 1e9)
		ON CONFLICT (image_id) DO UPDATE SET
			hits = excluded.hits, last_accessed = excluded.last_accessed, size = excluded.size, last_modified = excluded.last_modified`,
	touch: `UPDATE cached_images SET
			hits          = iif(typeof(hits + ?2) = 'integer', hits + ?2, 0x7fffffffffffffff),
			last_accessed = max(last_accessed, ?3 / 1e9)
		WHERE image_id = ?1`,
	remove: "DELETE FROM cached_images WHERE image_id = ?1",
}

// nanosOfSeconds turns a column of seconds into nanoseconds, in whole
// microseconds. A time that nanoseconds cannot tell is not known.
func nanosOfSeconds(column string) string {
	return "iif(abs(CAST(" + column + " AS REAL)) < 9e9, CAST(round(" + column + " * 1e6) AS INTEGER) * 1000, 0)"
}
