package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk"
)

var update = flag.Bool("update", false, "rewrite the expected texts of testdata/config")

// TestBroken loads each broken configuration of testdata/config and compares
// all messages about it with the file of the same name and ".want".
func TestBroken(t *testing.T) {
	t.Chdir(filepath.Join("..", "..", "testdata", "config"))
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/0")
	broken, err := filepath.Glob("*.hcl*")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd() // what is said of files must not depend on where the checkout is
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range broken {
		if !strings.HasSuffix(name, ".want") {
			names = append(names, name)
		}
	}
	if len(names) < 12 {
		t.Fatalf("only %d broken configurations found", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			_, err := Load([]string{name})
			var diags *Diagnostics
			if !errors.As(err, &diags) {
				t.Fatalf("Load: %v, want diagnostics", err)
			}
			got := strings.ReplaceAll(diags.Error(), here, "/checkout") + "\n"
			wantFile := name + ".want"
			if *update {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wantFile)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

const smallest = `
listener "tcp" "public" {
  address = "127.0.0.1:9292"
}
cache "default" {
  dir = "images"
}
origin "directory" "golden" {
  path = "/srv/images"
}
`

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := load([]source{{"test.hcl", "/etc/imgcache", []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSmallestConfiguration(t *testing.T) {
	c := parse(t, smallest)
	if c.Warnings != nil {
		t.Errorf("warnings:\n%v", c.Warnings)
	}
	if got, want := c.Cache.Dir, "/etc/imgcache/images"; got != want {
		t.Errorf("cache dir %q, want %q: relative to the file", got, want)
	}
	if got, want := c.Cache.Driver.Plugin, "sqlite"; got != want {
		t.Errorf("driver %q, want %q", got, want)
	}
	if got, want := c.Cache.Policy.Plugin, "lru"; got != want {
		t.Errorf("policy %q, want %q", got, want)
	}
	if got, want := c.Cache.MaxSize, int64(10<<30); got != want {
		t.Errorf("max_size %d, want %d", got, want)
	}
	if got, want := c.Origins[0].Prefix, "/images/"; got != want {
		t.Errorf("prefix %q, want %q", got, want)
	}
	if n := len(c.Listeners); n != 2 {
		t.Fatalf("%d listeners, want the one of the file and the admin socket", n)
	}
	admin := c.Listeners[1]
	if admin.Network != Unix || !admin.Serves(FaceAdmin) || admin.Path != filepath.Join(c.Node.RunDir, "admin.sock") {
		t.Errorf("admin listener %+v", admin)
	}
}

const manyOptions = `
node {
  name      = "edge-${hostname()}"
  advertise = "http://edge.example:9292/"
  run_dir   = "/run/edge"
}
listener "unix" "ops" {
  path  = "/run/edge/ops.sock"
  mode  = "0600"
  serve = ["images", "admin"]
}
cache "default" {
  dir      = "/images"
  max_size = env("IMGCACHE_TEST_SIZE")
  driver   = driver.local
  prune {
    high_watermark = 0.9
    low_watermark  = 0.5
    min_age        = "10m"
  }
  fill {
    retries      = "3"
    keep_filling = false
  }
}
driver "centraldb" "local" {}
origin "http" "mirror" {
  endpoint         = "https://mirror.example/images"
  prefix           = "/mirror"
  revalidate_after = "1h30m"
  headers          = { Authorization = file("SECRET") }
}
shutdown {
  drain_timeout = "5m"
}
`

func TestOptions(t *testing.T) {
	t.Setenv("IMGCACHE_TEST_SIZE", "3MiB")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("Bearer abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := parse(t, strings.ReplaceAll(manyOptions, "SECRET", secret))
	host, _ := os.Hostname()
	if got, want := c.Node.Name, "edge-"+host; got != want {
		t.Errorf("node name %q, want %q", got, want)
	}
	if got, want := c.Node.Advertise, "http://edge.example:9292"; got != want {
		t.Errorf("node.advertise %q, want %q", got, want)
	}
	if len(c.Listeners) != 1 {
		t.Errorf("%d listeners, want no second admin socket", len(c.Listeners))
	}
	if got := c.Listeners[0].Mode; got != 0o600 {
		t.Errorf("mode %v", got)
	}
	if got, want := c.Cache.MaxSize, int64(3<<20); got != want {
		t.Errorf("max_size %d, want %d", got, want)
	}
	want := options.Prune{Interval: time.Minute, HighWatermark: 0.9, LowWatermark: 0.5, MinAge: 10 * time.Minute}
	if diff := cmp.Diff(want, c.Cache.Prune); diff != "" {
		t.Errorf("prune -want +got:\n%s", diff)
	}
	if got := c.Cache.Fill; got.Retries != 3 || got.KeepFilling {
		t.Errorf("fill %+v", got)
	}
	if got, want := c.Cache.Driver.Plugin, "centraldb"; got != want {
		t.Errorf("driver %q, want %q", got, want)
	}
	o := c.Origins[0]
	if o.Endpoint != "https://mirror.example/images/" || o.Prefix != "/mirror/" || o.RevalidateAfter != 90*time.Minute {
		t.Errorf("origin %+v", o)
	}
	if got, want := o.Headers["Authorization"], "Bearer abc"; got != want {
		t.Errorf("header %q, want %q", got, want)
	}
	if c.Shutdown.DrainTimeout != 5*time.Minute {
		t.Errorf("drain timeout %v", c.Shutdown.DrainTimeout)
	}
}

func TestScheduleOptions(t *testing.T) {
	c := parse(t, smallest+`
schedule "nightly" {
  cron   = "30 2 * * mon-fri"
  jitter = "10m"
  run    = ["clean", "prefetch"]
  images = ["a", "b"]
}
schedule "often" {
  every = "5m"
  run   = ["prune"]
}
`)
	if c.Warnings != nil {
		t.Errorf("warnings:\n%v", c.Warnings)
	}
	var got []string
	for _, s := range c.Schedules {
		got = append(got, fmt.Sprint(s.Name, ": ", s.Timetable(), ", ", s.Jitter, ", ", s.Run, s.Images))
	}
	want := []string{"nightly: 30 2 * * mon-fri, 10m0s, [clean prefetch] [a b]", "often: every 5m, 0s, [prune] []"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestUnusedDriverIsAWarning(t *testing.T) {
	c := parse(t, smallest+"driver \"centraldb\" \"shared\" {\n}\n")
	if c.Warnings == nil || !strings.Contains(c.Warnings.Error(), "driver = driver.shared") {
		t.Errorf("warnings: %v", c.Warnings)
	}
	if c.Cache.Driver.Plugin != "sqlite" {
		t.Errorf("driver %q", c.Cache.Driver.Plugin)
	}
}

// TestWarnings loads what is allowed but hardly meant.
func TestWarnings(t *testing.T) {
	for _, test := range []struct{ name, old, new, want string }{
		{
			"image larger than the cache", `dir = "images"`, "dir = \"images\"\n  max_image_size = \"11GiB\"",
			`test.hcl:7,20: warning: Limit without effect
    7 |   max_image_size = "11GiB"
      |                    ^^^^^^^
  An image larger than max_size (10GiB) is never stored, so a max_image_size above it changes nothing.`,
		},
		{"the same where only prune looks at max_size", `dir = "images"`, "dir = \"images\"\n  limit = \"prune\"\n  max_image_size = \"11GiB\"", ""},
		{
			"pin that has ended", "\norigin", "\npin \"old\" {\n  images = [\"a\"]\n  until  = \"2020-01-01T00:00:00Z\"\n}\norigin",
			`test.hcl:10,12: warning: Pin without effect
   10 |   until  = "2020-01-01T00:00:00Z"
      |            ^^^^^^^^^^^^^^^^^^^^^^
  The pin ended at 2020-01-01T00:00:00Z. Remove the block, or set a later time.`,
		},
		{"schedule with an option that is null", "\norigin", "\nschedule \"a\" {\n  cron  = null\n  every = \"5m\"\n  run   = [\"prune\"]\n}\norigin", ""},
		{
			"images that are never checked", `dir = "images"`, "dir = \"images\"\n  verify_reads = \"never\"",
			`test.hcl:7,18: warning: Images are never checked
    7 |   verify_reads = "never"
      |                  ^^^^^^^
  With "never" only a scrub finds a block that goes bad on the disk, and no schedule has "scrub" in run. Add one, or call imgcache-host verify now and then.`,
		},
		{
			"images that a scrub checks", `dir = "images"
}`, `dir = "images"
  verify_reads = "never"
}
schedule "weekly" {
  cron = "@weekly"
  run  = ["scrub"]
}`, "",
		},
		{
			"an answer before the question", `origin "directory" "golden" {
  path = "/srv/images"
}`, `origin "http" "mirror" {
  endpoint       = "https://mirror.example/"
  revalidate     = "behind"
  on_origin_down = "fail"
}`,
			`test.hcl:10,20: warning: Served before it is confirmed
   10 |   revalidate     = "behind"
      |                    ^^^^^^^^
  With revalidate = "behind" the first due hit is answered before the origin is asked, although with on_origin_down = "fail" each image must be confirmed.`,
		},
		{
			"a credential of the service, and none of clients", `origin "directory" "golden" {
  path = "/srv/images"
}`, `origin "http" "mirror" {
  endpoint = "https://mirror.example/"
  headers  = { "X-Auth-Token" = "hidden" }
}
origin "http" "open" {
  endpoint = "https://open.example/"
  prefix   = "/open/"
  headers  = { "User-Agent" = "cache", Cookie = "" }
}
origin "s3" "bucket" {
  endpoint   = "https://s3.example/"
  bucket     = "images"
  prefix     = "/bucket/"
  access_key = "hidden"
  secret_key = "hidden"
}
listener "tcp" "asks" {
  address   = "127.0.0.1:1"
  auth_file = "clients"
}
listener "tcp" "metrics" {
  address = "127.0.0.1:2"
  serve   = ["metrics"]
}
listener "unix" "local" {
  path  = "/run/x.sock"
  serve = ["images"]
}`,
			`test.hcl:8,1: warning: Private images are open
    8 | origin "http" "mirror" {
      | ^^^^^^^^^^^^^^^^^^^^^^
  The service shows the origin "mirror" a credential of its own, and listener "public" asks clients for none: who reaches 127.0.0.1:9292 reads what the service may read. Set auth_file there, or leave "images" out of serve.

test.hcl:17,1: warning: Private images are open
   17 | origin "s3" "bucket" {
      | ^^^^^^^^^^^^^^^^^^^^
  The service shows the origin "bucket" a credential of its own, and listener "public" asks clients for none: who reaches 127.0.0.1:9292 reads what the service may read. Set auth_file there, or leave "images" out of serve.`,
		},
		{"pins with one origin", "\norigin", "\npin \"all\" {\n  images = [\"a\", \"b.c\"]\n}\norigin", ""},
		{
			"pins with several origins", `path = "/srv/images"
}`, `path = "/srv/images"
}
origin "directory" "other" {
  path   = "/srv/other"
  prefix = "/other/"
}
pin "all" {
  images = ["golden.a", "other/a", "/images/a/b", "other/a+b?x", "third.a", "other"]
}`,
			`test.hcl:16,12: warning: No origin has this image
   16 |   images = ["golden.a", "other/a", "/images/a/b", "other/a+b?x", "third.a", "other"]
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  With several origins an image is called ORIGIN/NAME, or by the path on which it is served, and "third.a" begins with neither the name nor the prefix of an origin.

test.hcl:16,12: warning: No origin has this image
   16 |   images = ["golden.a", "other/a", "/images/a/b", "other/a+b?x", "third.a", "other"]
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  With several origins an image is called ORIGIN/NAME, or by the path on which it is served, and "other" begins with neither the name nor the prefix of an origin.`,
		},
	} {
		got := ""
		if c := parse(t, strings.Replace(smallest, test.old, test.new, 1)); c.Warnings != nil {
			got = c.Warnings.Error()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", test.name, diff)
		}
	}
}

func TestDirectoryIsMerged(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("10-base.hcl", "listener \"tcp\" \"a\" {\n  address = \"127.0.0.1:1\"\n}\ncache \"default\" {\n  dir = \"c\"\n}\n")
	write("20-origin.hcl.json", `{"origin": {"directory": {"golden": {"path": "images"}}}}`)
	write("30-more.hcl", "listener \"tcp\" \"b\" {\n  address = \"127.0.0.1:2\"\n}\n")
	write(".swap.hcl", "broken {")
	write("notes.txt", "broken {")

	extra := filepath.Join(t.TempDir(), "extra.hcl")
	if err := os.WriteFile(extra, []byte("listener \"tcp\" \"c\" {\n  address = \"127.0.0.1:3\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load([]string{dir, extra, filepath.Join(dir, "30-more.hcl")})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range c.Listeners {
		names = append(names, l.Name)
	}
	if got, want := strings.Join(names, " "), "a b c admin"; got != want {
		t.Errorf("listeners %q, want %q", got, want)
	}
	if got, want := c.Origins[0].Path, filepath.Join(dir, "images"); got != want {
		t.Errorf("path %q, want %q", got, want)
	}

	// A label that is in two files is an error that names both places.
	write("40-twice.hcl", "listener \"unix\" \"a\" {\n  path = \"/run/a.sock\"\n}\n")
	_, err = Load([]string{dir})
	if err == nil {
		t.Fatal("no error for a duplicate over two files")
	}
	for _, want := range []string{"40-twice.hcl:1,1: error: Duplicate block", "stands already at " + filepath.Join(dir, "10-base.hcl") + ":1,1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestUnreadablePaths(t *testing.T) {
	for _, p := range []string{"no-such.hcl", t.TempDir(), os.DevNull} {
		if _, err := Load([]string{p}); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
}

func TestPluginOptions(t *testing.T) {
	options := []sdk.Option{
		{Name: "path", Type: sdk.TypeString},
		{Name: "busy_timeout", Type: sdk.TypeDuration, Default: "5s"},
		{Name: "cache_size", Type: sdk.TypeSize, Default: "1024"},
		{Name: "factor", Type: sdk.TypeNumber},
		{Name: "sync", Type: sdk.TypeBool, Default: "true"},
	}
	c := parse(t, strings.Replace(smallest, `dir = "images"`, "dir = \"images\"\n  driver = driver.local", 1)+`
driver "sqlite" "local" {
  config {
    path         = env("IMGCACHE_TEST_UNSET", "/x/y.db")
    busy_timeout = "1m30s"
    cache_size   = "2KiB"
    factor       = 0.25
  }
}
`)
	got, err := c.Cache.Driver.Decode(options)
	if err != nil {
		t.Fatal(err)
	}
	want := sdk.Config{"path": "/x/y.db", "busy_timeout": "1m30s", "cache_size": "2048", "factor": "0.25", "sync": "true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	defaults, err := c.Cache.Policy.Decode(options)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sdk.Config{"busy_timeout": "5s", "cache_size": "1024", "sync": "true"}, defaults); diff != "" {
		t.Errorf("without a block: -want +got:\n%s", diff)
	}
}

func TestPluginOptionProblems(t *testing.T) {
	c := parse(t, strings.Replace(smallest, `dir = "images"`, "dir = \"images\"\n  driver = driver.local", 1)+`
driver "sqlite" "local" {
  config {
    busy_timeot = "5s"
    cache_size  = "10"
    sync        = "perhaps"
  }
}
`)
	_, err := c.Cache.Driver.Decode([]sdk.Option{
		{Name: "busy_timeout", Type: sdk.TypeDuration},
		{Name: "cache_size", Type: sdk.TypeSize},
		{Name: "sync", Type: sdk.TypeBool},
		{Name: "path", Type: sdk.TypeString, Required: true},
	})
	want := `test.hcl:14,3: error: Missing option
   14 |   config {
      |   ^^^^^^
  The option "path" is required here.

test.hcl:15,5: error: Unsupported argument
   15 |     busy_timeot = "5s"
      |     ^^^^^^^^^^^
  An argument named "busy_timeot" is not expected here. Did you mean "busy_timeout"?

test.hcl:16,19: error: Bad value of cache_size
   16 |     cache_size  = "10"
      |                   ^^^^
  "10" has no unit; write "10B" for bytes, or a unit such as "10GiB".

test.hcl:17,19: error: Bad value of sync
   17 |     sync        = "perhaps"
      |                   ^^^^^^^^^
  Expected true or false, got "perhaps".`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPluginErrorsNameTheBlock(t *testing.T) {
	c := parse(t, strings.Replace(smallest, `dir = "images"`, "dir = \"images\"\n  driver = driver.local", 1)+
		"driver \"sqlit\" \"local\" {\n}\n")
	for err, want := range map[error][]string{
		c.Cache.Driver.Unknown([]string{"centraldb", "sqlite"}):   {"test.hcl:12,8:", `There is no driver plugin "sqlit"`, `Did you mean "sqlite"?`},
		c.Cache.Driver.Refused(errors.New("path is a directory")): {"test.hcl:12,1:", `The driver plugin "sqlit" refuses`, "Path is a directory."},
		c.Cache.Policy.Unknown(nil):                               {"error: Unknown plugin", `There is no policy plugin "lru"`},
	} {
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("lacks %q:\n%v", part, err)
			}
		}
	}
}

// FuzzLoad checks that no text makes Load panic, and that whatever it accepts
// is complete.
func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("..", "..", "testdata", "config", "*.hcl*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(seeds, filepath.Join("..", "..", "config.hcl.example")) {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, strings.HasSuffix(name, ".json"))
	}
	f.Add([]byte(smallest), false)
	for _, b := range bombs {
		if len(b.text) < 1<<12 {
			f.Add([]byte(b.text), strings.HasSuffix(b.name, ".json"))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, json bool) {
		if len(text) > 1<<16 {
			return // long texts find nothing new
		}
		name := "fuzz.hcl"
		if json {
			name += ".json"
		}
		c, err := load([]source{{name, "/etc/imgcache", text}})
		if err != nil {
			var diags *Diagnostics
			if !errors.As(err, &diags) || diags.Len() == 0 || diags.Error() == "" {
				t.Fatalf("no diagnostics: %v", err)
			}
			return
		}
		if len(c.Listeners) == 0 || len(c.Origins) == 0 || c.Cache.Dir == "" || c.Cache.MaxSize <= 0 || c.Cache.Driver.Plugin == "" {
			t.Fatalf("accepted, but not complete: %+v", c)
		}
		now := time.Now()
		for _, s := range c.Schedules {
			if next := s.Timetable().Next(now); !next.IsZero() && !next.After(now) {
				t.Fatalf("schedule %s is due for ever", s.Name)
			}
		}
	})
}

// TestDriverReference finds what the command line calls a driver.
func TestDriverReference(t *testing.T) {
	c := parse(t, strings.Replace(smallest, `dir = "images"`, "dir = \"images\"\n  driver = driver.first", 1)+`
driver "sqlite" "first" {
}
driver "xattr" "second" {
}
`)
	for reference, plugin := range map[string]string{
		"driver.first": "sqlite", "driver.second": "xattr", "glance-sqlite": "sqlite", "glance-xattr": "xattr",
	} {
		p, err := c.Driver(reference)
		if err != nil || p.String() != reference || p.Plugin != plugin || p.OfGlance() != strings.HasPrefix(reference, "glance") {
			t.Errorf("%s is %s, the plugin %s, %v", reference, p, p.Plugin, err)
		}
	}
	for reference, want := range map[string]string{"driver.secnd": `"driver.second"`, "second": `"driver.second"`, "glance": "there is no driver"} {
		if p, err := c.Driver(reference); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %s, %v; want an error with %s", reference, p, err, want)
		}
	}
	if p, err := parse(t, smallest).Driver("driver.default"); err != nil || p.Plugin != DefaultDriver {
		t.Errorf("the default is %+v, %v", p, err)
	}
	glance, _ := c.Driver("glance-xattr")
	options, err := glance.Decode([]sdk.Option{{Name: "format", Type: sdk.TypeString, Default: "own"}})
	if err != nil || options["format"] != "glance" {
		t.Errorf("options for Glance are %v, %v", options, err)
	}
	if _, err := glance.Decode(nil); err == nil || !strings.Contains(err.Error(), "no option format") {
		t.Errorf("a plugin without the format: %v", err)
	}
}
