package plugin

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// house is a directory with a plugin, and with the host's program elsewhere.
type house struct{ dir, plugin, host string }

func newHouse(t *testing.T) house {
	h := house{dir: t.TempDir()}
	h.plugin, h.host = filepath.Join(h.dir, "lib", "plugins", "x.wasm"), filepath.Join(h.dir, "bin", "imgcache-host")
	for _, path := range []string{h.plugin, h.host} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte("x"))
	}
	return h
}

func (h house) open(path string) error {
	s := &Supervisor{cfg: Config{Executable: h.host}}
	f, err := s.openTrusted(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.ReadAll(f)
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhatOthersMayChange is refused, with the command that mends it.
func TestWhatOthersMayChange(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(h house) (path string)
		want   string // after the directory of the house; empty: it is opened
	}{
		"nothing":              {func(h house) string { return h.plugin }, ""},
		"the file, group":      {func(h house) string { must(t, os.Chmod(h.plugin, 0o664)); return h.plugin }, "chmod go-w %/lib/plugins/x.wasm"},
		"the file, all":        {func(h house) string { must(t, os.Chmod(h.plugin, 0o646)); return h.plugin }, "chmod go-w %/lib/plugins/x.wasm"},
		"its directory":        {func(h house) string { must(t, os.Chmod(h.dir+"/lib/plugins", 0o775)); return h.plugin }, "chmod go-w %/lib/plugins"},
		"one above":            {func(h house) string { must(t, os.Chmod(h.dir+"/lib", 0o777)); return h.plugin }, "chmod go-w %/lib"},
		"a sticky one":         {func(h house) string { must(t, os.Chmod(h.dir+"/lib", 0o777|os.ModeSticky)); return h.plugin }, ""},
		"one above the host's": {func(h house) string { must(t, os.Chmod(h.dir, 0o777)); return h.plugin }, ""},
		"behind a link": {func(h house) string {
			must(t, os.Chmod(h.dir+"/lib", 0o777))
			must(t, os.Symlink("../lib/plugins/../plugins/x.wasm", h.dir+"/bin/y.wasm"))
			return h.dir + "/bin/y.wasm"
		}, "chmod go-w %/lib"},
		"a link to a link": {func(h house) string {
			must(t, os.Symlink(h.dir+"/lib", h.dir+"/bin/lib"))
			must(t, os.Symlink("lib/plugins", h.dir+"/bin/plugins"))
			return h.dir + "/bin/plugins/x.wasm"
		}, ""},
		"a loop": {func(h house) string {
			must(t, os.Symlink("y.wasm", h.dir+"/bin/y.wasm"))
			return h.dir + "/bin/y.wasm"
		}, "%/bin/y.wasm: too many levels"},
		"no file":   {func(h house) string { return h.dir + "/lib" }, "%/lib is not a regular file"},
		"not there": {func(h house) string { return h.dir + "/none" }, "%/none: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			err := h.open(tt.change(h))
			want := strings.ReplaceAll(tt.want, "%", h.dir)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error()+"\n", want)) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// TestFileOfAnother: what belongs to another user is refused, unless the
// host's program belongs to him too.
func TestFileOfAnother(t *testing.T) {
	h := newHouse(t)
	info, err := os.Stat(h.plugin)
	must(t, err)
	others := trust{owners: []uint32{owner(info) + 1}}
	if err := others.check(h.plugin, info); err == nil || !strings.Contains(err.Error(), "who could change what runs: chown -h") {
		t.Errorf("a file of another user: %v", err)
	}
	if _, err := others.resolve(h.plugin); err == nil || !strings.Contains(err.Error(), "the directory /") {
		t.Errorf("a directory of another user: %v", err)
	}
	if mine := newTrust(h.host); !slices.Contains(mine.owners, owner(info)) {
		t.Errorf("the owners %d are trusted, want that of the host's program, %d", mine.owners, owner(info))
	}
}
