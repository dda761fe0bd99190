package fromglance

import (
	"errors"
	"net/url"
	"strings"
)

// recordsName is the name of the driver block.
const recordsName = "records"

// The drivers of Glance.
const (
	glanceSQLite  = "sqlite"
	glanceXattr   = "xattr"
	glanceCentral = "centralized_db"
)

// driver chooses the driver that is nearest to Glance's.
func (t *translator) driver() error {
	d, err := t.options.get(defaultSection, "image_cache_driver", "")
	if err != nil {
		return err
	}
	why := source(d)
	if !d.isSet() {
		d.value, why = t.unsetDriver()
	}
	switch strings.ToLower(d.value) {
	case glanceSQLite:
		t.sqlite(why)
	case glanceXattr:
		t.out.block("driver", "xattr", recordsName).remark("%s", why)
	case glanceCentral:
		return t.central(why)
	default:
		return d.errorf("%q is no driver of Glance; it has %s, %s and %s", d.value, glanceCentral, glanceSQLite, glanceXattr)
	}
	return nil
}

// unsetDriver says which driver Glance takes when it is not told. That depends
// on its release, but the new default does not start without a URL of its own.
func (t *translator) unsetDriver() (driver, why string) {
	self, _ := t.options.last(defaultSection, "worker_self_reference_url")
	db, _ := t.options.last("database", "connection")
	if self.value != "" && db.value != "" && !strings.HasPrefix(db.value, "sqlite") {
		t.note("image_cache_driver is not set. That means centralized_db from Glance 2024.1 on, which is taken here, and sqlite before: set it if this Glance is older.")
		return glanceCentral, "image_cache_driver is not set: centralized_db, the default from Glance 2024.1 on"
	}
	return glanceSQLite, "image_cache_driver is not set: sqlite, the default before Glance 2024.1; that from then on needs worker_self_reference_url"
}

func (t *translator) sqlite(why string) {
	t.out.block("driver", "sqlite", recordsName).remark("%s", why)
	if db, ok := t.options.last(defaultSection, "image_cache_sqlite_db"); ok && db.value != "cache.db" {
		t.note("Glance's records are taken over from cache.db in the cache directory. Give %s (%s) that name before the first start.", db.name(), db.at())
	}
}

// central points at Glance's own database. The password stays out of what is
// written.
func (t *translator) central(why string) error {
	c, ok := t.options.last("database", "connection")
	if !ok {
		return errors.New("the driver centralized_db needs [database] connection, which is not set in these files; name the file that has it too")
	}
	e := expander{settings: t.options}
	c.value = e.expand(c) // what looks like a reference may be part of a password
	if e.err != nil {
		return e.err
	}
	dsn, err := exampleDSN(c)
	if err != nil {
		return err
	}
	b := t.out.block("driver", "centraldb", recordsName)
	b.remark("%s", why)
	options := b.block("config")
	options.set("dsn", call("env", dsnVariable), source(c)+", without the password in it")
	options.set("glance_tables", yes(), "the records stay in Glance's tables")
	t.note("The service needs the variable %s with the database in it, for instance from a file that its unit names in EnvironmentFile=:\n  %s=%s\nIn place of PASSWORD write the one of %s (%s); what is not a letter or digit in it as in a URL.",
		dsnVariable, dsnVariable, dsn, c.name(), c.at())
	return nil
}

// exampleDSN makes of the URL in a setting one that this service understands,
// with PASSWORD in place of the password.
func exampleDSN(c setting) (string, error) {
	dialect, rest, ok := strings.Cut(c.value, "://")
	if !ok {
		return "", c.errorf("a URL such as mysql+pymysql://glance:...@host/glance is wanted")
	}
	dialect, _, _ = strings.Cut(dialect, "+")
	var dsn url.URL
	switch dialect {
	case "mysql", "mariadb":
		dsn.Scheme = "mysql"
	case "postgresql", "postgres":
		dsn.Scheme = "postgres"
	default:
		return "", c.errorf("the driver centraldb knows MySQL, MariaDB and PostgreSQL, but not %q", dialect)
	}
	if user, after, ok := strings.Cut(rest, "@"); ok {
		rest = after
		name, _, _ := strings.Cut(user, ":")
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		dsn.User = url.UserPassword(name, "PASSWORD")
	}
	rest, _, _ = strings.Cut(rest, "?")
	dsn.Host, dsn.Path, _ = strings.Cut(rest, "/")
	return dsn.String(), nil
}
