package store_test

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// holdEnv makes the test binary hold the lock of a directory until its
// standard input ends.
const holdEnv = "STORE_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		if _, err := store.Open(store.Config{Dir: dir}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestOpenLaysOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "cache")
	s := open(t, dir)
	if diff := cmp.Diff([]string{".imgcache", "incomplete", "invalid", "queue"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"blocks", "fills", "format", "instance", "lock", "trash"}, names(t, dir, s.PrivateDir())); diff != "" {
		t.Error(diff)
	}
	instance := s.Instance()
	if raw, err := hex.DecodeString(instance); err != nil || len(raw) != 16 {
		t.Errorf("Instance = %q", instance)
	}
	if free, err := s.Free(); err != nil || free <= 0 {
		t.Errorf("Free = %d, %v", free, err)
	}
	s.Close()
	if again := open(t, dir).Instance(); again != instance {
		t.Errorf("Instance is %q after %q", again, instance)
	}
}

func TestNewerFormatIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	private := filepath.Join(dir, ".imgcache")
	if err := os.Mkdir(private, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(private, "format"), []byte("2\n"))
	if _, err := store.Open(store.Config{Dir: dir}); err == nil {
		t.Fatal("Open succeeded")
	}
	if got := append(names(t, dir), names(t, private)...); len(got) != 2 {
		t.Errorf("Open has made %v", got)
	}
}

// TestOpenRefusesWhatIsNotADirectory: links are not followed, and the reason says
// what there is in place of a directory. So does that of Mend, when it comes there
// later.
func TestOpenRefusesWhatIsNotADirectory(t *testing.T) {
	for kind, make := range map[string]func(t *testing.T, path string){
		"symbolic link":      func(t *testing.T, path string) { symlink(t, t.TempDir(), path) },
		"a symbolic link to": func(t *testing.T, path string) { symlink(t, "nowhere", path) },
		"a file":             func(t *testing.T, path string) { write(t, path, nil) },
		"a FIFO": func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o640); err != nil {
				t.Fatal(err)
			}
		},
	} {
		said := strings.TrimSuffix(kind, " to")
		for _, name := range []string{".imgcache", "queue", "incomplete", "invalid", ".imgcache/blocks", ".imgcache/trash", ".imgcache/fills"} {
			dir := t.TempDir()
			if strings.Contains(name, "/") {
				mkdir(t, filepath.Join(dir, ".imgcache"))
			}
			make(t, filepath.Join(dir, name))
			_, err := store.Open(store.Config{Dir: dir})
			if err == nil || !strings.Contains(err.Error(), name+" is ") || !strings.Contains(err.Error(), said) || !strings.Contains(err.Error(), "remove") {
				t.Errorf("%s is %s: Open = %v", name, kind, err)
			}
			remove(t, dir, name)
			s := open(t, dir)
			put(t, s, "a", oldBytes, store.Meta{})
			remove(t, dir, name)
			make(t, filepath.Join(dir, name))
			if _, err := s.Mend(); err == nil || !strings.Contains(err.Error(), name+" is ") || !strings.Contains(err.Error(), said) {
				t.Errorf("%s becomes %s: Mend = %v", name, kind, err)
			}
			if !strings.HasPrefix(name, ".imgcache") { // else nobody can say whether there is a block table
				expect(t, s, "a", oldBytes)
			}
			remove(t, dir, name)
			if m, err := s.Mend(); err != nil || !m.Any() {
				t.Errorf("%s is gone: Mend = %+v, %v", name, m, err)
			}
			put(t, s, "b", oldBytes, store.Meta{})
		}
	}
}

// TestOpenThroughALink: the cache directory itself may be one, unless it leads
// nowhere, which is said.
func TestOpenThroughALink(t *testing.T) {
	parent := t.TempDir()
	link := filepath.Join(parent, "link")
	for _, target := range []string{parent + "/real", "real", "other"} {
		remove(t, link)
		symlink(t, target, link)
		if target == "other" {
			if _, err := store.Open(store.Config{Dir: link}); err == nil || !strings.Contains(err.Error(), "symbolic link to other") {
				t.Errorf("Open = %v", err)
			}
			mkdir(t, filepath.Join(parent, target))
		} else if target != "real" {
			mkdir(t, target)
		}
		s := open(t, link)
		put(t, s, "a", oldBytes, store.Meta{})
		s.Close()
	}
}

// TestLockIsNoFile: what bears the name of the lock is set aside, since the lock
// that counts is on the directory. So are its neighbours.
func TestLockIsNoFile(t *testing.T) {
	for kind, make := range map[string]func(t *testing.T, path string){
		"a symbolic link": func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "target")
			write(t, target, []byte("1\n"))
			symlink(t, target, path)
		},
		"a symbolic link to nowhere": func(t *testing.T, path string) { symlink(t, "nowhere", path) },
		"a symbolic link to itself":  func(t *testing.T, path string) { symlink(t, filepath.Base(path), path) },
		"a directory":                mkdir,
		"a FIFO": func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o640); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, later := range []bool{false, true} { // while the directory is used
			dir := t.TempDir()
			s := open(t, dir)
			instance := s.Instance()
			put(t, s, "a", oldBytes, store.Meta{})
			if !later {
				s.Close()
			}
			lock := filepath.Join(dir, ".imgcache", "lock")
			remove(t, lock)
			make(t, lock)
			if later {
				if m, err := s.Mend(); err != nil || len(m.Made) != 1 {
					t.Errorf("the lock becomes %s: Mend = %+v, %v", kind, m, err)
				}
			} else {
				s = open(t, dir)
			}
			expect(t, s, "a", oldBytes)
			if fi, err := os.Lstat(lock); err != nil || !fi.Mode().IsRegular() || s.Instance() != instance {
				t.Errorf("the lock was %s: now it is %v, %v", kind, fi, err)
			}
			if _, err := store.Open(store.Config{Dir: dir}); !lockedByUs(err) {
				t.Errorf("the lock was %s: another Open = %v, want a LockedError", kind, err)
			}
			s.Close()
		}
	}
}

