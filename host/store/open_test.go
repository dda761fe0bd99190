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

func TestOpenRefusesWhatIsNotADirectory(t *testing.T) {
	for _, name := range []string{".imgcache", "queue", "incomplete"} {
		dir := t.TempDir()
		if err := os.Symlink(t.TempDir(), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(store.Config{Dir: dir}); err == nil {
			t.Errorf("Open followed the link %s", name)
		}
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
