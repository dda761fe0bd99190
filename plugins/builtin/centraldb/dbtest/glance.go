package dbtest

import (
	"database/sql"
	"testing"
)

// glanceTables makes the tables of a central Glance cache, as Glance 2024.1 does.
var glanceTables = map[string][]string{
	"PostgreSQL": {
		`CREATE TABLE node_reference (
			node_reference_id BIGSERIAL PRIMARY KEY,
			node_reference_url VARCHAR(255) NOT NULL,
			CONSTRAINT uq_node_reference_node_reference_url UNIQUE (node_reference_url))`,
		`CREATE TABLE cached_images (
			id BIGSERIAL PRIMARY KEY,
			image_id VARCHAR(36) NOT NULL,
			last_accessed TIMESTAMP WITHOUT TIME ZONE NOT NULL,
			last_modified TIMESTAMP WITHOUT TIME ZONE NOT NULL,
			size BIGINT NOT NULL,
			hits INTEGER NOT NULL,
			checksum VARCHAR(32),
			node_reference_id BIGINT NOT NULL REFERENCES node_reference (node_reference_id),
			CONSTRAINT ix_cached_images_image_id_node_reference_id UNIQUE (image_id, node_reference_id))`,
	},
	"MariaDB": {
		`CREATE TABLE node_reference (
			node_reference_id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
			node_reference_url VARCHAR(255) NOT NULL,
			CONSTRAINT uq_node_reference_node_reference_url UNIQUE (node_reference_url)) ENGINE=InnoDB CHARSET=utf8`,
		`CREATE TABLE cached_images (
			id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
			image_id VARCHAR(36) NOT NULL,
			last_accessed DATETIME NOT NULL,
			last_modified DATETIME NOT NULL,
			size BIGINT NOT NULL,
			hits INTEGER NOT NULL,
			checksum VARCHAR(32),
			node_reference_id BIGINT NOT NULL,
			CONSTRAINT ix_cached_images_image_id_node_reference_id UNIQUE (image_id, node_reference_id),
			FOREIGN KEY (node_reference_id) REFERENCES node_reference (node_reference_id)) ENGINE=InnoDB CHARSET=utf8`,
	},
}

// GlanceDatabase makes a database with the tables in which nodes of Glance share
// their records, and opens it.
func (s *Server) GlanceDatabase(t testing.TB) (db *sql.DB, dsn string) {
	t.Helper()
	dsn = s.Database(t)
	db = s.Open(t, dsn)
	for _, statement := range glanceTables[s.Name()] {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return db, dsn
}
