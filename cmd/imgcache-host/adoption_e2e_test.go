package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
	"golang.org/x/sys/unix"
)

// step is something that Glance does on a cache directory, and its result.
type step struct {
	do   []any
	want any
}

// glance works on a cache directory with Glance's own code, which the package
// python3-glance brings. The content of an image is in source.
func glance(t *testing.T, driver, dir, source string, steps ...step) {
	t.Helper()
	for i, got := range runGlance(t, driver, dir, source, steps...) {
		want, err := json.Marshal(steps[i].want)
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, got); err != nil || compact.String() != string(want) {
			t.Errorf("Glance (%s), %v: %s, want %s", driver, steps[i].do, got, want)
		}
	}
}

// runGlance returns the results of the steps.
func runGlance(t *testing.T, driver, dir, source string, steps ...step) []json.RawMessage {
	t.Helper()
	var do []any
	for _, s := range steps {
		do = append(do, s.do)
	}
	in, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "../../testdata/glance/cache.py", driver, dir, source)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("Glance: %v\n%s", err, errs.Bytes())
	}
	var results []json.RawMessage
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("Glance: %v in %s", err, out)
	}
	return results
}

// do is a step with arguments.
func do(want any, name string, args ...any) step { return step{append([]any{name}, args...), want} }

// each is a step for each of some images.
func each(want any, name string, ids ...string) (steps []step) {
	for _, id := range ids {
		steps = append(steps, do(want, name, id))
	}
	return steps
}

// state of a file that nobody may touch.
type fileState struct {
	Content string
	Mode    fs.FileMode
	Time    time.Time
}

// fileStates looks at those of some files that exist.
func fileStates(t *testing.T, dir string, names ...string) map[string]fileState {
	t.Helper()
	states := map[string]fileState{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		states[name] = fileState{string(content), fi.Mode(), fi.ModTime()}
	}
	return states
}

// glancesOwn are the files that Glance keeps among its images.
var glancesOwn = []string{"cache.db", "cache.db-journal", "image_cache_db_init", "glance-cache", "checkme"}

// adoption is a directory of Glance, an origin with the same images, and the
// service on both.
type adoption struct {
	*daemon
	origin *testOrigin
	driver string // of Glance
	keeper string // ours
	source string
	images map[string]*testImage
	hits   map[string]uint64 // when the service has ended
}

// kept reports whether records stay where both drivers find them.
func (a *adoption) kept() bool { return a.driver == "xattr" && a.keeper == "xattr" }

// longAgo is when the images that Glance leaves were last read, and when they
// were stored.
var longAgo = struct{ read, stored time.Time }{
	time.Now().Add(-30 * time.Minute).Round(time.Microsecond), time.Now().Add(-time.Hour).Round(time.Microsecond),
}

// image makes an image that Glance knows.
func (a *adoption) image(t *testing.T, id string, size int64) *testImage {
	t.Helper()
	img := newImage(id, size)
	a.images[id] = img
	writeFile(t, filepath.Join(a.source, id), string(img.bytes(0, size)))
	return img
}

func (a *adoption) glance(t *testing.T, dir string, steps ...step) {
	t.Helper()
	glance(t, a.driver, dir, a.source, steps...)
}

