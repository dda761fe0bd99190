package centraldb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/imgcache/imgcache-host/sdk"
)

var options = []sdk.Option{
	{Name: "dsn", Type: sdk.TypeString, Access: sdk.AccessRead, Required: true, Sensitive: true, Description: "the database: postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE"},
	{Name: "max_connections", Type: sdk.TypeNumber, Default: "4", Description: "connections to the database at once, at least 2"},
	{Name: "connect_timeout", Type: sdk.TypeDuration, Default: "5s", Description: "time limit for connecting"},
	{Name: "query_timeout", Type: sdk.TypeDuration, Default: "20s", Description: "time limit of one batch or one heartbeat"},
	{Name: "stale_after", Type: sdk.TypeDuration, Default: "1m", Description: "a node without a heartbeat for this long counts as down: it is not asked for images, and its name is free"},
	{Name: "expire_after", Type: sdk.TypeDuration, Default: "168h", Description: "the records of a node without a heartbeat for this long are removed"},
	{Name: "tls", Type: sdk.TypeString, Default: "dsn", Description: `"dsn": as the DSN says; "off": no TLS; "require": TLS, but the server is not checked; "verify": TLS, and its certificate and name are checked`},
	{Name: "ca_file", Type: sdk.TypeString, Access: sdk.AccessRead, Description: "file with the certificates to trust; default: those of the system"},
	{Name: "cert_file", Type: sdk.TypeString, Access: sdk.AccessRead, Description: "file with the certificate of this client"},
	{Name: "glance_tables", Type: sdk.TypeBool, Default: "false", Description: "keep the records in Glance's tables cached_images and node_reference in that database"},
	{Name: "key_file", Type: sdk.TypeString, Access: sdk.AccessRead, Description: "file with the key of that certificate"},
}

// config is what the settings mean.
type config struct {
	name, instance, url string // of this node

	postgres *pgx.ConnConfig // one of these two
	mysql    *mysql.Config

	glance                                bool // the records are in Glance's tables
	connections                           int
	queryTimeout, staleAfter, expireAfter time.Duration
}

func parseConfig(s sdk.Settings) (config, error) {
	text := func(name string) string {
		if v := s.Options.Text(name); v != "" {
			return v
		}
		for _, o := range options {
			if o.Name == name {
				return o.Default
			}
		}
		return ""
	}
	duration := func(name string) time.Duration {
		d, _ := time.ParseDuration(text(name)) // the host has checked it
		return d
	}
	c := config{
		name: s.Node, instance: s.Instance, url: s.URL, glance: s.Options.Bool("glance_tables"),
		queryTimeout: duration("query_timeout"), staleAfter: duration("stale_after"), expireAfter: duration("expire_after"),
	}
	var err error
	if c.connections, err = strconv.Atoi(text("max_connections")); err != nil || c.connections < 2 {
		return c, fmt.Errorf("%w: option max_connections is %s; expected a whole number of at least 2", sdk.ErrInvalid, text("max_connections"))
	}
	for name, d := range map[string]time.Duration{"query_timeout": c.queryTimeout, "stale_after": c.staleAfter, "expire_after": c.expireAfter} {
		if d <= 0 {
			return c, fmt.Errorf("%w: option %s is %v; expected more than 0s", sdk.ErrInvalid, name, d)
		}
	}
	if c.expireAfter < c.staleAfter {
		return c, fmt.Errorf("%w: option expire_after is %v, less than stale_after, %v", sdk.ErrInvalid, c.expireAfter, c.staleAfter)
	}
	if c.glance && (c.url == "" || len(c.url) > maxReference) {
		return c, fmt.Errorf("%w: option glance_tables: Glance knows a node by its URL; set it in node { advertise }, with at most %d characters", sdk.ErrInvalid, maxReference)
	}
	if err := c.parseDSN(text("dsn")); err != nil {
		return c, fmt.Errorf("%w: option dsn: %w", sdk.ErrInvalid, err)
	}
	if err := c.secure(text); err != nil {
		return c, err
	}
	c.setTimeouts(duration("connect_timeout"))
	return c, nil
}

