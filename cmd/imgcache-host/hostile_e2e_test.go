package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"
)

// hostile are plugins that mean harm: modules of testdata/wasm, and the program
// testdata/hostile as its first three arguments say. Those that are always tried
// are marked; the others are when IMGCACHE_TEST_ALL is set.
var hostile = []struct {
	what   string
	always bool
}{
	{"module spin", true},
	{"module calls", false},
	{"module table", true},
	{"module flood", true},
	{"module foreign", false},
	{"module recurse", false},
	{"module bomb", false},
	{"module trap", false},
	{"module abort", false},
	{"module nan", false},
	{"module forget", false},
	{"module pointer", false},
	{"module crooked", false},
	{"module missing", false},
	{"module import", false},
	{"module oldabi", false},
	{"module stumble", false},
	{"module boast", false},
	{"module wrong", false},
	{"module wide", false},
	{"module huge", false},
	{"module slow", false},

	{"scorer hang start", true},
	{"driver garbage start", false},
	{"driver nonsense start", false},
	{"driver exit start", false},
	{"scorer shout start", false},

	{"scorer hang Describe", false},
	{"scorer hang Probe", false},
	{"scorer hang Configure", false},
	{"scorer hang Score", false},
	{"stateful hang Observe", false},
	{"stateful hang Select", false},
	{"stateful hang Snapshot", false},
	{"stateful hang Restore", false},
	{"driver hang Describe", false},
	{"driver hang Probe", false},
	{"driver hang Configure", false},
	{"driver hang List", false},
	{"driver hang Apply", true},
	{"driver hang Heartbeat", false},
	{"driver hang Nodes", false},

	{"scorer exit Describe", false},
	{"scorer exit Configure", false},
	{"scorer exit Score", false},
	{"stateful exit Observe", false},
	{"stateful exit Select", false},
	{"stateful exit Snapshot", false},
	{"stateful exit Restore", false},
	{"driver exit List", false},
	{"driver exit Apply", false},
	{"driver exit Nodes", false},
	{"scorer stop Score", false},
	{"stateful stop Observe", false},
	{"driver stop Apply", false},
	{"driver stop List", false},

	{"scorer large Describe", false},
	{"driver large Probe", false},
	{"driver large Configure", false},
	{"scorer large Score", false},
	{"stateful large Select", false},
	{"stateful large Snapshot", false},
	{"driver large List", true},
	{"driver large Nodes", false},
	{"scorer heavy Describe", true},
	{"driver heavy Configure", false},
	{"scorer heavy Score", false},
	{"stateful heavy Select", false},
	{"stateful heavy Snapshot", false},
	{"driver heavy List", false},
	{"driver heavy Nodes", false},
	{"driver stream List", false},
	{"scorer wordy Configure", false},
	{"scorer wordy Score", false},
	{"driver wordy List", false},
	{"driver wordy Apply", false},

	{"scorer shout Score", false},
	{"driver shout Apply", false},
	{"scorer drone Score", false},
	{"scorer forge Score", false},
	{"driver forge Apply", true},

	{"scorer fork Score", true},
	{"driver fork List", false},
	{"scorer breed Score", false},
	{"scorer deaf Score", false},
	{"driver deaf Apply", false},
	{"driver fill Apply", false},
	{"scorer spy Score", true},
	{"driver spy Apply", false},
	{"scorer dial Score", false},
	{"driver dial Apply", false},
}

// maxPeak bounds what the service ever has of memory, in MiB. With good plugins
// it is 35, and 80 under the race detector; what a message may have is 64.
const maxPeak = 640

