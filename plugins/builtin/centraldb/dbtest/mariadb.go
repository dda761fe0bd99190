package dbtest

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// MariaDB starts the version 10.11 of the packages mariadb-server-core and
// mariadb-client-core.
func MariaDB(t testing.TB) *Server {
	t.Helper()
	return start(t, kind{
		name: "MariaDB", account: "mysql", driver: "mysql", quit: syscall.SIGTERM,
		prepare: func(s *Server) []*exec.Cmd {
			return []*exec.Cmd{exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+filepath.Join(s.dir, "data"),
				"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-log-bin")}
		},
		serve: func(s *Server) *exec.Cmd {
			// It syncs nothing, for it loses at most its process. What is
			// committed is in the kernel's hands.
			return exec.Command("mariadbd", "--no-defaults", "--datadir="+filepath.Join(s.dir, "data"),
				"--skip-networking", "--socket="+mariaSocket(s), "--pid-file="+filepath.Join(s.dir, "pid"),
				"--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--max-connections=300")
		},
		secure: func(port int, ca, cert, key string) []string {
			return []string{"--skip-networking=0", "--bind-address=127.0.0.1", fmt.Sprint("--port=", port), "--ssl-ca=" + ca, "--ssl-cert=" + cert, "--ssl-key=" + key}
		},
		socket: mariaSocket,
		source: func(s *Server, database string) string {
			return fmt.Sprintf("root@unix(%s)/%s", mariaSocket(s), database)
		},
		dsn: func(s *Server, database string) string {
			return fmt.Sprintf("mysql://root@/%s?socket=%s", database, url.QueryEscape(mariaSocket(s)))
		},
	})
}

func mariaSocket(s *Server) string { return filepath.Join(s.dir, "socket") }
