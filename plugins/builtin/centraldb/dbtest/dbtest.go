// Package dbtest runs private database servers for tests: PostgreSQL and
// MariaDB as Debian packages them, each in a short directory of its own, on a
// unix socket alone. A server that is not installed fails the test and names
// its package.
package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // to make databases
	_ "github.com/jackc/pgx/v5/stdlib" // the same
)

// patience bounds the start and the end of a server.
const patience = time.Minute

// Server is a running database server.
type Server struct {
	kind kind
	dir  string   // of its files and its socket
	port int      // of TCP; 0: it does not listen there
	more []string // arguments, besides those of its kind
	mu   sync.Mutex
	cmd  *exec.Cmd     // nil: it does not run
	done chan struct{} // closed when it has ended
}

// kind is what differs between the products.
type kind struct {
	name    string
	account string                    // the user of the package, for tests that run as root
	prepare func(*Server) []*exec.Cmd // makes the files
	serve   func(*Server) *exec.Cmd
	quit    syscall.Signal                                // ends the server quickly, and its clients
	driver  string                                        // of database/sql
	secure  func(port int, ca, cert, key string) []string // arguments that let it speak TLS on loopback
	socket  func(*Server) string
	source  func(s *Server, database string) string
	dsn     func(s *Server, database string) string
}

// start makes the files of a server and starts it. It is stopped, and its
// files are removed, when the test ends.
func start(t testing.TB, k kind) *Server {
	t.Helper()
	// The path of a socket is short, and a server under another user may not
	// look into t.TempDir().
	dir, err := os.MkdirTemp("/tmp", "ic")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{kind: k, dir: dir}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir) // below /tmp
	})
	if err := s.own(dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range k.prepare(s) {
		if err := s.as(cmd); err != nil {
			t.Fatal(err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s (scripts/setup test installs it)", k.name, err, out)
		}
	}
	s.Start(t)
	return s
}

// Start starts the server on its files, and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := s.kind.serve(s)
	cmd.Args = append(cmd.Args, s.more...)
	if err := s.as(cmd); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Setpgid = true // it has nothing to do with Ctrl-C
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The server ends with this process, however that ends. The kernel
		// takes the end of the thread that started it for that.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended tells its log
		}
		close(done)
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v (scripts/setup test installs it)", s.kind.name, err)
	}
	s.cmd, s.done = cmd, done
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := s.exec(context.WithoutCancel(t.Context()), "", "SELECT 1") // also in a Cleanup
		if err == nil {
			return
		}
		select {
		case <-done:
			err = errors.New("it has ended")
		default:
			if time.Now().Before(deadline) {
				continue
			}
		}
		b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		t.Fatalf("%s does not answer: %v\n%s", s.kind.name, err, b)
	}
}

// Kill ends the server at once, as a loss of its machine would. One that does
// not run is left alone.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop ends the server and the connections of its clients in good order.
func (s *Server) Stop() { s.end(s.kind.quit) }

func (s *Server) end(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	pids := []int{s.cmd.Process.Pid}
	if sig == syscall.SIGKILL {
		pids = family(pids[0])
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // it may have ended
	}
	<-s.done
	for _, pid := range pids {
		for running(pid) { // PostgreSQL does not start beside children of its last run
			time.Sleep(time.Millisecond)
		}
	}
	s.cmd = nil
}

// running reports whether a process has not ended. One that nobody has asked
// for yet has.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// Pause keeps the server from doing anything, with all its connections open,
// until Resume.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends what Pause began.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// signal reaches the server and its children.
func (s *Server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	for _, pid := range family(s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, sig) // as above
	}
}

// family returns a process and its children. They may have groups and sessions
// of their own.
func family(pid int) []int {
	pids := []int{pid}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return pids
	}
	for _, field := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, family(child)...)
		}
	}
	return pids
}

// Database makes an empty database and returns the option dsn that names it.
func (s *Server) Database(t testing.TB) (dsn string) {
	t.Helper()
	name := "d" + strings.ToLower(rand.Text()[:12])
	if err := s.exec(t.Context(), "", "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.kind.dsn(s, name)
}

// Open opens the database that a dsn of this server names, for a test to look
// into it.
func (s *Server) Open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(s.kind.driver, s.kind.source(s, databaseOf(dsn)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Name is that of the product.
func (s *Server) Name() string { return s.kind.name }

func (s *Server) exec(ctx context.Context, database, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	db, err := sql.Open(s.kind.driver, s.kind.source(s, database))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// as lets a command run as the user of the package, where this process is
// root: PostgreSQL refuses to.
func (s *Server) as(cmd *exec.Cmd) error {
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	uid, gid, err := s.ids()
	if err == nil && uid >= 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return err
}

// give makes a file the server's.
func (s *Server) give(path string) error {
	uid, gid, err := s.ids()
	if err == nil && uid >= 0 {
		err = os.Chown(path, uid, gid)
	}
	return err
}

func (s *Server) own(dir string) error {
	err := s.give(dir)
	if err == nil {
		err = os.Chmod(dir, 0o755) // clients of other users find the socket
	}
	return err
}

// ids returns the user and group of the server; -1: those of this process.
func (s *Server) ids() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return -1, -1, nil
	}
	u, err := user.Lookup(s.kind.account)
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return -1, -1, err
		}
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}
