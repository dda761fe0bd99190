package fromglance

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// recordsName is the name of the driver block.
const recordsName = "records"

// kept says how Glance keeps its records.
type kept struct {
	driver string // one of those below
	why    string // the reason for assuming so
}

// sqliteDB is the option of Glance that names the database of its driver sqlite.
const sqliteDB = "image_cache_sqlite_db"

// The drivers of Glance.
const (
	glanceSQLite  = "sqlite"
	glanceXattr   = "xattr"
	glanceCentral = "centralized_db"
)

// findDriver finds out which driver Glance has.
func (t *translator) findDriver() error {
	d, err := t.options.get(defaultSection, "image_cache_driver", "")
	if err != nil {
		return err
	}
	t.kept = kept{strings.ToLower(d.value), source(d)}
	if !d.isSet() {
		t.kept = t.unsetDriver()
	}
	switch t.kept.driver {
	case glanceSQLite, glanceXattr, glanceCentral:
		return nil
	}
	return d.errorf("%q is not a driver of Glance; expected %s, %s or %s", d.value, glanceCentral, glanceSQLite, glanceXattr)
}

// driver writes the driver that is nearest to Glance's.
func (t *translator) driver() error {
	switch t.kept.driver {
	case glanceSQLite:
		return t.sqlite()
	case glanceXattr:
		t.out.block("driver", "xattr", recordsName).remark("%s", t.kept.why)
	case glanceCentral:
		return t.central()
	}
	return nil
}

// unsetDriver says which driver Glance takes when it is not told. That depends
// on its release, but the new default does not start without a URL of its own.
func (t *translator) unsetDriver() kept {
	self, _ := t.options.last(defaultSection, "worker_self_reference_url")
	db, _ := t.options.last("database", "connection")
	if self.value != "" && db.value != "" && !strings.HasPrefix(db.value, "sqlite") {
		t.note("image_cache_driver is not set. Its default is centralized_db from Glance 2024.1 on, which is assumed here, and sqlite before: set it if this Glance is older.")
		return kept{glanceCentral, "image_cache_driver is not set: centralized_db, the default from Glance 2024.1 on"}
	}
	return kept{glanceSQLite, "image_cache_driver is not set: sqlite, the default before Glance 2024.1; the later default needs worker_self_reference_url"}
}

// sqlite takes the records over from Glance's database.
func (t *translator) sqlite() error {
	db, err := t.options.get(defaultSection, sqliteDB, "cache.db")
	if err != nil {
		return err
	}
	b := t.out.block("driver", "sqlite", recordsName)
	b.remark("%s", t.kept.why)
	if !db.isSet() {
		return nil
	}
	b.block("config").set("glance_db", text(db.value), source(db)+"; the records in it are taken over")
	if !strings.HasSuffix(db.value, ".db") {
		t.note("The file %s (%s, %s) has a name that an image may have. Move it to another directory before the first start, and set glance_db to its path.", db.value, db.name(), db.at())
	}
	return nil
}

// central points at Glance's own database. The password stays out of what is
// written.
func (t *translator) central() error {
	c, ok := t.options.last("database", "connection")
	if !ok {
		return errors.New("the driver centralized_db needs [database] connection, which is not set in these files; name the file that has it too")
	}
	e := expander{settings: t.options}
	c.value = e.expand(c) // what looks like a reference may be part of a password
	if e.err != nil {
		return e.err
	}
	dsn, left, err := exampleDSN(c)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		t.note("These parameters of %s (%s) are left out: %s. For TLS there are the options tls, ca_file, cert_file and key_file of the driver.",
			c.name(), c.at(), strings.Join(left, ", "))
	}
	b := t.out.block("driver", "centraldb", recordsName)
	b.remark("%s", t.kept.why)
	options := b.block("config")
	options.set("dsn", call("env", dsnVariable), source(c)+", without the password in it")
	options.set("glance_tables", yes(), "the records stay in Glance's tables")
	t.note("The service needs the variable %s with the database in it, for instance from a file that its unit names in EnvironmentFile=:\n  %s=%s\nIn place of PASSWORD write the one of %s (%s), with percent-encoding for what is not a letter or digit, as in a URL.",
		dsnVariable, dsnVariable, dsn, c.name(), c.at())
	return nil
}

// exampleDSN makes of the URL in a setting one that this service understands,
// with PASSWORD in place of the password, and names the parameters that have no
// place in it.
func exampleDSN(c setting) (text string, left []string, err error) {
	dialect, rest, ok := strings.Cut(c.value, "://")
	if !ok {
		return "", nil, c.errorf("expected a URL such as mysql+pymysql://glance:...@host/glance")
	}
	dialect, _, _ = strings.Cut(dialect, "+")
	var dsn url.URL
	switch dialect {
	case "mysql", "mariadb":
		dsn.Scheme = "mysql"
	case "postgresql", "postgres":
		dsn.Scheme = "postgres"
	default:
		return "", nil, c.errorf("the driver centraldb supports MySQL, MariaDB and PostgreSQL, not %q", dialect)
	}
	if user, after, ok := strings.Cut(rest, "@"); ok {
		rest = after
		name, _, _ := strings.Cut(user, ":")
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		dsn.User = url.UserPassword(name, "PASSWORD")
	}
	rest, dsn.RawQuery, _ = strings.Cut(rest, "?")
	dsn.Host, dsn.Path, _ = strings.Cut(rest, "/")
	dsn.Path = "/" + dsn.Path // also without a host, where there is a socket
	if dsn.Scheme == "mysql" {
		dsn.RawQuery, left = forMySQL(dsn.Query())
	} else {
		dsn.RawQuery = withoutPasswords(dsn.Query())
	}
	return dsn.String(), left, nil
}

// withoutPasswords takes the secrets out of the parameters of PostgreSQL,
// which mean the same in Python and in Go.
func withoutPasswords(q url.Values) string {
	for name := range q {
		if strings.Contains(name, "password") {
			q.Set(name, "PASSWORD")
		}
	}
	return q.Encode()
}

// forMySQL takes the socket out of the parameters of a Python driver, and names
// the others that matter.
func forMySQL(q url.Values) (query string, left []string) {
	if socket := q.Get("unix_socket"); socket != "" {
		query = url.Values{"unix_socket": {socket}}.Encode()
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if name != "unix_socket" && name != "charset" {
			left = append(left, name)
		}
	}
	return query, left
}
