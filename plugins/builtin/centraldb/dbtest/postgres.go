package dbtest

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// PostgreSQL starts the version 15 of the package postgresql-15.
func PostgreSQL(t testing.TB) *Server {
	t.Helper()
	return start(t, kind{
		name: "PostgreSQL", account: "postgres", driver: "pgx", quit: syscall.SIGINT,
		prepare: func(s *Server) []*exec.Cmd {
			return []*exec.Cmd{exec.Command(postgresBin("initdb"), "-D", filepath.Join(s.dir, "data"),
				"--username=imgcache", "--auth=trust", "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8")}
		},
		serve: func(s *Server) *exec.Cmd {
			// It syncs nothing, for it loses at most its process.
			return exec.Command(postgresBin("postgres"), "-D", filepath.Join(s.dir, "data"),
				"-c", "listen_addresses=", "-k", s.dir, "-c", "fsync=off", "-c", "max_connections=300",
				"-c", "ssl=off", "-c", "shared_buffers=64MB")
		},
		secure: func(port int, ca, cert, key string) []string {
			return []string{"-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprint("port=", port), "-c", "ssl=on", "-c", "ssl_ca_file=" + ca, "-c", "ssl_cert_file=" + cert, "-c", "ssl_key_file=" + key}
		},
		socket: func(s *Server) string { return filepath.Join(s.dir, fmt.Sprint(".s.PGSQL.", postgresPort(s))) },
		source: func(s *Server, database string) string { return postgresURL(s, database) },
		dsn:    func(s *Server, database string) string { return postgresURL(s, database) },
	})
}

// postgresBin is where Debian has the programs that are not in the path.
func postgresBin(name string) string { return filepath.Join("/usr/lib/postgresql/15/bin", name) }

func postgresURL(s *Server, database string) string {
	if database == "" {
		database = "postgres"
	}
	return fmt.Sprintf("postgres://imgcache@/%s?host=%s&port=%d", database, url.QueryEscape(s.dir), postgresPort(s))
}

// postgresPort is part of the name of the socket too.
func postgresPort(s *Server) int {
	if s.port > 0 {
		return s.port
	}
	return 5432
}

// databaseOf returns the name of the database in a dsn of this package.
func databaseOf(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return ""
	}
	return strings.Trim(u.Path, "/")
}
