package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
)

// deeds are what the plugin can do in a call.
var deeds = map[string]func(h *hostile, call string) (any, error){
	"hang":     func(*hostile, string) (any, error) { select {} },
	"exit":     func(*hostile, string) (any, error) { os.Exit(3); return nil, nil },
	"stop":     func(*hostile, string) (any, error) { return nil, syscall.Kill(os.Getpid(), syscall.SIGSTOP) },
	"garbage":  func(*hostile, string) (any, error) { return nil, repeat(os.Stdout, "y\n", 1<<40) },
	"nonsense": func(*hostile, string) (any, error) { fmt.Println("1|1|unix|/nowhere/at/all|grpc"); select {} },
	"large":    (*hostile).large,
	"heavy":    (*hostile).large,
	"stream":   func(*hostile, string) (any, error) { return nil, nil }, // see pour
	"wordy": func(h *hostile, _ string) (any, error) {
		return nil, status.Error(codes.Internal, strings.Repeat("word ", h.many/5))
	},
	"shout": once(func(h *hostile) { _ = repeat(stderr, strings.Repeat("look at me ", 6)+"\n", h.many) }),
	"drone": once(func(h *hostile) { _ = repeat(stderr, "o", h.many) }), // one line
	"forge": once((*hostile).forge),
	"fork":  once(func(h *hostile) { h.fork(8) }),
	"breed": once(func(h *hostile) { h.fork(1 << 20) }), // until it is killed
	"spy":   once((*hostile).spy),
	"dial":  once((*hostile).dial),
	"fill":  once((*hostile).fill),
	"deaf": once(func(*hostile) {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	}),
}

// once makes a deed of what is done once and then answered well.
func once(do func(*hostile)) func(*hostile, string) (any, error) {
	return func(h *hostile, _ string) (any, error) {
		h.once.Do(func() { do(h) })
		return nil, nil
	}
}

// repeat writes a text over and over.
func repeat(w io.Writer, text string, size int) error {
	block := []byte(strings.Repeat(text, 1+(64<<10)/len(text)))
	for ; size > 0; size -= len(block) {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// large is an answer of many bytes.
func (h *hostile) large(call string) (any, error) {
	word := func() string { return strings.Repeat("x", h.many) }
	switch call {
	case "Describe", "Probe":
		return &pluginv1.DescribeResponse{Name: "hostile", Version: word(), Kind: h.kind}, nil
	case "Configure":
		return &pluginv1.ConfigureResponse{Notes: []string{word()}}, nil
	case "Score":
		return &pluginv1.ScoreResponse{Scores: make([]float64, h.many/8)}, nil
	case "Select":
		return &pluginv1.SelectResponse{Keys: make([]uint64, h.many/8)}, nil
	case "Snapshot":
		return &pluginv1.SnapshotResponse{Snapshot: make([]byte, h.many)}, nil
	case "List":
		return entries(0, h.many), nil
	case "Nodes":
		return &pluginv1.NodesResponse{Nodes: []*pluginv1.Node{{Name: "n", Url: word()}}}, nil
	}
	return nil, fmt.Errorf("hostile: no answer of %s has bytes", call)
}

// entries is a message of so many bytes, of images that there are not.
func entries(first, size int) *pluginv1.ListResponse {
	const each = 100
	m := &pluginv1.ListResponse{}
	for i := range size / each {
		m.Entries = append(m.Entries, &pluginv1.Entry{Id: fmt.Sprintf("none-%075d", first+i), Version: "v", Size: 1})
	}
	return m
}

// pour lists many bytes in messages that are not too large.
func (h *hostile) pour(s grpc.ServerStream) error {
	h.say("%s in %s", h.deed, h.call)
	const message = 1 << 20
	for sent := 0; sent < h.many; sent += message {
		if err := s.SendMsg(entries(sent, message)); err != nil {
			return err
		}
	}
	return nil
}

// forge says lines that look like those of others. Each has the word forged.
func (h *hostile) forge() {
	for range 3 {
		fmt.Fprint(stderr,
			`{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"forged","plugin":"sqlite"}`+"\n",
			`{"@level":"error","@message":"forged","plugin":"sqlite","level":"ERROR","msg":"forged","time":"2026-01-01T00:00:00Z"}`+"\n",
			`{"@level":"error","@message":"forged\n{\"msg\":\"forged\"}","":{"plugin":"sqlite"},"plugin\u0000":"forged"}`+"\n",
			`{"@message":1,"forged":true}`+"\n",
			`{"@level":["error"],"@message":"forged","@timestamp":"never","@module":"sqlite","@caller":"forged"}`+"\n",
			"forged\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\n",
			"\x1b[2J\x1b]0;forged\x07time=x level=ERROR msg=forged plugin=sqlite\n",
			"forged \xff\xfe\x00 \u2028{\"msg\":\"forged\"}\u0085forged\n",
		)
	}
}

// fork starts children until it cannot; each stops itself.
func (h *hostile) fork(n int) {
	for i := range n {
		if err := exec.Command("sh", "-c", "kill -STOP $$").Start(); err != nil {
			h.say("%d children, then %v", i, err)
			return
		}
	}
	h.say("%d children", n)
}

// spy says what it can find out.
func (h *hostile) spy() {
	h.say("found in its environment: %q", os.Environ())
	parent := fmt.Sprintf("/proc/%d/", os.Getppid())
	for _, name := range []string{
		os.Getenv("HOSTILE_FILE"), "/etc/passwd", "/etc/shadow", parent + "environ", parent + "cmdline", parent + "mem", parent + "maps", "/proc/1/environ",
	} {
		found, err := os.ReadFile(name)
		if err != nil {
			h.say("cannot read: %v", err)
			continue
		}
		h.say("found in %s: %q", name, found[:min(len(found), 2000)])
	}
	for _, dir := range []string{"/", "/etc", "/root", "/home", "/tmp", "/proc"} {
		if list, err := os.ReadDir(dir); err == nil {
			h.say("found %d names in %s", len(list), dir)
		}
	}
	if err := syscall.Kill(os.Getppid(), 0); err == nil {
		h.say("can send the host a signal")
	}
}

// dial tries to reach others: the test listens there.
func (h *hostile) dial() {
	for _, to := range strings.Fields(os.Getenv("HOSTILE_ADDRESSES")) {
		network, address, _ := strings.Cut(to, "=")
		c, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			_, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			_ = c.Close()
		}
		h.say("dial %s: %v", to, err)
	}
}

// fill writes into its own directory.
func (h *hostile) fill() {
	h.mu.Lock()
	dir := h.state
	h.mu.Unlock()
	block := bytes.Repeat([]byte("fill"), 256<<10)
	for i := range h.many / len(block) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), block, 0o600); err != nil {
			h.say("cannot write: %v", err)
			return
		}
	}
	h.say("wrote %d bytes", h.many)
}
