package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
)

// The variables that tell a prober where things are.
const (
	probeTCP      = "IMGCACHE_TEST_TCP"
	probeAbstract = "IMGCACHE_TEST_ABSTRACT"
	probeDir      = "IMGCACHE_TEST_DIR"
)

// probes are what a plugin must not be able to do. Each returns nil when it
// could.
var probes = map[string]func() error{
	"read /etc/passwd":               func() error { _, err := os.ReadFile("/etc/passwd"); return err },
	"read the host's environment":    func() error { _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid())); return err },
	"list a directory of others":     func() error { _, err := os.ReadDir(os.Getenv(probeDir)); return err },
	"write a file":                   func() error { return os.WriteFile(filepath.Join(os.Getenv(probeDir), "w"), nil, 0o600) },
	"run a program of its own":       func() error { return exec.Command(filepath.Join(os.Getenv(probeDir), "program")).Run() },
	"connect by TCP":                 func() error { return dial("tcp", os.Getenv(probeTCP)) },
	"connect to an abstract socket":  func() error { return dial("unix", os.Getenv(probeAbstract)) },
	"listen by TCP":                  listenTCP,
	"send the host a signal":         func() error { return syscall.Kill(os.Getppid(), 0) },
	"trace the host":                 func() error { return unix.PtraceSeize(os.Getppid()) },
	"raise the limit of open files":  func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 2048, Max: 2048}) },
	"change the owner of a file":     func() error { return os.Chown(filepath.Join(os.Getenv(probeDir), "program"), 1, 1) },
	"become somebody else":           func() error { return unix.Setresuid(1, 1, 1) },
	"make a network interface of it": func() error { return unix.Unshare(unix.CLONE_NEWNET) },
}

// needRoot are those that only root could do without walls.
var needRoot = []string{"change the owner of a file", "become somebody else", "make a network interface of it"}

func dial(network, address string) error {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// listenTCP listens where somebody outside could connect: a network of its own
// has not even the loopback interface up.
func listenTCP() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	return dial("tcp", l.Addr().String())
}

// prober is a policy that refuses its configuration with all that it could do.
type prober struct{}

func (prober) Configure(context.Context, sdk.Settings) error {
	var could []string
	last := []string{"make a network interface of it", "become somebody else"} // they change what the others find
	names := slices.DeleteFunc(slices.Collect(maps.Keys(probes)), func(name string) bool { return slices.Contains(last, name) })
	for _, name := range append(names, last...) {
		if probes[name]() == nil {
			could = append(could, name)
		}
	}
	if os.Getenv("IMGCACHE_TEST_SECRET") != "" {
		could = append(could, "see the host's variables")
	}
	if n, err := os.Stdin.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		could = append(could, "read the host's input")
	}
	slices.Sort(could)
	return fmt.Errorf("%w: could [%s]", sdk.ErrInvalid, strings.Join(could, ", "))
}

func (prober) Score(context.Context, time.Time, []sdk.Record, []float64) error { return nil }

// TestWalls: what a plugin can never do, as a plugin that tries it. Without
// walls it can do all of it, so the attempts are real.
func TestWalls(t *testing.T) {
	t.Setenv("IMGCACHE_TEST_SECRET", "of the host")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	abstract, err := net.Listen("unix", fmt.Sprintf("@imgcache-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, confinement := range []Confinement{BestEffort, Required, None} {
		t.Run(string(confinement), func(t *testing.T) {
			s := newStage(t)
			s.cfg.Confinement = confinement
			sp := spec("prober")
			sp.Kind, sp.Read = sdk.KindPolicy, nil
			sp.Env[probeTCP], sp.Env[probeAbstract], sp.Env[probeDir] = tcp.Addr().String(), abstract.Addr().String(), dir
			p, err := s.Start(t.Context(), sp)
			if err != nil {
				t.Fatal(err)
			}
			walls := p.Status().Walls
			err = p.Configure(t.Context(), sdk.Settings{})
			_, could, _ := strings.Cut(fmt.Sprint(err), "could [")
			could, _, found := strings.Cut(could, "]")
			if !found {
				t.Fatalf("the prober says %v", err)
			}
			if confinement != None {
				if could != "" || len(walls) == 0 || slices.ContainsFunc(walls, func(w Wall) bool { return !w.Holds }) {
					t.Errorf("the plugin could %s; the walls are %v", could, walls)
				}
				return
			}
			if len(walls) != 0 {
				t.Errorf("there are walls: %v", walls)
			}
			for name := range probes {
				if !strings.Contains(could, name) && (os.Geteuid() == 0 || !slices.Contains(needRoot, name)) {
					t.Errorf("without walls the plugin could not %s, only %s: the attempt is none", name, could)
				}
			}
		})
	}
}

// TestGrants: a plugin may use the files that its options name as it declares,
// its own directories, and no others, such as those of its own defaults.
func TestGrants(t *testing.T) {
	m := sdk.Manifest{Options: []sdk.Option{
		{Name: "path", Access: sdk.AccessWrite}, {Name: "ca", Access: sdk.AccessRead}, {Name: "dsn", Access: sdk.AccessRead}, {Name: "note"},
	}}
	g := Spec{}.grants(m, sdk.Settings{CacheDir: "/cache", Options: sdk.Config{
		"path": "/db/records.db", "ca": "/etc/ca.pem", "note": "/etc/shadow",
		"dsn": "postgres://u:p@h/db?sslrootcert=/etc/root.pem&host=/run/db",
	}})
	if want := []string{"/cache", "/db"}; !slices.Equal(g.write, want) {
		t.Errorf("it may write %v, want %v", g.write, want)
	}
	if want := []string{"/etc/ca.pem", "/etc/root.pem", "/run/db"}; !slices.Equal(g.read, want) {
		t.Errorf("it may read %v, want %v", g.read, want)
	}
	m.Options = []sdk.Option{{Name: "own", Access: sdk.AccessWrite, Default: "/etc/shadow"}, {Name: "other", Access: sdk.AccessRead, Default: "/etc/passwd"}}
	if g := (Spec{}).grants(m, sdk.Settings{Options: sdk.Config{"own": "/etc/shadow", "other": "/srv/other"}}); len(g.write) != 0 || !slices.Equal(g.read, []string{"/srv/other"}) {
		t.Errorf("a plugin grants itself %v", g)
	}
	if (grants{}).cover(g) || !g.cover(g) || !g.cover(grants{}) {
		t.Error("what is granted is not told from what is not")
	}
}
