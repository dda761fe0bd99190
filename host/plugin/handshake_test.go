package plugin

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// The variables that tell a speaker which line to say, and where those listen
// to whom the host must not be led.
const (
	speakCase     = "IMGCACHE_TEST_LINE"
	speakTCP      = "IMGCACHE_TEST_TCP"
	speakUnix     = "IMGCACHE_TEST_UNIX"
	speakAbstract = "IMGCACHE_TEST_ABSTRACT"
	speakVictim   = "IMGCACHE_TEST_VICTIM"
)

// where is what a speaker knows.
type where struct {
	dir                 string // that it was given
	tcp, unix, abstract string // listeners of somebody else
	victim              string // a socket of somebody else, which may be moved
}

// in returns the line that names this path.
func in(path string) string { return "1|1|unix|" + path + "|grpc|\n" }

// own listens in the directory of the speaker, and closes what connects.
func (w where) own(network string) (path string) {
	path = filepath.Join(w.dir, "own")
	if network == "unixgram" {
		if _, err := net.ListenUnixgram(network, &net.UnixAddr{Name: path, Net: network}); err != nil {
			panic(err)
		}
		return path
	}
	l, err := net.Listen(network, path)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return path
}

// made returns the path of what make has made in the directory of the speaker.
// What the walls forbid is not there.
func (w where) made(make func(path string) error) (path string) {
	path = filepath.Join(w.dir, "made")
	_ = make(path)
	return path
}

