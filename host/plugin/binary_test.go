package plugin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// sumOf returns the sum of bytes as a configuration pins it.
func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bait is a plugin in a good and in an evil form. The evil one leaves a mark.
type bait struct {
	spec       Spec
	good, evil []byte
	isGood     func(*Plugin) bool // what runs
	mark       string
}

// program is a shell that looks at the end of its own file, behind the ELF.
func programBait(t *testing.T) *bait {
	b := newBait(t, "imgcache-driver-bait")
	shell := read(t, "/bin/sh")
	b.good, b.evil = append(bytes.Clone(shell), "good"...), append(bytes.Clone(shell), "evil"...)
	b.spec.Args = []string{"-c", `[ "$(tail -c 4 /proc/$$/exe)" = good ] && exec ` + os.Args[0] + `; echo ran > ` + b.mark}
	return b
}

func scriptBait(t *testing.T) *bait {
	b := newBait(t, "imgcache-driver-bait")
	b.good, b.evil = []byte("#!/bin/sh\nexec "+os.Args[0]+"\n"), []byte("#!/bin/sh\necho ran > "+b.mark+"\n")
	return b
}

func moduleBait(t *testing.T) *bait {
	b := newBait(t, "bait.wasm")
	b.good, b.evil = read(t, "../../testdata/wasm/flood.wasm"), read(t, "../../testdata/wasm/nan.wasm")
	b.spec.Kind, b.spec.Env = "", map[string]string{actAs: "runner"}
	b.isGood = func(p *Plugin) bool { return p.Manifest().Name == "flood" }
	return b
}

func newBait(t *testing.T, name string) *bait {
	dir := t.TempDir()
	b := &bait{spec: spec("well"), mark: filepath.Join(dir, "evil-ran"), isGood: func(*Plugin) bool { return true }}
	b.spec.Path = filepath.Join(dir, name)
	return b
}

