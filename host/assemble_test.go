package host

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/origin"
)

// configure loads a configuration with the text behind what every one needs.
func configure(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "imgcache.hcl")
	if err := os.WriteFile(path, []byte("listener \"tcp\" \"public\" {\n  address = \"127.0.0.1:0\"\n}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestEngineConfig sets each option of the engine to a value of its own and
// looks for it in what the engine gets.
func TestEngineConfig(t *testing.T) {
	t.Parallel()
	got := engineConfig(configure(t, `
cache "default" {
  dir            = "/images"
  max_size       = "101B"
  limit          = "hard"
  stall_time     = "102s"
  write_timeout  = "116s"
  flush_interval = "115s"
  max_image_size = "99B"
  admit_after    = 104
  verify_reads   = "first"
  prune {
    interval       = "105s"
    high_watermark = 0.9
    low_watermark  = 0.8
    min_age        = "106s"
    min_free       = "107B"
  }
  fill {
    retries         = 108
    keep_filling    = true
    concurrency     = 109
    bandwidth       = "111B"
    ranges_in_fill  = "verified"
    cold_per_client = 112
  }
  prefetch {
    workers  = 113
    min_rate = "117B"
  }
  scrub {
    bandwidth = "114B"
  }
}
origin "directory" "golden" {
  path = "/srv/images"
}
pin "base" {
  images = ["debian-12", "ubuntu-24.04"]
  until  = "2200-01-02T03:04:05+01:00"
}
shutdown {
  fills = "abort"
}
`))
	until := time.Date(2200, 1, 2, 2, 4, 5, 0, time.UTC)
	want := cache.Config{
		Options: options.Options{
			MaxSize: 101, Limit: options.LimitHard, StallTime: 102 * time.Second, WriteTimeout: 116 * time.Second, FlushInterval: 115 * time.Second,
			MaxImageSize: 99, AdmitAfter: 104, VerifyReads: options.VerifyFirst,
			Prune: options.Prune{Interval: 105 * time.Second, HighWatermark: 0.9, LowWatermark: 0.8, MinAge: 106 * time.Second, MinFree: 107},
			Fill: options.Fill{
				Retries: 108, KeepFilling: true, Concurrency: 109, Bandwidth: 111,
				RangesInFill: options.RangesVerified, ColdPerClient: 112,
			},
			Prefetch: options.Prefetch{Workers: 113, MinRate: 117}, Scrub: options.Scrub{Bandwidth: 114},
		},
		Fills: options.FillsAbort, DriverName: "driver.default",
		Pins: []cache.Pin{
			{ID: "debian-12", Until: until, From: `pin "base" of the configuration`},
			{ID: "ubuntu-24.04", Until: until, From: `pin "base" of the configuration`},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// What the host adds when it has opened it, or works for a command.
	opened := map[string]bool{"Store": true, "Origins": true, "Driver": true, "Policy": true, "Log": true, "Now": true, "Watch": true, "Offline": true, "ForeignDriver": true}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[cache.Config]()) {
		if set := !reflect.ValueOf(got).FieldByIndex(f.Index).IsZero(); !set && !opened[f.Name] {
			t.Errorf("no option sets %s", f.Name)
		}
	}
}

// TestOriginTerms does the same for what is asked of an origin.
func TestOriginTerms(t *testing.T) {
	t.Parallel()
	cfg := configure(t, `
cache "default" {
  dir = "/images"
}
origin "http" "mirror" {
  endpoint         = "http://mirror.example/"
  prefix           = "/mirror/"
  revalidate_after = "101s"
  negative_ttl     = "102s"
  on_origin_down   = "fail"
  concurrency      = 103
  bandwidth        = "104B"
  min_rate         = "105B"

  immutable            = true
  validators           = ["size", "digest"]
  revalidate           = "behind"
  on_denied            = "refuse"
  ignore_cache_control = true
  expect {
    content_types = ["image/*"]
    min_size      = "106B"
  }
}
origin "directory" "golden" {
  path   = "/srv/images"
  prefix = "/golden/"
}
`)
	want := []origin.Terms{
		{
			RevalidateAfter: 101 * time.Second, NegativeTTL: 102 * time.Second, FailWhenDown: true,
			Concurrency: 103, Bandwidth: 104, MinRate: 105,

			Immutable: true, Validators: []origin.Validator{origin.BySize, origin.ByDigest}, Revalidate: origin.RevalidateBehind,
			OnDenied: origin.DeniedRefuse, IgnoreCacheControl: true,
			Expect: origin.Expect{ContentTypes: []string{"image/*"}, MinSize: 106, NotHTML: true},
		},
		{}, // a directory answers at once, so nothing of it is remembered
	}
	for i, o := range cfg.Origins {
		if diff := cmp.Diff(want[i], originTerms(o)); diff != "" {
			t.Errorf("origin %s: -want +got:\n%s", o.Name, diff)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[origin.Terms]()) {
		if reflect.ValueOf(originTerms(cfg.Origins[0])).FieldByIndex(f.Index).IsZero() {
			t.Errorf("no option sets %s", f.Name)
		}
	}
}

// TestWordsAreTheOrigins checks the words of the language that stand for terms
// of an origin, as they are by default; the others are in TestOriginTerms.
func TestWordsAreTheOrigins(t *testing.T) {
	t.Parallel()
	cfg := configure(t, "cache \"default\" {\n  dir = \"/images\"\n}\norigin \"http\" \"mirror\" {\n  endpoint = \"http://mirror.example/\"\n}\n")
	got := originTerms(cfg.Origins[0])
	if diff := cmp.Diff(origin.AllValidators(), got.Validators); diff != "" {
		t.Errorf("validators: -want +got:\n%s", diff)
	}
	if got.Revalidate != origin.RevalidateBefore || got.OnDenied != origin.DeniedServeStale || !got.Expect.NotHTML || got.Immutable || got.IgnoreCacheControl {
		t.Errorf("the defaults are %+v", got)
	}
}

// TestS3Config does the same for a bucket.
func TestS3Config(t *testing.T) {
	t.Parallel()
	o := configure(t, `
cache "default" {
  dir = "/images"
}
origin "s3" "objects" {
  endpoint         = "http://s3.example:9000"
  bucket           = "images"
  key_prefix       = "cloud"
  region           = "here"
  path_style       = false
  access_key       = "ak"
  secret_key       = "sk"
  revalidate_after = "101s"
  connect_timeout  = "102s"
  idle_timeout     = "103s"
}
`).Origins[0]
	pathStyle := false
	want := origin.S3Config{
		Name: "objects", Endpoint: "http://s3.example:9000", Bucket: "images", Prefix: "cloud", Region: "here",
		PathStyle: &pathStyle, AccessKey: "ak", SecretKey: "sk", ConnectTimeout: 102 * time.Second, IdleTimeout: 103 * time.Second,
		Terms: originTerms(o),
	}
	if diff := cmp.Diff(want, s3Config(o)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[origin.S3Config]()) {
		if reflect.ValueOf(want).FieldByIndex(f.Index).IsZero() {
			t.Errorf("no option sets %s", f.Name)
		}
	}
	if want.Terms.RevalidateAfter != 101*time.Second {
		t.Errorf("terms %+v", want.Terms)
	}
	if from, err := openOrigin(o, slog.Default()); err != nil || from.Name() != "objects" {
		t.Errorf("%v, %v", from, err)
	}
}

// TestChecksumsOfAnOrigin opens an origin whose images are in signed lists.
func TestChecksumsOfAnOrigin(t *testing.T) {
	t.Parallel()
	signed, err := filepath.Abs(filepath.Join("..", "testdata", "signed"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(signed)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.img"), []byte("the image\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for signature, good := range map[string]bool{"SHA256SUMS.gpg": true, "SHA256SUMS.stranger": false} {
		o := configure(t, fmt.Sprintf(`
cache "default" {
  dir = "/images"
}
origin "directory" "golden" {
  path   = %q
  settle = "0s"
  checksums {
    file     = "SHA256SUMS"
    required = true
    signature {
      keyring = %q
      file    = %q
    }
  }
}
`, dir, filepath.Join(signed, "keyring.gpg"), signature)).Origins[0]
		from, err := openOrigin(o, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		obj, err := from.Stat(t.Context(), "x.img")
		if err != nil || good != (len(obj.Digests) == 1) || good == (obj.Refused == origin.RefusedSum) {
			t.Errorf("signed by %s: %+v, %v", signature, obj, err)
		}
	}
}
