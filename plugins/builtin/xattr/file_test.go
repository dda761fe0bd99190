package xattr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
)

// TestOnlyImagesHaveRecords plants all that may lie in the directory and is no
// image: nothing of it is listed, opened for writing or given an attribute.
func TestOnlyImagesHaveRecords(t *testing.T) {
	dir, outside := cacheDir(t), filepath.Join(cacheDir(t), "outside")
	d, _ := open(t, dir, nil)
	writeFile(t, filepath.Dir(outside), "outside")
	glances := strings.Fields("checkme cache.db cache.db-journal image_cache_db_init glance-cache")
	writeFile(t, dir, append(glances, "image", "a~b", ".hidden", "-dash")...)
	inside := []string{"incomplete/x", "invalid/x", "queue/x", ".imgcache/lock"}
	for _, name := range inside {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o750); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, name)
	}
	for _, err := range []error{
		os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink("image", filepath.Join(dir, "inner-link")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640), os.Mkdir(filepath.Join(dir, "directory"), 0o750),
		unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o640, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := slices.Concat(glances, inside, []string{
		"link", "inner-link", "dangling", "fifo", "directory", "socket", "a~b", ".hidden", "-dash", ".", "..", ".imgcache",
		"incomplete", "invalid", "queue", "image/", "./image", "../outside", outside, "image\x00", "im\u00ffage", " ",
	})
	batch := next(logA)
	var ops []sdk.Op
	for _, name := range names {
		if len(name) <= sdk.MaxIDLen {
			setIfThere(t, filepath.Join(dir, name), hitsName, "5") // as Glance would have it
			ops = append(ops, sdk.Put(entry(name, 1)), sdk.Touch(name, 1, moment))
		}
	}
	apply(t, d, batch(append(ops, sdk.Put(entry("image", 1)))...))
	want(t, d, entry("image", 1))
	for i := range ops {
		ops[i] = sdk.Delete(ops[i].Entry.ID)
	}
	apply(t, d, batch(ops...))
	want(t, d, entry("image", 1))
	for _, path := range append(names, outside) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() || path == filepath.Join(dir, "image") {
			continue
		}
		if got := attribute(t, path, recordName); got != "-" {
			t.Errorf("%s has a record", path)
		}
		if got := attribute(t, path, hitsName); got != "5" && path != outside {
			t.Errorf("%s has %s hits", path, got)
		}
	}
}

func setIfThere(t *testing.T, path, name, value string) {
	t.Helper()
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() && filepath.Base(path) != "image" {
		setAttribute(t, path, name, value)
	}
}

// TestDamageIsSaidOnce: a record that is not ours as it stands is as none, and
// the next put begins anew.
func TestDamageIsSaidOnce(t *testing.T) {
	dir := cacheDir(t)
	writeFile(t, dir, "good", "bad", "long")
	d, log := open(t, dir, nil)
	long := entry("long", 2)
	long.Version = strings.Repeat("x", 4000)
	batch := next(logA)
	apply(t, d, batch(sdk.Put(entry("good", 1)), sdk.Put(entry("bad", 9)), sdk.Put(long)))
	want(t, d, entry("good", 1), entry("bad", 9), long)

	path := filepath.Join(dir, "bad")
	setAttribute(t, path, recordName, strings.Replace(attribute(t, path, recordName), "hits=9", "hits=8", 1))
	versionOf := filepath.Join(dir, ".imgcache", "xattr", versionsDir, versions(t, dir)[0])
	if err := os.WriteFile(versionOf, []byte("another"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"bad", "long"} {
		if err := unix.Removexattr(filepath.Join(dir, id), hitsName); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		want(t, d, entry("good", 1))
	}
	if n := strings.Count(log.String(), "id=bad"); n != 1 {
		t.Errorf("the damage is said %d times:\n%s", n, log)
	}
	apply(t, d, batch(sdk.Touch("bad", 1, moment), sdk.Put(long)))
	want(t, d, entry("good", 1), long)
	apply(t, d, batch(sdk.Put(entry("bad", 3))))
	want(t, d, entry("good", 1), entry("bad", 3), long)

	setAttribute(t, filepath.Join(dir, ".imgcache"), sourcesName, "damaged")
	if err := d.Apply(t.Context(), batch()); !errors.Is(err, sdk.ErrInvalid) { // so that the host reconciles
		t.Errorf("Apply() without the sources = %v, want %v", err, sdk.ErrInvalid)
	}
	apply(t, d, next(logB)(sdk.Touch("bad", 1, moment)))
	want(t, d, entry("good", 1), entry("bad", 4), long)
}

// TestLongVersions keeps versions that fit into no attribute, on a disk, and
// nothing of those that are no longer used.
func TestLongVersions(t *testing.T) {
	dir := diskDir(t)
	writeFile(t, dir, "a", "b", "c")
	setAttribute(t, filepath.Join(dir, "a"), "user.somebody", strings.Repeat("x", 2500)) // others use the room too
	d, _ := open(t, dir, nil)
	batch := next(logA)
	a, b := entry("a", 1), entry("b", 2)
	for i, version := range []string{
		strings.Repeat("x", 4000), strings.Repeat("x", 3999) + "y", strings.Repeat("\xff", 60_000), `"v1"`, strings.Repeat("é", 200), "",
	} {
		a.Version, b.Version, a.Hits = version, version, uint64(i)
		apply(t, d, batch(sdk.Put(a), sdk.Put(b)))
		apply(t, d, batch(sdk.Touch("a", 1, moment)))
		a.Hits++
		b.Hits = list(t, d)["b"].Hits
		want(t, d, a, b)
		if n, long := len(versions(t, dir)), len(version) > maxVersion/6; (n != 0) != long || n > 2 {
			t.Errorf("%d files for versions of %d bytes", n, len(version))
		}
	}

	a.Version, b.Version = strings.Repeat("z", 4000), strings.Repeat("z", 4000)
	apply(t, d, batch(sdk.Put(a), sdk.Put(b)))
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	apply(t, d, batch(sdk.Delete("a")))
	if left := versions(t, dir); len(left) != 1 || !strings.HasPrefix(left[0], "b~") {
		t.Errorf("versions %v, want that of b", left)
	}
	writeFile(t, filepath.Join(dir, ".imgcache", "xattr", versionsDir), "c~00", "junk", "../../../a")
	open(t, dir, nil)
	if left := versions(t, dir); len(left) != 1 || !strings.HasPrefix(left[0], "b~") {
		t.Errorf("after a start: versions %v, want that of b", left)
	}
}

// TestNoRoom: a file whose attributes are full, by whomever, has no record, and
// holds up no other.
func TestNoRoom(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.E2BIG, syscall.ERANGE} { // ext4, tmpfs, others
		t.Run(errno.Error(), func(t *testing.T) {
			dir := cacheDir(t)
			writeFile(t, dir, "full", "free")
			d, log := openWith(t, dir, nil, failing{fileAttributes{}, func(f *os.File, _ string) error {
				if f.Name() == "full" {
					return errno
				}
				return nil
			}})
			apply(t, d, next(logA)(sdk.Put(entry("full", 1)), sdk.Put(entry("free", 1))))
			want(t, d, entry("free", 1))
			if !strings.Contains(log.String(), "first=full") {
				t.Errorf("the log does not name the file: %s", log)
			}
		})
	}
}