// TestHostilePlugins: while a plugin does its worst, no request fails. What a hit
// waits at most is printed beside the same with good plugins.
func TestHostilePlugins(t *testing.T) {
	t.Parallel()
	program := buildPlugin(t, "./testdata/hostile")
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	row(w, "PLUGIN", "HITS", "LONGEST STALL", "PEAK OF MEMORY")
	add := func(what string, h harm) {
		row(w, what, h.hits, h.stall.Round(100*time.Microsecond), fmt.Sprintf("%d MiB", h.peak))
	}
	add("good ones", assault{}.run(t))
	for _, h := range hostile {
		if !h.always && os.Getenv("IMGCACHE_TEST_ALL") == "" {
			continue
		}
		t.Run(h.what, func(t *testing.T) {
			add(h.what, newAssault(t, program, h.what).run(t))
		})
	}
	_ = w.Flush()
	t.Logf("what hits waited at most:\n%s", &table)
}

// harm is what a plugin has done to the service.
type harm struct {
	hits  int
	stall time.Duration // the longest that a hit took
	peak  int           // of resident memory, in MiB
}

// assault is a service with a hostile plugin; the zero value has none.
type assault struct {
	name   string                         // of the plugin
	driver bool                           // it is a driver, else a policy
	deed   string                         // what the program does
	call   string                         // and where; empty: it is a module
	fault  string                         // what is said of it; empty: anything
	block  string                         // lines of its block
	more   string                         // blocks
	judge  func(t *testing.T, log []line) // what the program has achieved; nil: nothing counts
}

// secret is what no plugin may find out.
const secret = "nobody is told of this"

// newAssault reads an element of hostile.
func newAssault(t *testing.T, program, what string) assault {
	t.Helper()
	words := strings.Fields(what)
	if words[0] == "module" {
		path, err := filepath.Abs("../../testdata/wasm/" + words[1] + ".wasm")
		if err != nil {
			t.Fatal(err)
		}
		made := madeModules[words[1]]
		if made.code != nil {
			path = filepath.Join(t.TempDir(), words[1]+".wasm")
			writeFile(t, path, string(made.code()))
		}
		return assault{name: words[1], fault: made.fault, block: fmt.Sprintf("wasm = %q", path)}
	}
	a := assault{name: words[1], driver: words[0] == "driver", deed: words[1], call: words[2]}
	many := 100 << 20
	switch a.deed {
	case "heavy": // what a message may have
		many = 60 << 20
	case "shout", "drone":
		if os.Getenv("IMGCACHE_TEST_ALL") != "" {
			many = 1 << 30
		}
	case "spy":
		path := filepath.Join(t.TempDir(), "others")
		writeFile(t, path, secret)
		a.block, a.judge = fmt.Sprintf("env = { HOSTILE_FILE = %q }", path), judgeSpy
	case "dial":
		a.block, a.judge = listeners(t)
	case "fork":
		a.judge = func(t *testing.T, log []line) { mustSay(t, log, `[0-9]+ children`) }
	}
	if a.driver {
		a.block += "\nnetwork = false"
	}
	if a.call == "Nodes" {
		token := filepath.Join(t.TempDir(), "token")
		writeSecret(t, token, "a secret of the nodes\n")
		a.more = fmt.Sprintf("origin \"peer\" \"nodes\" {\n  token_file = %q\n}\n", token)
	}
	a.block += fmt.Sprintf("\ncommand = %q\nargs = [%q, %q, %q, \"%d\"]", program, words[0], a.deed, a.call, many)
	return a
}

// madeModules are those that no file should hold, and what is said of them.
var madeModules = map[string]struct {
	code  func() []byte
	fault string
}{
	"huge": {func() []byte { return append([]byte("\x00asm\x01\x00\x00\x00"), make([]byte, 33<<20)...) }, "too large"},
	"slow": {slowModule, "MiB of memory"},
}