// swap exchanges the file, in turns by another one and by writing into it,
// until stop is closed.
func (b *bait) swap(t *testing.T, stop chan struct{}) {
	other := b.spec.Path + ".new"
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		content, path := b.good, b.spec.Path
		if i%2 == 0 {
			content = b.evil
		}
		if i%4 < 2 {
			path = other
		}
		err := os.WriteFile(path, content, 0o755)
		if err == nil && path == other {
			err = os.Rename(other, b.spec.Path)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// TestNeverRunsOtherBytes exchanges the file of a plugin all the time while it
// is started: what runs is what the configuration pins, or nothing.
func TestNeverRunsOtherBytes(t *testing.T) {
	for name, tt := range map[string]struct {
		bait  func(*testing.T) *bait
		tries int
	}{
		"program": {programBait, 700}, "script": {scriptBait, 200}, "module": {moduleBait, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv("IMGCACHE_TEST_ALL") == "" {
				tt.tries /= 10
			}
			s, b := newStage(t), tt.bait(t)
			b.spec.SHA256 = sumOf(b.good)
			write(t, b.spec.Path, b.good)
			stop := make(chan struct{})
			var swapper sync.WaitGroup
			swapper.Go(func() { b.swap(t, stop) })
			defer swapper.Wait()
			defer close(stop)
			ran, refused := 0, 0
			for tries := 0; tries < tt.tries || ran == 0 || refused == 0; tries++ {
				p, err := s.Start(t.Context(), b.spec)
				switch {
				case err != nil && (strings.Contains(err.Error(), "the configuration pins") || strings.Contains(err.Error(), "to be run")):
					refused++ // the latter when the file is half written
				case err != nil:
					t.Fatalf("try %d: %v", tries, err)
				default:
					if !b.isGood(p) {
						t.Fatalf("try %d: the evil plugin runs", tries)
					}
					ran++
					if err := s.Stop(p); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := os.Stat(b.mark); err == nil {
					t.Fatalf("try %d: the evil plugin ran", tries)
				}
			}
			t.Logf("%d ran, %d were refused", ran, refused)
		})
	}
}

// TestStagedBytesStay: once it is hashed, nothing that happens to the file
// reaches what runs.
func TestStagedBytesStay(t *testing.T) {
	s := newStage(t)
	for name, b := range map[string]*bait{"program": programBait(t), "script": scriptBait(t)} {
		write(t, b.spec.Path, b.good)
		staged, err := s.stage(b.spec)
		if err != nil {
			t.Fatal(err)
		}
		write(t, b.spec.Path, b.evil)
		program, args := staged.argv([]string{"-c", `tail -c 4 /proc/$$/exe`})
		if name == "script" {
			program, args = "/bin/cat", []string{"cat", staged.path}
		}
		cmd := exec.Command(program)
		cmd.Args = args
		if staged.file != nil {
			cmd.ExtraFiles = []*os.File{nil, staged.file}
		}
		if got, err := cmd.Output(); err != nil || !bytes.HasSuffix(b.good, got) || len(got) == 0 {
			t.Errorf("%s: what was staged is %q, %v", name, got, err)
		}
		if staged.sum != sumOf(b.good) {
			t.Errorf("%s: the sum is %s", name, staged.sum)
		}
		staged.remove()
	}
}

// TestSealed: nobody can write to the copy of a program, not even its owner.
func TestSealed(t *testing.T) {
	s, b := newStage(t), programBait(t)
	write(t, b.spec.Path, b.good)
	staged, err := s.stage(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	defer staged.remove()
	if _, err := staged.file.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written to")
	}
	if err := staged.file.Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	seals, err := unix.FcntlInt(staged.file.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL; err != nil || seals&want != want {
		t.Errorf("the seals are %#x, %v; want %#x", seals, err, want)
	}
}

// TestScriptIsPutAside: the copy of a script is the host's own, keeps its name,
// and leaves with the process.
func TestScriptIsPutAside(t *testing.T) {
	s, b := newStage(t), scriptBait(t)
	write(t, b.spec.Path, b.good)
	p, err := s.Start(t.Context(), b.spec)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(s.sockets, "*", filepath.Base(b.spec.Path)))
	if err != nil || len(found) != 1 || !bytes.Equal(read(t, found[0]), b.good) {
		t.Fatalf("the copies are %q, %v", found, err)
	}
	for path, want := range map[string]fs.FileMode{found[0]: 0o500, filepath.Dir(found[0]): fs.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if err := s.Stop(p); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.sockets); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestProcessKnowsItsName: the copy has none, what people see has.
func TestProcessKnowsItsName(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "well")
	line := read(t, fmt.Sprintf("/proc/%d/cmdline", p.Status().PID))
	if name, _, _ := strings.Cut(string(line), "\x00"); name != os.Args[0] {
		t.Errorf("the process is called %q, want %q", name, os.Args[0])
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Status().PID)); err != nil || !strings.HasPrefix(exe, "/memfd:actor") {
		t.Errorf("it runs from %s, %v", exe, err)
	}
}

// TestInterpreter reads first lines of scripts as the kernel does.
func TestInterpreter(t *testing.T) {
	for line, want := range map[string][]string{
		"#!/bin/sh\n":                         {"/bin/sh"},
		"#!/bin/sh":                           {"/bin/sh"},
		"#! \t/usr/bin/env\tpython3 -u \t\nx": {"/usr/bin/env", "python3 -u"},
		"#!/bin/sh -e -u\n":                   {"/bin/sh", "-e -u"},
		"#!sh\n":                              nil,
		"#!\n":                                nil,
		"#!/" + strings.Repeat("x", 253):      nil,
	} {
		got, err := interpreter([]byte(line))
		if fmt.Sprint(got) != fmt.Sprint(want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
}

// TestWhatCannotBeStaged names the file and what to do.
func TestWhatCannotBeStaged(t *testing.T) {
	s, dir := newStage(t), t.TempDir()
	path := filepath.Join(dir, "imgcache-driver-x")
	for name, tt := range map[string]struct {
		content string
		mode    fs.FileMode
		want    string
	}{
		"text":           {"hello", 0o755, "neither a program (ELF) nor a script"},
		"empty":          {"", 0o755, "neither a program (ELF) nor a script"},
		"not executable": {"#!/bin/sh\n", 0o644, "is not executable: chmod +x " + path},
		"other machine":  {"\x7fELF", 0o755, path + ": exec format error"},
		"no interpreter": {"#!/nonexistent\n", 0o755, "/nonexistent: no such file"},
		"open":           {"#!/bin/sh\n", 0o775, "chmod go-w " + path},
	} {
		write(t, path, []byte(tt.content))
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		spec := spec("well")
		spec.Path = path
		if p, err := s.Start(t.Context(), spec); err == nil {
			_ = s.Stop(p)
			t.Errorf("%s: it runs", name)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v\nwant %q", name, err, tt.want)
		}
	}
	if left, err := os.ReadDir(s.sockets); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