// TestManySources: where not all of them fit the newest are kept.
func TestManySources(t *testing.T) {
	dir := cacheDir(t)
	d, _ := open(t, dir, nil)
	d.dir.attrs = short{fileAttributes{}, 700}
	for i := range 20 {
		batch := next(fmt.Sprint("source ", i))
		apply(t, d, batch())
		apply(t, d, batch())
	}
	known, err := parseSources(attribute(t, filepath.Join(dir, ".imgcache"), sourcesName))
	if err != nil || len(known) < 4 || known.last(sourceKey("source 19")) != 2 {
		t.Errorf("the sources are %v, %v", known, err)
	}
}

// short are attributes that are no longer than some bytes.
type short struct {
	attributes
	most int
}

func (s short) set(f *os.File, name string, value []byte) error {
	if len(value) > s.most {
		return syscall.ENOSPC
	}
	return s.attributes.set(f, name, value)
}

// TestFullDisk: when there is no space for anything the batch waits.
func TestFullDisk(t *testing.T) {
	dir, full := cacheDir(t), true
	attrs := failing{fileAttributes{}, func(*os.File, string) error {
		if full {
			return syscall.ENOSPC
		}
		return nil
	}}
	d, _ := open(t, dir, nil)
	d.dir.attrs = attrs
	writeFile(t, dir, "a")
	batch := next(logA)(sdk.Put(entry("a", 1)))
	if err := d.Apply(t.Context(), batch); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, errNoRoom) {
		t.Errorf("Apply() = %v, want %v", err, syscall.ENOSPC)
	}
	full = false
	apply(t, d, batch)
	want(t, d, entry("a", 1))
}

// TestFilesThatTakeNone: a file that this process may not write, or that the
// file system finds damaged, keeps the record that it has, and holds up no
// other.
func TestFilesThatTakeNone(t *testing.T) {
	for errno, said := range map[syscall.Errno]string{
		syscall.EPERM: "may not write", syscall.EACCES: "may not write", syscall.EUCLEAN: "are damaged", syscall.EBADMSG: "are damaged",
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			dir := cacheDir(t)
			d, log := openWith(t, dir, nil, failing{fileAttributes{}, func(f *os.File, _ string) error {
				if f.Name() == "theirs" {
					return errno
				}
				return nil
			}})
			writeFile(t, dir, "mine")
			theirs := leave(t, dir, "theirs", "4", moment, moment)
			theirs.Hits = 4
			want(t, d, theirs)
			apply(t, d, next(logA)(sdk.Touch("theirs", 1, moment), sdk.Put(entry("mine", 1))))
			want(t, d, theirs, entry("mine", 1))
			if text := log.String(); strings.Count(text, said) != 1 || strings.Contains(text, "are recorded") {
				t.Errorf("the log says\n%s", text)
			}
		})
	}
}

// TestListSeesNoPart lists while a batch is applied: all of it is seen, or
// nothing.
func TestListSeesNoPart(t *testing.T) {
	dir := cacheDir(t)
	var puts, touches []sdk.Op
	for i := range 50 {
		id := fmt.Sprint("image", i)
		writeFile(t, dir, id)
		puts, touches = append(puts, sdk.Put(entry(id, 0))), append(touches, sdk.Touch(id, 1, moment))
	}
	began, goOn := make(chan bool, 1), make(chan bool)
	d, _ := open(t, dir, nil)
	batch := next(logA)
	apply(t, d, batch(puts...))
	d.dir.attrs = failing{fileAttributes{}, func(f *os.File, _ string) error {
		if f.Name() == "image25" {
			select {
			case began <- true:
				<-goOn
			default:
			}
		}
		return nil
	}}
	done := make(chan error)
	go func() { done <- d.Apply(t.Context(), batch(touches...)) }()
	<-began
	listed := make(chan map[string]sdk.Entry)
	go func() { listed <- list(t, d) }()
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	hits := map[uint64]int{}
	for _, e := range <-listed {
		hits[e.Hits]++
	}
	if diff := cmp.Diff(map[uint64]int{1: 50}, hits); diff != "" {
		t.Errorf("images by hits (-want +got):\n%s", diff)
	}
}