// badLines are first lines of processes, each with a word of the error. Those
// that hold only without walls have another word behind them.
var badLines = map[string]struct {
	line   func(where) string
	want   string
	walled string // with walls around the speaker; empty: the same
}{
	// Other networks.
	"tcp":             {line: func(w where) string { return "1|1|tcp|" + w.tcp + "|grpc|\n" }, want: `network is "tcp"`},
	"tcp4":            {line: func(w where) string { return "1|1|tcp4|" + w.tcp + "|grpc|\n" }, want: `network is "tcp4"`},
	"a name by tcp":   {line: func(where) string { return "1|1|tcp|localhost:80|grpc|\n" }, want: `network is "tcp"`},
	"udp":             {line: func(w where) string { return "1|1|udp|" + w.tcp + "|grpc|\n" }, want: `network is "udp"`},
	"unixgram":        {line: func(w where) string { return "1|1|unixgram|" + w.own("unixgram") + "|grpc|\n" }, want: `network is "unixgram"`},
	"unixpacket":      {line: func(w where) string { return "1|1|unixpacket|" + w.own("unixpacket") + "|grpc|\n" }, want: `network is "unixpacket"`},
	"capitals":        {line: func(w where) string { return "1|1|UNIX|" + w.own("unix") + "|grpc|\n" }, want: `network is "UNIX"`},
	"no network":      {line: func(w where) string { return "1|1||" + w.own("unix") + "|grpc|\n" }, want: `network is ""`},
	"a space":         {line: func(w where) string { return "1|1|unix |" + w.own("unix") + "|grpc|\n" }, want: `network is "unix "`},
	"tcp in the path": {line: func(w where) string { return in(w.tcp) }, want: "expected a socket in"},

	// Other sockets.
	"socket of another":       {line: func(w where) string { return in(w.unix) }, want: "expected a socket in"},
	"url":                     {line: func(w where) string { return in("unix://" + w.unix) }, want: "expected a socket in"},
	"abstract":                {line: func(w where) string { return in(w.abstract) }, want: "expected a socket in"},
	"abstract by NUL":         {line: func(w where) string { return in("\x00" + w.abstract[1:]) }, want: `"\x00imgcache`},
	"dots to another":         {line: func(w where) string { return in(w.dir + "/../" + filepath.Base(filepath.Dir(w.unix)) + "/socket") }, want: "expected a socket in"},
	"directory with an end":   {line: func(w where) string { return in(w.dir + "x/socket") }, want: "expected a socket in"},
	"relative":                {line: func(w where) string { w.own("unix"); return in("own") }, want: `address is "own"`},
	"relative by a dot":       {line: func(w where) string { w.own("unix"); return in("./own") }, want: `address is "./own"`},
	"two slashes":             {line: func(w where) string { w.own("unix"); return in(w.dir + "//own") }, want: "expected a socket in"},
	"descriptor of the host":  {line: func(where) string { return in("/proc/self/fd/3") }, want: "expected a socket in"},
	"root of another process": {line: func(w where) string { return in("/proc/self/root" + w.unix) }, want: "expected a socket in"},
	"directory itself":        {line: func(w where) string { return in(w.dir) }, want: "expected a socket in"},
	"slash":                   {line: func(w where) string { return in(w.dir + "/") }, want: "expected a socket in"},
	"dot":                     {line: func(w where) string { return in(w.dir + "/.") }, want: "expected a socket in"},
	"dots":                    {line: func(w where) string { return in(w.dir + "/..") }, want: "expected a socket in"},
	"no path":                 {line: func(where) string { return in("") }, want: `address is ""`},
	"long path":               {line: func(w where) string { return in(w.dir + "/" + strings.Repeat("x", 3000)) }, want: "bytes more"},

	// In the directory, and no socket of the process.
	"link":           {line: func(w where) string { return in(w.made(func(p string) error { return os.Symlink(w.unix, p) })) }, want: "is a link"},
	"link to itself": {line: func(w where) string { return in(w.made(func(p string) error { return os.Symlink("made", p) })) }, want: "is a link"},
	"link to its own": {line: func(w where) string {
		own := w.own("unix")
		return in(w.made(func(p string) error { return os.Symlink(own, p) }))
	}, want: "is a link"},
	"link to a directory": {line: func(w where) string {
		return in(w.made(func(p string) error { return os.Symlink(filepath.Dir(w.unix), p) }) + "/socket")
	}, want: "expected a socket in"},
	"nothing":   {line: func(w where) string { return in(w.dir + "/nothing") }, want: "no such file"},
	"file":      {line: func(w where) string { return in(w.made(func(p string) error { return os.WriteFile(p, nil, 0o600) })) }, want: "expected a socket, 0140000"},
	"directory": {line: func(w where) string { return in(w.made(func(p string) error { return os.Mkdir(p, 0o700) })) }, want: "has the type 040000"},
	"fifo":      {line: func(w where) string { return in(w.made(func(p string) error { return unix.Mkfifo(p, 0o600) })) }, want: "has the type 010000"},
	"datagrams": {line: func(w where) string { return in(w.own("unixgram")) }, want: "protocol wrong type for socket"},
	"second name": {
		line: func(w where) string { return in(w.made(func(p string) error { return os.Link(w.unix, p) })) },
		want: "has 2 names", walled: "no such file",
	},
	"moved": {
		line: func(w where) string { return in(w.made(func(p string) error { return os.Rename(w.victim, p) })) },
		want: "belongs to another process", walled: "no such file",
	},

	// Other lines.
	"empty line":         {line: func(where) string { return "\n" }, want: "it has 1 fields"},
	"banner":             {line: func(w where) string { return "starting ...\n" + in(w.own("unix")) }, want: `the line is "starting ..."`},
	"two fields":         {line: func(where) string { return "1|1\n" }, want: "it has 2 fields"},
	"four fields":        {line: func(w where) string { return "1|1|unix|" + w.own("unix") + "\n" }, want: "it has 4 fields"},
	"seven fields":       {line: func(w where) string { return "1|1|unix|" + w.own("unix") + "|grpc||true\n" }, want: "it has 7 fields"},
	"bars":               {line: func(where) string { return strings.Repeat("|", 3000) + "\n" }, want: "it has 3001 fields"},
	"core version":       {line: func(w where) string { return "2|1|unix|" + w.own("unix") + "|grpc|\n" }, want: `version is "2", expected 1`},
	"core version, zero": {line: func(w where) string { return "01|1|unix|" + w.own("unix") + "|grpc|\n" }, want: `version is "01"`},
	"no core version":    {line: func(w where) string { return "|1|unix|" + w.own("unix") + "|grpc|\n" }, want: `version is ""`},
	"version":            {line: func(w where) string { return "1|7|unix|" + w.own("unix") + "|grpc|\n" }, want: "too new: it speaks version 7"},
	"negative version":   {line: func(w where) string { return "1|-1|unix|" + w.own("unix") + "|grpc|\n" }, want: `contract is "-1", expected 1`},
	"endless version":    {line: func(w where) string { return "1|99999999999999999999|unix|" + w.own("unix") + "|grpc|\n" }, want: "contract is"},
	"net/rpc":            {line: func(w where) string { return "1|1|unix|" + w.own("unix") + "|netrpc|\n" }, want: `protocol is "netrpc"`},
	"no protocol":        {line: func(w where) string { return "1|1|unix|" + w.own("unix") + "||\n" }, want: `protocol is ""`},
	"certificate": {line: func(w where) string {
		return "1|1|unix|" + w.own("unix") + "|grpc|" + base64.RawStdEncoding.EncodeToString(certificate()) + "\n"
	}, want: "certificate"},
	"no certificate":      {line: func(w where) string { return "1|1|unix|" + w.own("unix") + "|grpc|%%%\n" }, want: "certificate"},
	"long line":           {line: func(w where) string { return strings.Repeat("x", 1<<20) + "\n" + in(w.own("unix")) }, want: "more than 4096 bytes"},
	"long line, no end":   {line: func(where) string { return strings.Repeat("x", 1<<20) }, want: "more than 4096 bytes"},
	"terminal sequences":  {line: func(where) string { return in("\x1b]0;owned\a\x1b[2J") }, want: `"\x1b]0;owned\a\x1b[2J"`},
	"carriage return":     {line: func(where) string { return "1|1|unix|/x\rforged|grpc|\n" }, want: `"/x\rforged"`},
	"NUL in the name":     {line: func(w where) string { return in(w.own("unix") + "\x00x") }, want: `own\x00x`},
	"no UTF-8":            {line: func(where) string { return in("\xff\xfe\xc0") }, want: `"\xff\xfe\xc0"`},
	"directions of words": {line: func(where) string { return in("/\u202etxt.exe") }, want: `"/\u202etxt.exe"`},
	"json":                {line: func(where) string { return `{"network":"tcp"}` + "\n" }, want: "it has 1 fields"},
	"http":                {line: func(where) string { return "HTTP/1.1 200 OK\r\n\r\n" }, want: `"HTTP/1.1 200 OK"`},
}

