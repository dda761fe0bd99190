package origin_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

func TestDirectoryOffersRegularFilesOnly(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(outside, []byte("secret"), 0o640),
		os.WriteFile(in("real"), []byte("image"), 0o640),
		os.Mkdir(in("sub"), 0o750),
		os.WriteFile(in("sub/deep"), []byte("deep"), 0o640),
		os.Symlink("real", in("latest")),
		os.Symlink(outside, in("escape")),
		os.Symlink("../"+filepath.Base(filepath.Dir(outside))+"/secret", in("up")),
		os.Symlink("loop", in("loop")),
		syscall.Mkfifo(in("fifo"), 0o640),
	); err != nil {
		t.Fatal(err)
	}
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
	for name, want := range map[string]error{
		"sub":       origin.ErrNotFound,
		"fifo":      origin.ErrNotFound,
		"loop":      origin.ErrNotFound,
		"real/deep": origin.ErrNotFound,
		"escape":    origin.ErrNotFound,
		"up":        origin.ErrNotFound,
	} {
		if _, err := o.Stat(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("Stat(%s) = %v, want %v", name, err, want)
		}
		if _, _, err := fetch(o, origin.Request{Name: name, Length: -1}); !errors.Is(err, want) {
			t.Errorf("Open(%s) = %v, want %v", name, err, want)
		}
	}
	expect(t, o, origin.Request{Name: "latest", Length: -1}, []byte("image"))
	expect(t, o, origin.Request{Name: "sub/deep", Length: -1}, []byte("deep"))
}

// A directory that is not mounted has lost no image.
func TestMissingDirectoryIsUnavailable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mount")
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
	if _, err := o.Stat(t.Context(), "a"); !errors.Is(err, origin.ErrUnavailable) || errors.Is(err, origin.ErrNotFound) {
		t.Errorf("Stat = %v, want ErrUnavailable", err)
	}
	if err := errors.Join(os.Mkdir(dir, 0o750), os.WriteFile(filepath.Join(dir, "a"), []byte("image"), 0o640)); err != nil {
		t.Fatal(err)
	}
	expect(t, o, origin.Request{Name: "a", Length: -1}, []byte("image"))
}

// A file that is written to while it is read never ends cleanly.
func TestFileChangesWhileRead(t *testing.T) {
	data := random(1, 100_000)
	for what, change := range map[string]func(name string) error{
		"grows":        func(name string) error { return os.Truncate(name, 200_000) },
		"shrinks":      func(name string) error { return os.Truncate(name, 50_000) },
		"is emptied":   func(name string) error { return os.Truncate(name, 0) },
		"is rewritten": func(name string) error { return os.WriteFile(name, random(2, 100_000), 0o640) },
		"is touched":   func(name string) error { return os.Chtimes(name, time.Time{}, time.Unix(1, 0)) },
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, "a")
		if err := os.WriteFile(name, data, 0o640); err != nil {
			t.Fatal(err)
		}
		_, body, err := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir}).Open(t.Context(), origin.Request{Name: "a", Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := change(name); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := io.ReadAll(body); !errors.Is(err, origin.ErrChanged) {
				t.Errorf("a file %s: %v, want ErrChanged", what, err)
			}
		}
		body.Close()
	}
}