// TestLockHoldsWithoutFile: nobody gets a directory that is in use by removing the
// lock file, or all there is.
func TestLockHoldsWithoutFile(t *testing.T) {
	for _, gone := range []string{".imgcache/lock", ".imgcache", "."} {
		dir := t.TempDir()
		s := open(t, dir)
		if gone == "." {
			for _, name := range names(t, dir) {
				remove(t, dir, name)
			}
		}
		if gone != "." {
			remove(t, dir, gone)
		}
		var locked *store.LockedError
		if _, err := store.Open(store.Config{Dir: dir}); !errors.As(err, &locked) {
			t.Errorf("%s was removed: another Open = %v, want a LockedError", gone, err)
		}
		if _, err := s.Mend(); err != nil {
			t.Error(err)
		}
		if _, err := store.Open(store.Config{Dir: dir}); !lockedByUs(err) {
			t.Errorf("%s was removed: another Open after Mend = %v, want our process id", gone, err)
		}
	}
}

// TestOlderProgram locks the file alone, as older versions do: each of us keeps
// the other out, and of two that hold the directory, because somebody removed the
// file between, the newer one yields.
func TestOlderProgram(t *testing.T) {
	dir := t.TempDir()
	older := func() (*os.File, error) {
		f, err := os.OpenFile(filepath.Join(dir, ".imgcache", "lock"), os.O_RDWR|os.O_CREATE, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	s := open(t, dir)
	if _, err := older(); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("an older program gets the lock: %v", err)
	}
	put(t, s, "a", oldBytes, store.Meta{})
	remove(t, dir, ".imgcache", "lock")
	f, err := older()
	if err != nil {
		t.Fatal(err)
	}
	var locked *store.LockedError
	for range 2 {
		if m, err := s.Mend(); !errors.As(err, &locked) || m.Any() || s.IsOpen() {
			t.Errorf("Mend = %+v, %v, want a LockedError", m, err)
		}
		if _, err := s.Stage("b"); !errors.Is(err, store.ErrNotOpen) {
			t.Errorf("Stage = %v, want ErrNotOpen", err)
		}
	}
	if _, err := store.Open(store.Config{Dir: dir}); !errors.As(err, &locked) {
		t.Errorf("Open = %v, want a LockedError", err)
	}
	f.Close()
	if m, err := s.Mend(); err != nil || !m.Reopened {
		t.Errorf("Mend = %+v, %v", m, err)
	}
	expect(t, s, "a", oldBytes)
}

// TestNoLocksOnDirectories: where the file system has none the lock file must do.
func TestNoLocksOnDirectories(t *testing.T) {
	dir := storetest.MemoryDir(t)
	fsys := storetest.New(t, dir)
	fsys.Inject(storetest.On("lock.dir", 0, errors.ErrUnsupported))
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", oldBytes, store.Meta{})
	if _, err := store.Open(store.Config{Dir: dir}); !lockedByUs(err) {
		t.Errorf("another Open = %v, want a LockedError", err)
	}
}

// A second process is told who has the directory, and gets it when the first
// one is killed.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holdEnv+"="+dir)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	_, err = store.Open(store.Config{Dir: dir})
	var locked *store.LockedError
	if !errors.As(err, &locked) || locked.PID != holder.Process.Pid {
		t.Errorf("Open = %v, want a LockedError with process %d", err, holder.Process.Pid)
	}
	holder.Process.Kill()
	holder.Wait()
	open(t, dir)
}

// Open can be interrupted anywhere: the next one finishes its work.
func TestOpenSurvivesFaults(t *testing.T) {
	for seq := 1; ; seq++ {
		dir := storetest.MemoryDir(t)
		fsys := storetest.New(t, dir)
		fsys.Inject(storetest.At(seq, syscall.EIO))
		s, err := openFS(fsys)
		done := len(fsys.Calls()) < seq
		if err == nil {
			s.Close()
		} else if !errors.Is(err, syscall.EIO) {
			t.Errorf("call %d fails: Open = %v", seq, err)
		}
		fsys.Kill()
		if err := fsys.LosePower(0); err != nil {
			t.Fatal(err)
		}
		s = openQuick(t, dir)
		put(t, s, "a", newBytes, store.Meta{})
		if len(s.Instance()) != 32 {
			t.Errorf("call %d fails: Instance = %q", seq, s.Instance())
		}
		if done {
			return
		}
	}
}

// A store whose directory cannot be opened fails with the reason, which is not
// taken for that of a file, until it can.
func TestOpenAgain(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "parent")
	write(t, parent, []byte("no directory"))
	dir := filepath.Join(parent, "cache")
	s := store.New(store.Config{Dir: dir})
	t.Cleanup(func() { s.Close() })
	if err := s.Open(); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Open = %v", err)
	}
	_, err := s.OpenImage("a")
	if s.IsOpen() || s.Instance() != "" || !errors.Is(err, store.ErrNotOpen) || errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("OpenImage = %v", err)
	}
	if err := s.Scan(func(store.Info) error { return nil }); !errors.Is(err, store.ErrNotOpen) {
		t.Errorf("Scan = %v", err)
	}
	if err := os.Remove(parent); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Open(); err != nil || !s.IsOpen() {
			t.Errorf("Open = %v", err)
		}
	}
	put(t, s, "a", newBytes, store.Meta{})
	expect(t, s, "a", newBytes)
}