// speak says a bad line, and waits for its end.
func speak() {
	w := where{
		dir: os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), tcp: os.Getenv(speakTCP), unix: os.Getenv(speakUnix),
		abstract: os.Getenv(speakAbstract), victim: os.Getenv(speakVictim),
	}
	fmt.Print(badLines[os.Getenv(speakCase)].line(w))
	_, _ = io.Copy(io.Discard, os.NewFile(serve.LifelineFD, "lifeline"))
}

// counter is a listener that nobody should find.
type counter struct {
	net.Listener
	connections, bytes atomic.Int64
}

func newCounter(t *testing.T, network, address string) *counter {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := l.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	c, done := &counter{Listener: l}, make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			n, _ := io.Copy(io.Discard, conn)
			c.bytes.Add(n)
			c.connections.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return c
}

// wantNone connects once, and looks that nobody else has: connections are
// accepted in their order.
func (c *counter) wantNone(t *testing.T) {
	t.Helper()
	if err := dial(c.Addr().Network(), c.Addr().String()); err != nil {
		t.Fatal(err)
	}
	until(t, "the connection is counted", func() bool { return c.connections.Load() > 0 })
	if n := c.connections.Load(); n != 1 {
		t.Errorf("the host has connected to %s %d times", c.Addr(), n-1)
	}
}

