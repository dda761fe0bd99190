package dbtest

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between the clients and a server, and can lose what they say to
// each other when a transaction ends.
type Proxy struct {
	dir    string
	socket string // of the server
	listen net.Listener
	work   sync.WaitGroup

	mu    sync.Mutex
	fault *fault
	conns map[net.Conn]bool
}

// Loss says what does not arrive.
type Loss int

// The losses.
const (
	Request Loss = iota // the server never hears of the COMMIT
	Answer              // the client never hears of it
	Silence             // the same, and its connection stays open
)

type fault struct {
	loss Loss
	then func()
}

// Proxy starts one in front of the server. It ends with the test.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ic")
	if err != nil {
		t.Fatal(err)
	}
	socket := s.kind.socket(s)
	p := &Proxy{dir: dir, socket: socket, conns: map[net.Conn]bool{}}
	if p.listen, err = net.Listen("unix", filepath.Join(dir, filepath.Base(socket))); err != nil {
		t.Fatal(err)
	}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		p.listen.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

// DSN leads what a dsn of the server says through the proxy.
func (p *Proxy) DSN(dsn string) string {
	at, there := url.QueryEscape(filepath.Dir(p.socket)), url.QueryEscape(p.dir)
	return strings.Replace(dsn, at, there, 1)
}

// Break makes the next COMMIT suffer a loss. Then is called, and the connection
// is closed, unless it falls silent.
func (p *Proxy) Break(loss Loss, then func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = &fault{loss, then}
}

// Broken reports whether what Break asked for has happened.
func (p *Proxy) Broken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault == nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.socket)
		if err != nil {
			client.Close() // the server does not run
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		lost := make(chan *fault, 1) // the answer to what was handed on
		p.work.Go(func() { p.pass(client, server, func(data []byte) *fault { return p.request(data, lost) }) })
		p.work.Go(func() {
			p.pass(server, client, func([]byte) *fault {
				select {
				case f := <-lost:
					return f
				default:
					return nil
				}
			})
		})
	}
}

// request returns the fault that data suffers. One for its answer goes to
// lost.
func (p *Proxy) request(data []byte, lost chan<- *fault) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil || !bytes.Contains(bytes.ToUpper(data), []byte("COMMIT")) {
		return nil
	}
	f := p.fault
	p.fault = nil
	if f.loss == Request {
		return f
	}
	lost <- f
	return nil
}

// pass hands on what one side says until either ends, or a fault does it.
func (p *Proxy) pass(from, to net.Conn, check func([]byte) *fault) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	for data := make([]byte, 64<<10); ; {
		n, err := from.Read(data)
		if n > 0 {
			if f := check(data[:n]); f != nil {
				f.then()
				if f.loss == Silence {
					_, _ = io.Copy(io.Discard, from) // until the client has enough
				}
				return
			}
			if _, err := to.Write(data[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