// slowModule is half a megabyte that takes the compiler a minute and gigabytes of
// memory: a function with a thousand variables and ever so many conditions, at
// each of which any of them may have changed.
func slowModule() []byte {
	section := func(id byte, b []byte) []byte {
		return append(binary.AppendUvarint([]byte{id}, uint64(len(b))), b...)
	}
	const i32, get, set, when, end, variables = 0x7f, 0x20, 0x21, 0x04, 0x0b, 1000
	body := append(binary.AppendUvarint([]byte{1}, variables), i32)
	variable := func(instruction byte, i int) {
		body = binary.AppendUvarint(append(body, instruction), uint64(i%variables))
	}
	for i := 0; len(body) < 512<<10; i++ {
		variable(get, i)
		body = append(body, when, 0x40)
		variable(get, 7*i)
		variable(set, 13*i)
		body = append(body, end)
	}
	body = append(body, end)
	code := append(binary.AppendUvarint([]byte{1}, uint64(len(body))), body...)
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{1, 0x60, 0, 0}), section(3, []byte{1, 0}), section(10, code))
}

// listeners listen where a plugin must not get to.
func listeners(t *testing.T) (block string, judge func(*testing.T, []line)) {
	t.Helper()
	var reached atomic.Int32
	var addresses []string
	for _, at := range []string{"tcp=127.0.0.1:0", fmt.Sprintf("unix=@hostile-%d", os.Getpid())} {
		network, address, _ := strings.Cut(at, "=")
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, network+"="+l.Addr().String())
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				reached.Add(1)
				_ = c.Close()
			}
		})
		t.Cleanup(func() {
			_ = l.Close()
			wg.Wait()
		})
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	addresses = append(addresses, "udp="+u.LocalAddr().String())
	block = fmt.Sprintf("env = { HOSTILE_ADDRESSES = %q }", strings.Join(addresses, " "))
	return block, func(t *testing.T, log []line) {
		mustSay(t, log, `dial tcp=.*(denied|unreachable|not permitted|refused)`)
		mustSay(t, log, `dial unix=@.*(denied|not permitted|refused)`)
		mustSay(t, log, `dial udp=`)
		if n := reached.Load(); n > 0 {
			t.Errorf("the plugin got through %d times", n)
		}
		if os.Geteuid() != 0 {
			return // the wall against UDP is a network of the plugin's own
		}
		_ = u.SetReadDeadline(time.Now()) // what was sent on loopback is there
		if n, from, err := u.ReadFrom(make([]byte, 100)); err == nil {
			t.Errorf("the plugin sent %d bytes from %v", n, from)
		}
	}
}

// judgeSpy: a spy finds nothing out.
func judgeSpy(t *testing.T, log []line) {
	t.Helper()
	for _, name := range []string{".*/others", "/etc/passwd", "/etc/shadow", "/proc/[0-9]+/environ", "/proc/[0-9]+/mem"} {
		mustSay(t, log, `cannot read: open `+name+`: permission denied`)
	}
	for _, l := range log {
		for _, found := range []string{secret, "root:", "can send"} {
			if strings.Contains(l.text, found) && l.fields["plugin"] == "spy" {
				t.Errorf("the plugin knows it: %s", l.text)
			}
		}
	}
}

// run runs the service with the plugin under a load of hits and of images that
// make others leave.
func (a assault) run(t *testing.T) (h harm) {
	t.Helper()
	origin := newOrigin(t)
	steady := origin.add("steady", 100_000)
	var others []*offered
	for i := range 6 {
		others = append(others, origin.add(fmt.Sprintf("other%d", i), 200_000))
	}
	begun := time.Now()
	d := prepare(t, a.setup(origin))
	d.launchLame() // it is not ready as long as a plugin is away, and serves
	if err := steady.check(d.get("steady")); err != nil {
		t.Fatal(err)
	}
	d.waitState("steady", "cached")
	stop := d.load(1, others, func(img *offered, a answer) {
		if err := img.check(a); err != nil {
			t.Errorf("%s: %v", img.id, err)
		}
	})
	var reload sync.WaitGroup
	if a.call == "Snapshot" || a.call == "Restore" {
		reload.Go(func() { command(t, "--socket", d.socket, "plugin", "reload", a.name) })
	}
	limit := time.Now().Add(patience)
	for ends := time.Now().Add(time.Second); h.hits < 200 || time.Now().Before(ends) || !a.harms(d); h.hits++ {
		begun := time.Now()
		got := d.get("steady")
		h.stall = max(h.stall, time.Since(begun))
		if err := steady.check(got); err != nil || !strings.Contains(got.cacheStatus(), "hit") {
			t.Fatalf("hit %d: %v, %s", h.hits, err, got.cacheStatus())
		}
		if time.Now().After(limit) {
			t.Fatalf("the plugin does no harm: %+v", d.plugin(a.name))
		}
	}
	reload.Wait()
	stop()
	if h.peak = peak(t, d.pid()); h.peak > maxPeak {
		t.Errorf("the service had %d MiB of memory", h.peak)
	}
	d.stop()
	eventually(t, "nothing is left of the plugin", func() bool { return len(d.offspring()) == 0 })
	log := linesOf(t, d.logs[0].String())
	judgeLog(t, log, a.name, begun)
	if a.judge != nil {
		a.judge(t, log)
	}
	return h
}

