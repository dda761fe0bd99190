package centraldb

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestDSN: the forms that people have.
func TestDSN(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://u:p%40ss@db.example:5433/records":              "postgres u p@ss db.example 5433 records",
		"postgresql://u@db.example/records?sslmode=disable":        "postgres u  db.example 5432 records",
		"postgresql+psycopg2://u:p@db.example/records":             "postgres u p db.example 5432 records",
		"host=db.example user=u password=p dbname=records":         "postgres u p db.example 5432 records",
		"mysql://u:p%40ss@db.example/records":                      "mysql u p@ss tcp db.example:3306 records",
		"mariadb://u@db.example:3307/records?maxAllowedPacket=100": "mysql u  tcp db.example:3307 records",
		"mysql+pymysql://u:p@db.example/records?charset=utf8":      "mysql u p tcp db.example:3306 records",
		"mysql://u@/records?socket=/run/mysqld/mysqld.sock":        "mysql u  unix /run/mysqld/mysqld.sock records",
		"u:p@tcp(db.example:3306)/records":                         "mysql u p tcp db.example:3306 records",
		"u:p@unix(/run/mysqld/mysqld.sock)/records":                "mysql u p unix /run/mysqld/mysqld.sock records",
	} {
		c, err := parseConfig(sdk.Settings{Options: sdk.Config{"dsn": dsn}})
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		got := ""
		if p := c.postgres; p != nil {
			got = fmt.Sprintln("postgres", p.User, p.Password, p.Host, p.Port, p.Database)
		} else {
			got = fmt.Sprintln("mysql", c.mysql.User, c.mysql.Passwd, c.mysql.Net, c.mysql.Addr, c.mysql.DBName)
		}
		if got != want+"\n" {
			t.Errorf("%s is %s, want %s", dsn, got, want)
		}
	}
}

// TestOptions: a mistake is named together with its option, before anything is
// connected.
func TestOptions(t *testing.T) {
	pem := filepath.Join(t.TempDir(), "absent.pem")
	for _, tt := range []struct {
		option, value string
		want          string
	}{
		{"dsn", "", "dsn"},
		{"dsn", "oracle://u:hunter2@db/records", `expected postgres:// or mysql:// at the beginning, got "oracle"`},
		{"dsn", "mysql://u:hunter2@db/", "it does not name a database"},
		{"dsn", "postgres://u:hunter2@db:port/records", "a DSN looks like"},
		{"dsn", "mysql://u:hunter2%@db/records", "a DSN looks like"},
		{"dsn", "hunter2", "a DSN looks like"},
		{"max_connections", "1", "max_connections"},
		{"max_connections", "2.5", "max_connections"},
		{"query_timeout", "0s", "query_timeout"},
		{"stale_after", "-1s", "stale_after"},
		{"expire_after", "1s", "less than stale_after"},
		{"tls", "on", `option tls is "on"`},
		{"ca_file", pem, "ca_file"},
		{"cert_file", pem, "cert_file"},
	} {
		options := sdk.Config{"dsn": "postgres://u:hunter2@db/records", "tls": "verify"}
		options[tt.option] = tt.value
		err := New(slog.New(slog.DiscardHandler)).Configure(t.Context(), sdk.Settings{Options: options})
		if !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s = %q: %v, want %v with %q", tt.option, tt.value, err, sdk.ErrInvalid, tt.want)
		}
	}
}

// TestNoSecrets: whatever keeps the driver from connecting, the password is not
// in what it says.
func TestNoSecrets(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		scheme, rest, _ := strings.Cut(dsn, "://")
		_, path, _ := strings.Cut(rest, "@")
		for what, dsn := range map[string]string{
			"no such user":   scheme + "://stranger:hunter2@" + path,
			"no such server": scheme + "://stranger:hunter2@127.0.0.1:1/records",
			"no such host":   scheme + "://stranger:hunter2@nowhere.invalid/records",
		} {
			var log strings.Builder
			d := New(slog.New(slog.NewTextHandler(&log, nil)))
			err := d.Configure(t.Context(), settings("a", "1", sdk.Config{"dsn": dsn}))
			if err == nil || errors.Is(err, sdk.ErrInvalid) || strings.Contains(err.Error()+log.String(), "hunter2") {
				t.Errorf("%s: %v; log %s", what, err, log.String())
			}
		}
	})
}

// TestTLS: how connections are encrypted, and who is trusted.
func TestTLS(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		database := s.Database(t)
		secured := s.TLS(t)
		require, off := sdk.Config{"tls": "require"}, sdk.Config{"tls": "off"}
		verify := sdk.Config{"tls": "verify", "ca_file": secured.CA, "cert_file": secured.Cert, "key_file": secured.Key}
		other := sdk.Config{"tls": "verify", "ca_file": secured.OtherCA}
		for _, tt := range []struct {
			options sdk.Config
			host    string
			cipher  bool
			refused string // in the error; "": none
		}{
			{options: off, host: "localhost"},
			{options: require, host: "127.0.0.1", cipher: true},
			{options: verify, host: "localhost", cipher: true},
			{options: verify, host: "127.0.0.1", refused: "cannot validate certificate for 127.0.0.1"},
			{options: other, host: "localhost", refused: "certificate signed by unknown authority"},
		} {
			tt.options["dsn"] = secured.DSN(database, tt.host)
			d := New(slog.New(slog.DiscardHandler))
			err := d.Configure(t.Context(), settings("a", "1", tt.options))
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("tls %s, host %s: %v, want %q", tt.options["tls"], tt.host, err, tt.refused)
				}
				continue
			}
			if err != nil {
				t.Errorf("tls %s, host %s: %v", tt.options["tls"], tt.host, err)
				continue
			}
			if got := encrypted(t, d); got != tt.cipher {
				t.Errorf("tls %s: encrypted is %v", tt.options["tls"], got)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// encrypted reports what the server thinks of the connections of a driver.
func encrypted(t *testing.T, d *Driver) bool {
	t.Helper()
	query := "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
	if d.tables.dialect == mysqlLike {
		query = "SELECT variable_value <> '' FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'"
	}
	var yes bool
	if err := d.tables.db.QueryRowContext(t.Context(), query).Scan(&yes); err != nil {
		t.Fatal(err)
	}
	return yes
}