// TestBadHandshakes: whatever a process says at first, the host connects to
// nobody but it, and says what it found, in plain characters. Without walls a
// process can bring the socket of another into its directory: the host finds out
// who listens there before it says a word.
func TestBadHandshakes(t *testing.T) {
	for _, confinement := range []Confinement{BestEffort, None} {
		t.Run(string(confinement), func(t *testing.T) {
			s := newStage(t)
			s.cfg.Confinement = confinement
			base := filepath.Dir(s.sockets)
			other := filepath.Join(s.sockets, "plugin-dir-other") // as if another plugin's
			if err := os.Mkdir(other, 0o700); err != nil {
				t.Fatal(err)
			}
			tcp := newCounter(t, "tcp", "127.0.0.1:0")
			path := newCounter(t, "unix", filepath.Join(other, "socket"))
			abstract := newCounter(t, "unix", fmt.Sprintf("@imgcache-handshake-%d", os.Getpid()))
			victim := newCounter(t, "unix", filepath.Join(base, "victim"))
			for _, name := range slices.Sorted(maps.Keys(badLines)) {
				sp := spec("speaker")
				maps.Copy(sp.Env, map[string]string{
					speakCase: name, speakTCP: tcp.Addr().String(), speakUnix: path.Addr().String(),
					speakAbstract: abstract.Addr().String(), speakVictim: victim.Addr().String(),
				})
				_, err := s.Start(t.Context(), sp)
				want := badLines[name].want
				if confinement != None && badLines[name].walled != "" {
					want = badLines[name].walled
				}
				wantPlain(t, name, err, want)
			}
			for _, c := range []*counter{tcp, path, abstract} {
				c.wantNone(t)
			}
			if n := victim.bytes.Load(); n != 0 {
				t.Errorf("the host has said %d bytes to the socket of another", n)
			}
			if left, err := os.ReadDir(s.sockets); err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// wantPlain wants an error with these words, which a person can read.
func wantPlain(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want an error with %q", name, err, want)
		return
	}
	if text := err.Error(); len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) {
		t.Errorf("%s: an error of %d bytes: %q", name, len(text), text)
	}
}

// TestGoodHandshakes: lines that plugins in other languages have said so far.
func TestGoodHandshakes(t *testing.T) {
	for _, text := range []string{"1|1|unix|/d/s|grpc|\n", "1|1|unix|/d/s|grpc\n", "1|1|unix|/d/s|grpc|\r\n"} {
		line, err := readHandshake(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		if path, err := parseHandshake(line); err != nil || path != "/d/s" {
			t.Errorf("%q: the path %q, %v", text, path, err)
		}
	}
}

// TestPrintsOnWithoutEnd: what a process prints after its line is read, and not
// kept.
func TestPrintsOnWithoutEnd(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "babbler")
	if err := p.Driver().Apply(t.Context(), now()); err != nil { // it has printed all of it
		t.Error(err)
	}
}

func FuzzHandshake(f *testing.F) {
	for _, seed := range []string{in("/d/s"), "1|1|tcp|127.0.0.1:1|grpc|\n", "\x1b|\n", "1|1|unix|/d/s", strings.Repeat("|", maxHandshake), ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		line, err := readHandshake(bufio.NewReaderSize(strings.NewReader(string(text)), maxHandshake))
		var path string
		if err == nil {
			path, err = parseHandshake(line)
		}
		if err == nil {
			if len(path) > maxHandshake || strings.Contains(path, "|") {
				t.Errorf("%q: the path %q", text, path)
			}
			return
		}
		if !errors.Is(err, sdk.ErrInvalid) && !errors.Is(err, sdk.ErrUnsupported) {
			t.Errorf("%q: %v", text, err)
		}
		wantPlain(t, string(text), err, "")
	})
}