// parseDSN understands URLs, also with the name of a Python driver in the
// scheme, and the own forms of both client libraries. Its errors do not show
// the DSN, which holds a password.
func (c *config) parseDSN(dsn string) (err error) {
	scheme, rest, isURL := strings.Cut(dsn, "://")
	scheme, _, _ = strings.Cut(scheme, "+")
	switch {
	case isURL && (scheme == "postgres" || scheme == "postgresql"):
		c.postgres, err = pgx.ParseConfig("postgres://" + rest)
	case isURL && (scheme == "mysql" || scheme == "mariadb"):
		c.mysql, err = parseMySQL("mysql://" + rest)
	case isURL:
		return fmt.Errorf("expected postgres:// or mysql:// at the beginning, got %q", scheme)
	case strings.Contains(dsn, "host=") || strings.Contains(dsn, "dbname="):
		c.postgres, err = pgx.ParseConfig(dsn)
	default:
		c.mysql, err = mysql.ParseDSN(dsn)
	}
	if err != nil {
		return errors.New("it cannot be parsed; a DSN looks like postgres://USER:PASSWORD@HOST:5432/DATABASE or mysql://USER:PASSWORD@HOST:3306/DATABASE, with special characters in the password as %XX")
	}
	if c.mysql != nil {
		if c.mysql.DBName == "" {
			return errors.New("it does not name a database")
		}
		c.mysql.InterpolateParams = true // one round trip for a statement
		c.mysql.Params = set(c.mysql.Params, "time_zone", "'+00:00'")
		c.mysql.Logger = silent{} // errors are returned as well
	}
	return nil
}

// parseMySQL reads mysql://user:password@host:port/database?socket=/path. Other
// parameters are those of the client library.
func parseMySQL(dsn string) (*mysql.Config, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	network, address := "tcp", u.Host
	for _, name := range []string{"socket", "unix_socket"} {
		if path := q.Get(name); path != "" {
			network, address = "unix", path
		}
		q.Del(name)
	}
	q.Del("charset") // of a Python driver; ids, versions and URLs are bytes here
	c, err := mysql.ParseDSN(fmt.Sprintf("%s(%s)/?%s", network, address, q.Encode()))
	if err != nil {
		return nil, err
	}
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.DBName = strings.Trim(u.Path, "/")
	return c, nil
}

func set(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// silent is a log that nobody reads.
type silent struct{}

func (silent) Print(...any) {}

// secure sets the encryption of the connections.
func (c *config) secure(text func(string) string) error {
	how := text("tls")
	var t *tls.Config
	switch how {
	case "dsn":
		return nil
	case "off":
	case "require":
		t = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // what the operator asks for
	case "verify":
		t = &tls.Config{ServerName: c.host(), MinVersion: tls.VersionTLS12}
	default:
		return fmt.Errorf(`%w: option tls is %q; expected "dsn", "off", "require" or "verify"`, sdk.ErrInvalid, how)
	}
	if t != nil {
		if err := certificates(t, text("ca_file"), text("cert_file"), text("key_file")); err != nil {
			return fmt.Errorf("%w: %w", sdk.ErrInvalid, err)
		}
	}
	if c.postgres != nil {
		c.postgres.TLSConfig, c.postgres.Fallbacks = t, nil
	} else {
		c.mysql.TLS, c.mysql.TLSConfig = t, ""
	}
	return nil
}

func (c *config) host() string {
	if c.postgres != nil {
		return c.postgres.Host
	}
	host, _, found := strings.Cut(c.mysql.Addr, ":")
	if !found {
		return c.mysql.Addr
	}
	return host
}

func certificates(t *tls.Config, ca, cert, key string) error {
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("option ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("option ca_file: %s contains no certificate in PEM form", ca)
		}
	}
	if cert == "" && key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("options cert_file and key_file: %w", err)
	}
	t.Certificates = []tls.Certificate{pair}
	return nil
}

// setTimeouts bounds what no context does: in the client library of MySQL that
// is the COMMIT.
func (c *config) setTimeouts(connect time.Duration) {
	if c.postgres != nil {
		c.postgres.ConnectTimeout = connect
	} else {
		c.mysql.Timeout, c.mysql.ReadTimeout, c.mysql.WriteTimeout = connect, c.queryTimeout, c.queryTimeout
	}
}
