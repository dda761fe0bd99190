package fromglance

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/config"
)

// The defaults of Glance; where it has none, those of its packages.
const (
	defaultMaxSize   = "10737418240"
	defaultStallTime = "86400"
	defaultImages    = "/var/lib/glance/images/"
	usualCacheDir    = "/var/lib/glance/image-cache"
)

// Environment variables that the written configuration refers to, for values
// that it does not contain.
const (
	dsnVariable    = "IMGCACHE_DSN"
	originVariable = "IMGCACHE_ORIGIN"
)

// Translation is a configuration of this service that was made of one of
// Glance's.
type Translation struct {
	HCL   []byte
	Notes []string // what is left for a person to do or to know; a sentence or two each
}

// Translate reads the configuration files of a Glance, where later files win,
// and writes what they say about its image cache as a configuration of this
// service. Each line names the option that it comes from. Neither the
// configuration nor the notes contain a password.
func Translate(files []string) (*Translation, error) {
	options, err := readFiles(files)
	if err != nil {
		return nil, err
	}
	return translate(files, options)
}

func translate(files []string, options settings) (*Translation, error) {
	t := translator{options: options, out: newPage()}
	t.out.remark("Made of the options of Glance in %s.", strings.Join(files, ", "))
	t.out.remark("The comment on a line names the option of Glance that it comes from.")
	if err := errors.Join(t.flavor(), t.findDriver(), t.node(), t.listener(), t.cache(), t.driver(), t.origin()); err != nil {
		return nil, err
	}
	t.rest()
	return &Translation{HCL: t.out.bytes(), Notes: t.notes}, nil
}

// translator writes one configuration, block by block.
type translator struct {
	options settings
	out     *page
	kept    kept
	notes   []string
}

func (t *translator) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// source says where a value comes from.
func source(s setting) string {
	if s.isSet() {
		return s.name() + ", " + s.at()
	}
	return s.name() + " is not set: its default"
}

// flavor says whether Glance used its cache at all.
func (t *translator) flavor() error {
	f, err := t.options.get("paste_deploy", "flavor", "")
	if err != nil {
		return err
	}
	if strings.Contains(f.value, "cach") {
		t.out.remark("Glance used its cache: %s is %q (%s).", f.name(), f.value, f.at())
		return nil
	}
	t.out.remark("Glance did not use its cache: %s has no caching in it.", f.name())
	t.note("Glance did not use its cache: %s is %q. The only thing taken over is its cache directory.", f.name(), f.value)
	return nil
}

func (t *translator) node() error {
	self, err := t.options.get(defaultSection, "worker_self_reference_url", "")
	if err != nil {
		return err
	}
	if self.value == "" {
		if t.kept.driver == glanceCentral {
			return errors.New("the driver centralized_db knows a node by worker_self_reference_url, which is not set in these files; name the file that has it too")
		}
		return nil
	}
	u, err := url.Parse(self.value)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.ContainsAny(self.value, "?#") {
		return self.errorf("expected a URL such as http://host:9292")
	}
	node := t.out.block("node")
	node.set("name", text(u.Hostname()), "the host in "+source(self))
	if t.kept.driver == glanceCentral {
		node.set("advertise", text(self.value), "the name of this node in Glance's tables")
	}
	return nil
}

// listener is on loopback: whoever reaches it has every image.
func (t *translator) listener() error {
	t.out.block("listener", config.TCP, "public").
		set("address", text("127.0.0.1:9293"), "Glance keeps its own address")
	t.note("The service listens on loopback until you change the address: it sends each image to whoever reaches it, and does not ask Glance who may read it.")
	return nil
}

func (t *translator) cache() error {
	dir, err1 := t.options.get(defaultSection, "image_cache_dir", usualCacheDir)
	limit, err2 := t.number("image_cache_max_size", defaultMaxSize)
	stall, err3 := t.number("image_cache_stall_time", defaultStallTime)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if err := t.directory(dir); err != nil {
		return err
	}
	b := t.out.block("cache", "default")
	if dir.isSet() {
		b.set("dir", text(dir.value), source(dir))
	} else {
		b.set("dir", text(dir.value), dir.name()+" is not set: the usual place")
		t.note("%s is not set in these files, and Glance has no cache without it. If it stands in another file, such as glance-cache.conf, name that too.", dir.name())
	}
	if limit.n > 0 {
		b.set("max_size", text(config.FormatSize(limit.n)), source(limit.setting))
	} else {
		b.remark("%s is 0 (%s): each prune emptied the cache. Here max_size is at least a byte.", limit.name(), limit.at())
		t.note("%s is 0, which has no equivalent here: max_size is left at its default of 10GiB.", limit.name())
	}
	b.set("limit", text(string(options.LimitHard)), "Glance lets the cache grow until a prune: \"prune\"")
	if d := stallTime(stall.n); d > 0 {
		b.set("stall_time", text(config.FormatDuration(d)), source(stall.setting))
	} else {
		b.remark("%s is 0 (%s): each clean removed all that was incomplete. Here stall_time is positive.", stall.name(), stall.at())
	}
	b.set("driver", ref("driver", recordsName), "")
	return nil
}

// directory wants a path that means the same to Glance and to this service.
func (t *translator) directory(s setting) error {
	if !filepath.IsAbs(s.value) || strings.ContainsAny(s.value, "\x00\n") {
		return s.errorf("expected a path that begins with /")
	}
	return nil
}

// number is a setting with the number that it is.
type number struct {
	setting
	n int64
}

func (t *translator) number(option, otherwise string) (number, error) {
	s, err := t.options.get(defaultSection, option, otherwise)
	if err != nil {
		return number{}, err
	}
	if strings.TrimFunc(s.value, isSpace) == "" { // oslo.config: as if it were not there
		s = setting{section: s.section, option: s.option, value: otherwise}
	}
	n, err := s.number()
	return number{s, n}, err
}

// stallTime is a number of seconds as a duration, capped at the longest one.
func stallTime(seconds int64) time.Duration {
	return time.Duration(min(seconds, math.MaxInt64/int64(time.Second))) * time.Second
}

// notNeeded are options that have no meaning here, and why.
var notNeeded = []struct{ section, option, why string }{
	{defaultSection, sqliteDB, "Glance's driver is another one"},
	{defaultSection, "cache_prefetcher_interval", "queued images are fetched at once"},
	{"oslo_concurrency", "lock_path", "the cache directory has a lock of its own"},
}

// rest names what is set and was not translated.
func (t *translator) rest() {
	var lines []string
	for _, n := range notNeeded {
		if s, ok := t.options.last(n.section, n.option); ok && (n.option != sqliteDB || t.kept.driver != glanceSQLite) {
			lines = append(lines, fmt.Sprintf("%s (%s): %s", s.name(), s.at(), n.why))
		}
	}
	seen := map[string]bool{
		"image_cache_dir": true, "image_cache_driver": true, "image_cache_max_size": true,
		"image_cache_stall_time": true, sqliteDB: true,
	}
	for _, s := range t.options {
		if s.section == defaultSection && strings.HasPrefix(s.option, "image_cache_") && !seen[s.option] {
			seen[s.option] = true
			lines = append(lines, fmt.Sprintf("%s (%s): not a known option of Glance's cache", s.name(), s.at()))
		}
	}
	if len(lines) == 0 {
		return
	}
	t.out.gap()
	t.out.remark("Not needed:")
	for _, line := range lines {
		t.out.remark("- %s", line)
	}
}