// setup is that of a small cache that the plugin works for.
func (a assault) setup(origin *testOrigin) setup {
	s := setup{origin: origin.block(), cache: "max_size = \"1MB\"\n", env: "HOSTILE_SECRET=" + secret}
	s.node = `advertise = "http://127.0.0.1:9"` // for the call Nodes
	s.more = a.more + "pin \"steady\" {\n  images = [\"steady\"]\n}\n"
	if a.name == "" {
		return s
	}
	kind := "policy"
	if a.driver {
		kind = "driver"
	}
	s.cache += fmt.Sprintf("%s = %s.bad\n", kind, kind)
	s.more += fmt.Sprintf("%s %q \"bad\" {}\nplugin %q {\n  kind = %q\n  %s\n  limits {\n    timeout = \"300ms\"\n  }\n}\n",
		kind, a.name, a.name, kind, a.block)
	return s
}

// harms reports whether the plugin has begun to.
func (a assault) harms(d *daemon) bool {
	switch {
	case a.name == "":
		return true
	case a.fault != "":
		return strings.Contains(d.plugin(a.name).LastError, a.fault)
	case a.call == "":
		return d.plugin(a.name).LastError != "" || d.usage().Policy != ""
	}
	return strings.Contains(d.logs[0].String(), fmt.Sprintf("hostile: %s in %s", a.deed, a.call))
}

// peak returns the most resident memory that a process has had, in MiB.
func peak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscanf(after, "%d kB", &kib); err != nil {
		t.Fatalf("%v: %s", err, status)
	}
	return kib >> 10
}

// line is one of the service's log.
type line struct {
	text   string
	fields map[string]any
}

func linesOf(t *testing.T, log string) (list []line) {
	t.Helper()
	for text := range strings.Lines(log) {
		l := line{text: text}
		if err := json.Unmarshal([]byte(text), &l.fields); err != nil {
			t.Errorf("a line of the log is none, %v: %s", err, text)
		}
		list = append(list, l)
	}
	return list
}

// judgeLog: whatever a plugin says stands under its name, at the time when it
// was said.
func judgeLog(t *testing.T, log []line, plugin string, begun time.Time) {
	t.Helper()
	for _, l := range log {
		text, _ := l.fields["time"].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || at.Before(begun.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("a line of another time, %v: %s", err, l.text)
		}
		if strings.Contains(l.text, "forged") && l.fields["plugin"] != plugin {
			t.Errorf("a line of the log is forged: %s", l.text)
		}
		if strings.ContainsAny(l.text, "\x1b\r\x00") {
			t.Errorf("a line commands the terminal: %q", l.text)
		}
	}
}

// mustSay wants a line of the hostile program in the log.
func mustSay(t *testing.T, log []line, pattern string) {
	t.Helper()
	want := regexp.MustCompile("^hostile: " + pattern)
	if !slices.ContainsFunc(log, func(l line) bool {
		message, _ := l.fields["msg"].(string)
		return want.MatchString(message)
	}) {
		t.Errorf("the plugin does not say %q", pattern)
	}
}