// leave lets Glance fill a directory: five images, of which the origin has one
// with more bytes and one not at all, and one goes bad on the disk; a queue; a
// transfer that failed, and two that nobody ended.
func (a *adoption) leave(t *testing.T, dir string) {
	t.Helper()
	for i, id := range strings.Fields("kept grown unknown idle damaged spoilt queued-3 queued-1 queued-2 interrupted stalled") {
		a.image(t, id, 3*mib+int64(i))
		switch id {
		case "grown":
			a.origin.add(id, 3*mib+100)
		case "unknown":
		default:
			a.origin.add(id, 3*mib+int64(i)).declare(nil)
		}
	}
	steps := []step{do(a.driver, "driver")}
	steps = append(steps, each(true, "store", "kept", "grown", "unknown", "idle", "damaged")...)
	steps = append(steps, do(true, "read", "kept"), do("refused", "spoil", "spoilt"))
	steps = append(steps, each(true, "queue", "queued-3", "queued-1", "queued-2")...)
	if a.driver == "sqlite" {
		steps = append(steps, do(true, "lock", "glance-cache")) // as a prefetch takes it
	}
	a.glance(t, dir, append(steps, do(nil, "die", "interrupted"))...)
	a.glance(t, dir, do(nil, "die", "stalled"))

	f, err := os.OpenFile(filepath.Join(dir, "damaged"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("bad"), 2*mib); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, id := range strings.Fields("kept grown unknown idle damaged") {
		if err := os.Chtimes(filepath.Join(dir, id), longAgo.read, longAgo.stored); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAdoptGlance hands a directory of a real Glance over to the service, and
// back, and over again.
func TestAdoptGlance(t *testing.T) {
	t.Parallel()
	for _, drivers := range [][2]string{{"sqlite", "sqlite"}, {"xattr", "sqlite"}, {"xattr", "xattr"}} {
		driver, keeper := drivers[0], drivers[1]
		t.Run(driver+" by "+keeper, func(t *testing.T) {
			t.Parallel()
			a := &adoption{
				origin: newOrigin(t), driver: driver, keeper: keeper, source: t.TempDir(),
				images: map[string]*testImage{}, hits: map[string]uint64{},
			}
			dir := filepath.Join(t.TempDir(), "images")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			a.leave(t, dir)
			writeFile(t, filepath.Join(dir, "checkme"), "XXX") // of a probe that failed
			if driver == "sqlite" {
				writeFile(t, filepath.Join(dir, "cache.db-journal"), "")
			}
			before := fileStates(t, dir, glancesOwn...)

			a.daemon = start(t, setup{
				origin: a.origin.block(), dir: dir, cache: "prefetch {\n workers = 1\n }\n" + keptRecords,
				more: fmt.Sprintf("driver %q \"records\" {\n}\n", keeper),
			})
			a.testQueue(t)
			a.testImages(t)
			a.testForeignFiles(t)
			a.testScrub(t)
			if u := a.usage(); u.Images != 9 || u.Bytes != a.size(t) {
				t.Errorf("%d bytes of %d images are counted, want %d of 9", u.Bytes, u.Images, a.size(t))
			}
			a.stopInFill(t)
			if diff := cmp.Diff(before, fileStates(t, dir, glancesOwn...)); diff != "" {
				t.Errorf("Glance's own files were touched (-before +after):\n%s", diff)
			}
			a.testHandingBack(t)
			a.testAdoptAgain(t)
		})
	}
}

// testQueue: what Glance queued is fetched in its order.
func (a *adoption) testQueue(t *testing.T) {
	a.eventually("the queue is empty", func() bool { return len(a.queue()) == 0 })
	want := []string{"queued-3", "queued-1", "queued-2"}
	if got := a.origin.gets(); !slices.Equal(got, want) {
		t.Errorf("fetched in the order %v, want %v", got, want)
	}
	for _, id := range want {
		a.waitState(id, cache.StateCached)
	}
}

// testImages: Glance's images are served, as unverified, and those of which the
// origin has another opinion are not.
func (a *adoption) testImages(t *testing.T) {
	if diff := cmp.Diff(strings.Fields("damaged grown idle kept queued-1 queued-2 queued-3 unknown"), a.ids()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	hits := uint64(0)
	if a.driver == a.keeper {
		hits = 1 // from Glance's records
	}
	a.eventually("the records are there", func() bool { return a.usage().Records == "ready" })
	if info := a.state("idle"); a.kept() && (!info.LastAccessed.Equal(longAgo.read) || !info.LastModified.Equal(longAgo.stored)) {
		t.Errorf("an adopted image is %+v, want it read and stored at %v", info, longAgo)
	}
	if info := a.state("kept"); info.Hits != hits || info.Verified || info.Size != a.images["kept"].size {
		t.Errorf("an adopted image is %+v, want %d hits", info, hits)
	}
	got := a.get("kept")
	if err := a.images["kept"].check(got); err != nil {
		t.Error(err)
	}
	if s := got.cacheStatus(); !strings.Contains(s, "; hit") || !strings.Contains(s, "unverified") {
		t.Errorf("Cache-Status of an adopted image: %s", s)
	}
	a.eventually("the hit is counted", func() bool { return a.state("kept").Hits == hits+1 })
	if got := a.get("unknown"); got.status != http.StatusNotFound {
		t.Errorf("an image that the origin does not have: status %d", got.status)
	}
	if err := a.images["unknown"].check(a.call(http.MethodGet, "/v1/images/unknown/data", "")); err != nil {
		t.Errorf("from the native API: %v", err)
	}
	grown := newImage("grown", 3*mib+100)
	if got := a.get("grown"); grown.check(got) != nil || strings.Contains(got.cacheStatus(), "; hit") {
		t.Errorf("an image that is larger at the origin: %v, %s", grown.check(got), got.cacheStatus())
	}
	a.images["grown"] = grown
	writeFile(t, filepath.Join(a.source, "grown"), string(grown.bytes(0, grown.size)))
	a.eventually("it has replaced the older one", func() bool { return a.state("grown").Verified })
	for _, id := range a.origin.gets() {
		if id == "kept" || id == "idle" {
			t.Errorf("%s was fetched", id)
		}
	}
}

// testForeignFiles: what Glance did not end is filling for all but a GET, which
// ends it, and a clean.
func (a *adoption) testForeignFiles(t *testing.T) {
	for _, id := range []string{"interrupted", "stalled"} {
		a.waitState(id, cache.StateFilling)
		if a.enqueue(id) {
			t.Errorf("%s is queued", id)
		}
		if got := a.call(http.MethodPost, "/v1/writes", `{"id": "`+id+`"}`); got.status != http.StatusConflict {
			t.Errorf("write of %s: %d %s", id, got.status, got.body)
		}
	}
	if err := a.images["interrupted"].check(a.get("interrupted")); err != nil {
		t.Error(err)
	}
	a.waitState("interrupted", cache.StateCached)
	a.eventually("only the stalled file is in incomplete/", func() bool { return slices.Equal(a.files("incomplete"), []string{"stalled"}) })

	var cleaned cache.Result
	a.call(http.MethodPost, "/v1/clean", "").decode(t, &cleaned) // neither is old
	if want := (cache.Result{Files: 1, Bytes: a.images["spoilt"].size}); cleaned != want {
		t.Errorf("clean: %+v, want %+v, the invalid file", cleaned, want)
	}
	a.call(http.MethodPost, "/v1/clean", `{"stall_time": 0}`).decode(t, &cleaned)
	if want := (cache.Result{Files: 1, Bytes: a.images["stalled"].size / 2}); cleaned != want {
		t.Errorf("clean: %+v, want %+v, the stalled file", cleaned, want)
	}
	a.waitState("stalled", cache.StateAbsent)
}

// testScrub: a scrub verifies what was adopted, and finds what has gone bad.
func (a *adoption) testScrub(t *testing.T) {
	code, stdout, stderr := command(t, "--socket", a.socket, "verify")
	if code != 1 || !strings.Contains(stdout+stderr, "damaged") {
		t.Errorf("verify: exit code %d, want 1 because of the damaged image\n%s%s", code, stdout, stderr)
	}
	for _, id := range []string{"kept", "idle", "unknown"} {
		if info := a.state(id); !info.Verified || info.SHA256 != a.images[id].hex() {
			t.Errorf("after a scrub: %+v", info)
		}
	}
	if err := a.images["damaged"].check(a.get("damaged")); err != nil {
		t.Error(err)
	}
	a.waitState("damaged", cache.StateCached)
	var cleaned cache.Result
	a.call(http.MethodPost, "/v1/clean", "").decode(t, &cleaned)
	if want := (cache.Result{Files: 1, Bytes: a.images["damaged"].size}); cleaned != want {
		t.Errorf("clean: %+v, want %+v, the bad file", cleaned, want)
	}
}

// size is that of all images in the base directory.
func (a *adoption) size(t *testing.T) (sum int64) {
	for _, id := range a.ids() {
		fi, err := os.Stat(filepath.Join(a.dir, id))
		if err != nil {
			t.Fatal(err)
		}
		sum += fi.Size()
	}
	return sum
}

// stopInFill ends the service in the middle of a fill, so that it leaves a file
// of its own in incomplete/.
func (a *adoption) stopInFill(t *testing.T) {
	const size = 8 * mib
	a.origin.add("held", size).gateAt(size / 2)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp, err := a.request(ctx, http.MethodGet, "held")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, size/4); err != nil {
		t.Fatal(err)
	}
	leave()
	for _, id := range a.ids() {
		a.hits[id] = a.state(id).Hits
	}
	a.stop()
	if left := a.files("incomplete"); len(left) != 1 || !strings.HasPrefix(left[0], "held~") {
		t.Errorf("incomplete/ holds %v, want one file of the fill that was interrupted", left)
	}
}

// testHandingBack: Glance finds all images, its own and ours, can read, queue,
// clean and store, and does not mind what is ours.
func (a *adoption) testHandingBack(t *testing.T) {
	ids := a.images
	delete(ids, "spoilt")
	delete(ids, "stalled")
	var cached []string
	size := int64(0)
	for id, img := range ids {
		cached, size = append(cached, id), size+img.size
	}
	slices.Sort(cached)
	a.image(t, "new", 5000)
	listed, counted := cached, size
	if a.driver == "sqlite" { // it lists its records, and counts what it left behind
		listed, counted = strings.Fields("damaged grown idle kept unknown"), size+int64(len("XXX"))
	}
	steps := []step{do(listed, "list"), do(counted, "size"), do(false, "filling", "held"), do([]string{}, "queued")}
	if a.kept() {
		for id, hits := range a.hits {
			steps = append(steps, do(hits, "hits", id))
		}
	}
	steps = append(steps, each(true, "read", "kept", "idle")...)
	if a.driver == "xattr" && !a.kept() {
		// Glance sends what has no user.hits, and then fails to count the hit.
		a.glance(t, a.dir, each("uncounted", "read", "grown", "queued-1")...)
		giveHits(t, a.dir, cached)
	}
	steps = append(steps, each(true, "read", cached...)...)
	steps = append(steps, do(false, "queue", "kept"), do(true, "queue", "held"), do(nil, "clean", 0), do(true, "store", "new"))
	a.glance(t, a.dir, steps...)
	if left := a.files("incomplete"); len(left) != 0 {
		t.Errorf("after Glance's clean incomplete/ holds %v", left)
	}
}

// giveHits gives each image that lacks it the attribute in which Glance's xattr
// driver counts hits, as docs/upgrading-from-glance.md has the operator do.
func giveHits(t *testing.T, dir string, ids []string) {
	t.Helper()
	for _, id := range ids {
		err := unix.Setxattr(filepath.Join(dir, id), "user.hits", []byte("0"), unix.XATTR_CREATE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
	}
}

// testAdoptAgain: what Glance did meanwhile is adopted, what it did not touch is
// as verified as before, and when it has removed everything nothing is left.
func (a *adoption) testAdoptAgain(t *testing.T) {
	a.origin.add("held", 8*mib)
	a.origin.add("new", 5000)
	a.restart()
	a.waitState("held", cache.StateCached) // from the queue
	for id, verified := range map[string]bool{"new": false, "kept": true, "grown": true, "queued-1": true, "interrupted": true} {
		got := a.get(id)
		if err := a.images[id].check(got); err != nil || !strings.Contains(got.cacheStatus(), "; hit") {
			t.Errorf("%v, %s", err, got.cacheStatus())
		}
		if info := a.state(id); info.Verified != verified {
			t.Errorf("%s is verified: %v, want %v", id, info.Verified, verified)
		}
	}
	if a.kept() { // Glance has read each of ours once or twice, and we once more
		for id, hits := range map[string]uint64{"new": 1, "kept": a.hits["kept"] + 3, "grown": a.hits["grown"] + 2, "idle": a.hits["idle"] + 2} {
			a.eventually(fmt.Sprintf("%s has %d hits", id, hits), func() bool { return a.state(id).Hits == hits })
		}
	}
	size := a.size(t)
	a.stop()
	// All that is a file and not the database, as Glance does.
	count := len(a.files("."))
	switch {
	case a.driver == "sqlite":
		a.glance(t, a.dir, do(count-1, "delete_all"))
	case a.kept():
		a.glance(t, a.dir, do([]int64{int64(count), size}, "prune", 0), do(0, "delete_all"))
	default:
		a.glance(t, a.dir, do(count, "delete_all"))
	}
	a.restart()
	if ids := a.ids(); len(ids) != 0 {
		t.Errorf("after Glance removed everything: %v", ids)
	}
}

// serveAsGlance starts a service whose driver keeps its records in Glance's
// format, and serves the image first three times, second twice and third once.
func serveAsGlance(t *testing.T, driver string) *adoption {
	t.Helper()
	a := &adoption{origin: newOrigin(t), driver: driver, source: t.TempDir(), images: map[string]*testImage{}}
	a.daemon = start(t, setup{
		origin: a.origin.block(), cache: keptRecords,
		more: fmt.Sprintf("driver %q \"records\" {\n config {\n format = \"glance\"\n }\n}\n", driver),
	})
	for _, id := range strings.Fields("first second third") {
		a.image(t, id, 100_000)
		a.origin.add(id, 100_000)
		a.get(id)
		a.waitState(id, cache.StateCached)
	}
	for _, id := range strings.Fields("second first first second third first") {
		a.get(id)
	}
	return a
}

// TestFormatOfGlance has the service keep its records as Glance's xattr driver
// does. Glance then finds the hits, and in the files' access times, by which it
// prunes, what was used last.
func TestFormatOfGlance(t *testing.T) {
	t.Parallel()
	a := serveAsGlance(t, "xattr")
	a.eventually("the hits are counted", func() bool { return a.state("first").Hits == 3 })
	used := map[string]time.Time{}
	for _, id := range a.ids() {
		used[id] = a.state(id).LastAccessed
	}
	a.stop()
	for id, at := range used {
		fi, err := os.Stat(filepath.Join(a.dir, id))
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Unix(fi.Sys().(*syscall.Stat_t).Atim.Unix()); !got.Equal(at) {
			t.Errorf("%s was used at %v, its file says %v", id, at, got)
		}
	}
	a.glance(t, a.dir, do(strings.Fields("first second third"), "list"),
		do(3, "hits", "first"), do(2, "hits", "second"), do(1, "hits", "third"), do(true, "read", "third"))
}

// TestAdoptAsOrdinaryUser hands over a directory whose files belong to another
// user: those that may be read are served, the others are fetched and replaced,
// and the log says so.
func TestAdoptAsOrdinaryUser(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	a := &adoption{origin: newOrigin(t), driver: "sqlite", source: t.TempDir(), images: map[string]*testImage{}}
	home, err := os.MkdirTemp("/tmp", "ic") // that of a test cannot be entered by another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, programs := filepath.Join(home, "images"), filepath.Join(home, "bin")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(programs, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", filepath.Join(bin, "imgcache-host"), filepath.Join(bin, "plugins"), programs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	a.leave(t, dir)
	if err := os.Chmod(filepath.Join(dir, "idle"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The directories are given away, as the service must make files in them.
	for _, path := range []string{home, programs, dir, "incomplete", "invalid", "queue"} {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatalf("only root can make files of two users: %v", err)
		}
	}

	a.daemon = start(t, setup{origin: a.origin.block(), dir: dir, bin: programs, uid: nobody})
	a.eventually("the queue of another user is done", func() bool { return len(a.queue()) == 0 && len(a.files("queue")) == 0 })
	for id, hit := range map[string]bool{"kept": true, "idle": false} {
		got := a.get(id)
		if err := a.images[id].check(got); err != nil || strings.Contains(got.cacheStatus(), "; hit") != hit {
			t.Errorf("%v, %s; a hit: want %v", err, got.cacheStatus(), hit)
		}
	}
	a.eventually("the file that could not be read is replaced", func() bool { return a.state("idle").Verified })
	if got := a.get("idle"); !strings.Contains(got.cacheStatus(), "; hit") {
		t.Errorf("afterwards: %s", got.cacheStatus())
	}
	if got := a.get("interrupted"); a.images["interrupted"].check(got) != nil {
		t.Errorf("the image of a partial file: %v", a.images["interrupted"].check(got))
	}
	a.waitState("interrupted", cache.StateCached)
	log := a.logs[0].String()
	for _, want := range []string{`"some images have no block tables`, `"some images cannot be read by this process`, `"first":"idle"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	fi, err := os.Stat(filepath.Join(dir, "kept"))
	if err != nil || fi.Mode().Perm() != 0o644 || fi.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		t.Errorf("an adopted file has become %v, %v", fi, err)
	}
	if err := a.api.Delete(t.Context(), "kept"); err != nil {
		t.Errorf("delete an image of another user: %v", err)
	}
	a.waitState("kept", cache.StateAbsent)
}
