"""ledger: a driver that keeps the records in a file of SQLite."""

import os
import sqlite3

import serve
from imgcache.plugin.v1 import driver_pb2

MANIFEST = {
    "name": "ledger",
    "version": "1.0.0",
    "kind": "driver",
    "options": [{
        "name": "file",
        "type": "string",
        "default": "ledger.db",
        "description": "name of the file in the plugin's own directory",
    }],
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    size INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    accessed INTEGER NOT NULL, -- Unix nanoseconds, as is the next
    modified INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
    source TEXT PRIMARY KEY,
    seq INTEGER NOT NULL -- of the last batch that was applied
) WITHOUT ROWID;
"""

# The right side of SET sees the record as it was.
PUT = """
INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    hits = iif(version = excluded.version, hits, excluded.hits),
    accessed = iif(version = excluded.version, max(accessed, excluded.accessed), excluded.accessed),
    version = excluded.version, size = excluded.size, modified = excluded.modified
"""
DELETE = "DELETE FROM images WHERE id = ?"
TOUCH = "UPDATE images SET hits = hits + ?, accessed = max(accessed, ?) WHERE id = ?"
LIST = "SELECT id, version, size, hits, accessed, modified FROM images"


class Ledger:
    def configure(self, settings):
        name = settings.options.get("file", "ledger.db")
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise serve.Invalid("file must be a name without directory, and is %r" % name)
        os.makedirs(settings.state_dir, mode=0o700, exist_ok=True)
        self.path = os.path.join(settings.state_dir, name)
        self.db = self.connect()
        self.db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
        self.db.executescript(SCHEMA)
        serve.log("debug", "records are kept", file=self.path)

    def connect(self):
        """Opens the file. Calls come on any thread; transactions are begun by hand."""
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)

    def list(self):
        """Yields all records, as they are at this moment."""
        db = self.connect()
        try:
            for id, version, size, hits, accessed, modified in db.execute(LIST):
                yield driver_pb2.Entry(id=id, version=version, size=size, hits=hits,
                                       last_accessed_ns=accessed, last_modified_ns=modified)
        finally:
            db.close()

    def apply(self, batch):
        """Carries out a batch and keeps its number, in one transaction."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            if self.admit(batch):
                for op in batch.ops:
                    self.carry_out(op)
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise

    def admit(self, batch):
        """Says whether the batch is the next one; a repeated one is done already."""
        row = self.db.execute("SELECT seq FROM sources WHERE source = ?", (batch.source,)).fetchone()
        last = row[0] if row else 0
        if batch.seq > last + 1:
            raise serve.Invalid("batch %d of source %s follows %d" % (batch.seq, batch.source, last))
        if batch.seq <= last:
            return False
        self.db.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", (batch.source, batch.seq))
        return True

    def carry_out(self, op):
        e = op.entry
        if op.kind == driver_pb2.OP_KIND_PUT:
            self.db.execute(PUT, (e.id, e.version, e.size, e.hits, e.last_accessed_ns, e.last_modified_ns))
        elif op.kind == driver_pb2.OP_KIND_DELETE:
            self.db.execute(DELETE, (e.id,))
        else:
            self.db.execute(TOUCH, (e.hits, e.last_accessed_ns, e.id))


serve.main(MANIFEST, Ledger())