// A file that is replaced by a rename is read to its end as it was.
func TestFileReplacedWhileRead(t *testing.T) {
	dir, data := t.TempDir(), random(1, 100_000)
	name := filepath.Join(dir, "a")
	if err := os.WriteFile(name, data, 0o640); err != nil {
		t.Fatal(err)
	}
	_, body, err := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir}).Open(t.Context(), origin.Request{Name: "a", Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := errors.Join(os.WriteFile(name+".new", random(2, 10), 0o640), os.Rename(name+".new", name)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || string(got) != string(data) {
		t.Errorf("%d bytes, %v, want the file as it was", len(got), err)
	}
}

// A file that is replaced is another version, whatever size and time it has.
func TestReplacedFiles(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for what, replace := range map[string]func(name string) error{
		"by one of the same size and time": func(name string) error {
			return errors.Join(os.WriteFile(name+".new", random(2, 1000), 0o640), os.Chtimes(name+".new", old, old), os.Rename(name+".new", name))
		},
		"by a link to one that was there": func(name string) error {
			return errors.Join(os.Remove(name), os.Link(name+".other", name))
		},
		"in place, with its time set back": func(name string) error {
			return errors.Join(os.WriteFile(name, random(2, 1000), 0o640), os.Chtimes(name, old, old))
		},
		"by a longer one":   func(name string) error { return os.Truncate(name, 2000) },
		"by an empty one":   func(name string) error { return os.Truncate(name, 0) },
		"by an older one":   func(name string) error { return os.Chtimes(name, time.Time{}, old.Add(-time.Hour)) },
		"through a symlink": func(name string) error { return errors.Join(os.Remove(name), os.Symlink("a.other", name)) },
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, "a")
		for file, seed := range map[string]byte{name: 1, name + ".other": 3} {
			if err := errors.Join(os.WriteFile(file, random(seed, 1000), 0o640), os.Chtimes(file, old, old)); err != nil {
				t.Fatal(err)
			}
		}
		o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
		before := expect(t, o, origin.Request{Name: "a", Length: -1}, random(1, 1000))
		again, err := o.Stat(t.Context(), "a")
		if v, why := origin.Judge(before.Validators(), again.Validators(), o.Terms()); err != nil || v != origin.Same || before.Version != again.Version {
			t.Errorf("a file that stays is %v by %s, %v: %s, then %s", v, why, err, before.Version, again.Version)
		}
		tick(t, dir)
		if err := replace(name); err != nil {
			t.Fatal(err)
		}
		after, err := o.Stat(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if v, why := origin.Judge(before.Validators(), after.Validators(), o.Terms()); v != origin.Changed || before.Version == after.Version {
			t.Errorf("replaced %s: %v by %s, %s is %s now", what, v, why, before.Version, after.Version)
		}
		known := before.Validators()
		for _, k := range []*origin.Validators{nil, &known} {
			if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 10, Length: -1, Version: before.Version, Known: k}); !errors.Is(err, origin.ErrChanged) {
				t.Errorf("replaced %s: a rest comes: %v", what, err)
			}
		}
	}
}

// tick returns when the clock of inodes has gone on, which it does every few
// milliseconds.
func tick(t *testing.T, dir string) {
	t.Helper()
	probe := filepath.Join(dir, ".probe")
	var first time.Time
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err := os.WriteFile(probe, []byte("x"), 0o640); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(probe)
		if err != nil {
			t.Fatal(err)
		}
		if first.IsZero() {
			first = fi.ModTime()
		}
		if fi.ModTime().After(first) {
			return
		}
	}
	t.Fatal("the clock of inodes stands still")
}

// What an earlier version of the service noted of a file still holds.
func TestFileByFormerVersion(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	if err := os.WriteFile(name, random(1, 1000), 0o640); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	former := fmt.Sprintf("stat:1000-%d", fi.ModTime().UnixNano())
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
	now := expect(t, o, origin.Request{Name: "a", Offset: 10, Length: -1, Version: former}, random(1, 1000)[10:])
	if v, why := origin.Judge(origin.ValidatorsOf(former, 1000), now.Validators(), o.Terms()); v != origin.Same || now.Version != former {
		t.Errorf("%v by %s, version %s", v, why, now.Version)
	}
}

// A file that is being written is not handed out, and says when it will be.
func TestGrowingFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	const settle = time.Hour // the test takes no part of it
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir, Settle: settle})
	for _, c := range []struct {
		what    string
		change  func() error
		settled bool
	}{
		{"is written", func() error { return os.WriteFile(name, random(1, 1000), 0o640) }, false},
		{"grows", func() error { return os.Truncate(name, 2000) }, false},
		{"is just not old enough", func() error { return os.Chtimes(name, time.Time{}, time.Now().Add(-settle+time.Minute)) }, false},
		{"is old enough", func() error { return os.Chtimes(name, time.Time{}, time.Now().Add(-settle-time.Minute)) }, true},
		{"is renamed and old", func() error { return errors.Join(os.Rename(name, name+"2"), os.Rename(name+"2", name)) }, true},
		{"is made in the future, just now", func() error { return os.Chtimes(name, time.Time{}, time.Now().Add(time.Hour)) }, false},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		_, statErr := o.Stat(t.Context(), "a")
		_, _, openErr := fetch(o, origin.Request{Name: "a", Length: -1})
		for _, err := range []error{statErr, openErr} {
			var f *origin.Failure
			switch {
			case c.settled && err != nil:
				t.Errorf("a file that %s: %v", c.what, err)
			case c.settled:
			case !errors.As(err, &f) || !errors.Is(err, origin.ErrUnavailable) || !f.Temporary || f.RetryAfter <= 0 || f.RetryAfter > settle ||
				!strings.Contains(err.Error(), "rename"):
				t.Errorf("a file that %s: %v, want a failure that says when to come back", c.what, err)
			}
		}
	}
}
