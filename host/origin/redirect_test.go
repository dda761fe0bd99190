package origin_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// TestKindOf holds the special networks against the registries, with the
// addresses at their edges, and those that hide another address.
func TestKindOf(t *testing.T) {
	for want, list := range map[string]string{
		"public": "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 " +
			"172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 " +
			"2001:200::1 2a00::1 2600::1 2003::1 3ffe::1 3fff:1000::1",
		"loopback": "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1",
		"private": "10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 fc00::1 fd00::1 fdff::1 " +
			"::ffff:10.0.0.1 ::ffff:192.168.1.1 64:ff9b::10.0.0.1",
		"special": "0.0.0.0 0.255.255.255 169.254.0.0 169.254.169.254 169.254.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 " +
			"198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 100.100.100.200 168.63.129.16 fd00:ec2::254 fd20:ce::254 " +
			":: ::2 ::1.1.1.1 ::ffff:169.254.169.254 ::ffff:0:1.1.1.1 64:ff9b::169.254.169.254 64:ff9b:1::1 64:ff9a::1 100::1 2001::1 2001:0:1::1 2001:2::1 2001:10::1 2001:20::1 " +
			"2001:db8::1 2002::1 2002:7f00:1::1 2002:a9fe:a9fe::1 3fff::1 4000::1 5f00::1 fe80::1 fe80::1%eth0 febf::1 fec0::1 ff02::1",
	} {
		for text := range strings.FieldsSeq(list) {
			if got := origin.KindOf(netip.MustParseAddr(text)); got != want {
				t.Errorf("%s is %s, want %s", text, got, want)
			}
		}
	}
	if got := origin.KindOf(netip.Addr{}); got != "special" {
		t.Errorf("no address is %s", got)
	}
}

func TestParseDestinations(t *testing.T) {
	for _, good := range []string{"mirror.example", "*.mirror.example", "Mirror", "a_b.example", "10.0.0.0/8", "10.1.2.3", "fd00::/8", "fd00::1", "::ffff:10.0.0.1"} {
		if _, err := origin.ParseDestinations([]string{good}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "*", "*.", "a.*.example", "http://mirror.example", "mirror.example:80", "10.0.0.300", "10.0.0.0/33", "10.0", "fe80::1%eth0", "a..b", ".a", "a b", strings.Repeat("a", 64)} {
		if _, err := origin.ParseDestinations([]string{"good.example", bad}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// network is a network of loopback addresses, which stand for those of others.
type network struct {
	t     *testing.T
	kinds map[string]string // by address
	names names
	seen  sync.Map // address of a server: number of requests
}

func newNetwork(t *testing.T) *network {
	return &network{t: t, kinds: map[string]string{
		"127.0.0.1": "public", "127.0.1.1": "public", "127.0.0.2": "private", "127.0.1.2": "private",
		"127.0.0.3": "loopback", "127.0.1.3": "loopback", "127.0.0.4": "special", "127.0.1.4": "special",
	}}
}

func (n *network) kind(addr netip.Addr) string { return n.kinds[addr.String()] }

// serve starts a server at an address and returns its URL. A request for
// /images/a is redirected to the target, or answered if there is none.
func (n *network) serve(address, target string) string {
	n.t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count, _ := n.seen.LoadOrStore(address, new(atomic.Int32))
		count.(*atomic.Int32).Add(1)
		if target != "" {
			http.Redirect(w, r, target, http.StatusFound)
			return
		}
		w.Write([]byte("image"))
	}))
	s.Listener.Close()
	var err error
	if s.Listener, err = (&net.ListenConfig{}).Listen(n.t.Context(), "tcp", address+":0"); err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	n.t.Cleanup(s.Close)
	return s.URL
}

// requests is how many came to an address.
func (n *network) requests(address string) int {
	count, ok := n.seen.Load(address)
	if !ok {
		return 0
	}
	return int(count.(*atomic.Int32).Load())
}

func (n *network) origin(endpoint string, to ...string) *origin.HTTP {
	n.t.Helper()
	o, err := origin.NewHTTPAmong(origin.HTTPConfig{
		Name: "web", Endpoint: endpoint + "/images/", AllowRedirects: true, RedirectTo: to, ConnectTimeout: time.Minute, IdleTimeout: time.Minute,
	}, n.kind, n.names.resolver())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { o.Close() })
	return o
}

// TestRedirectsByAddress has redirects between addresses of all kinds. One that is
// refused reaches nobody, and is not tried again.
func TestRedirectsByAddress(t *testing.T) {
	for _, c := range []struct {
		name    string
		hosts   string   // the endpoint, and where each redirects to
		to      []string // redirect_to
		follows bool
	}{
		{"public to public", "127.0.0.1 127.0.1.1", nil, true},
		{"public to private", "127.0.0.1 127.0.0.2", nil, false},
		{"public to loopback", "127.0.0.1 127.0.0.3", nil, false},
		{"public to special", "127.0.0.1 127.0.0.4", nil, false},
		{"private to private", "127.0.0.2 127.0.1.2", nil, true},
		{"private to public", "127.0.0.2 127.0.0.1", nil, true},
		{"private to loopback", "127.0.0.2 127.0.0.3", nil, false},
		{"private to special", "127.0.0.2 127.0.0.4", nil, false},
		{"loopback to loopback", "127.0.0.3 127.0.1.3", nil, true},
		{"loopback to private", "127.0.0.3 127.0.0.2", nil, false},
		{"special to special", "127.0.0.4 127.0.1.4", nil, false},
		{"special itself", "127.0.0.4", nil, true},
		{"private, public, private", "127.0.0.2 127.0.0.1 127.0.1.2", nil, false},
		{"loopback, public, loopback", "127.0.0.3 127.0.0.1 127.0.1.3", nil, false},
		{"public, named private, other private", "127.0.0.1 127.0.0.2 127.0.1.2", []string{"127.0.0.2"}, false},
		{"named address", "127.0.0.1 127.0.0.2", []string{"127.0.0.2"}, true},
		{"named network", "127.0.0.1 127.0.0.2", []string{"127.0.0.0/24"}, true},
		{"named special address", "127.0.0.1 127.0.0.4", []string{"127.0.0.4/32"}, true},
		{"other network named", "127.0.0.1 127.0.0.2", []string{"127.0.1.0/24", "storage.example"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			hosts, target := strings.Fields(c.hosts), ""
			last := hosts[len(hosts)-1]
			for i := len(hosts) - 1; i >= 0; i-- {
				target = n.serve(hosts[i], target)
			}
			o := n.origin(target, c.to...)
			for range 2 { // by new connections, and by those that are there
				data, _, err := fetch(o, origin.Request{Name: "a", Length: -1})
				if follows := err == nil && string(data) == "image"; follows != c.follows {
					t.Fatalf("got %q, %v", data, err)
				}
				var failure *origin.Failure
				if !c.follows && (!errors.As(err, &failure) || failure.Temporary || !strings.Contains(err.Error(), "redirect_to")) {
					t.Errorf("error is %v", err)
				}
			}
			if n.requests(last) > 0 != c.follows {
				t.Errorf("%d requests came to %s", n.requests(last), last)
			}
		})
	}
}

// TestRedirectsByName has names whose addresses are allowed, are not, and change
// from one question to the next.
func TestRedirectsByName(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers [][]string // to one question after the other, the last for ever
		to      []string
		follows bool
	}{
		{"public", [][]string{{"127.0.1.1"}}, nil, true},
		{"private", [][]string{{"127.0.0.2"}}, nil, false},
		{"private, by name", [][]string{{"127.0.0.2"}}, []string{"storage.example"}, true},
		{"private, by domain", [][]string{{"127.0.0.2"}}, []string{"*.example"}, true},
		{"private, by the domain itself", [][]string{{"127.0.0.2"}}, []string{"*.storage.example"}, false},
		{"private, by network", [][]string{{"127.0.0.2"}}, []string{"127.0.0.0/24"}, true},
		{"special, by another name", [][]string{{"127.0.0.4"}}, []string{"orage.example", "age.example"}, false},
		{"first public, then special", [][]string{{"127.0.1.1"}, {"127.0.0.4"}}, nil, true},
		{"first special, then public", [][]string{{"127.0.0.4"}, {"127.0.1.1"}}, nil, false},
		{"special and private", [][]string{{"127.0.0.4", "127.0.0.2"}}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			_, port, err := net.SplitHostPort(strings.TrimPrefix(n.serve("0.0.0.0", ""), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			n.names.answers = c.answers
			o := n.origin(n.serve("127.0.0.1", "http://storage.example:"+port+"/images/a"), c.to...)
			data, _, err := fetch(o, origin.Request{Name: "a", Length: -1})
			if follows := err == nil && string(data) == "image"; follows != c.follows {
				t.Fatalf("got %q, %v", data, err)
			}
			if n.requests("0.0.0.0") > 0 != c.follows {
				t.Errorf("%d requests came", n.requests("0.0.0.0"))
			}
			if n.names.questions() != 1 {
				t.Errorf("%d questions for one connection", n.names.questions())
			}
		})
	}
}

// TestRedirectsThroughAProxy judges by what stands in the URL.
func TestRedirectsThroughAProxy(t *testing.T) {
	for target, follows := range map[string]bool{
		"http://storage.example/images/a":    true, // whatever its address
		"http://127.0.1.1/images/a":          true,
		"http://127.0.0.2/images/a":          false,
		"http://127.0.0.4/images/a":          false,
		"http://127.0.1.4/images/a":          true, // named
		"http://named.example:8080/images/a": true,
		"http://[::ffff:127.0.0.4]/images/a": false,
		"http://[64:ff9b::7f00:4]/images/a":  false,
	} {
		n := newNetwork(t)
		var asked []string
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Host)
			if r.URL.Host == "mirror.example" {
				http.Redirect(w, r, target, http.StatusFound)
				return
			}
			w.Write([]byte("image"))
		}))
		defer proxy.Close()
		o := n.origin("http://mirror.example", "127.0.1.4", "named.example")
		u, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		o.SetProxy(u)
		data, _, err := fetch(o, origin.Request{Name: "a", Length: -1})
		if got := err == nil && string(data) == "image"; got != follows || len(asked) > 1 != follows {
			t.Errorf("%s: got %q, %v; the proxy was asked for %v", target, data, err, asked)
		}
		if n.names.questions() > 0 {
			t.Errorf("%s: names are for the proxy to look up", target)
		}
	}
}

// TestS3FollowsNobody has a server of objects that redirects in all ways.
func TestS3FollowsNobody(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		other := newServer(t, random(1, 1000))
		here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/images/a", status)
		}))
		defer here.Close()
		o, err := origin.NewS3(origin.S3Config{Name: "objects", Endpoint: here.URL, Bucket: "images", Region: "here", ConnectTimeout: time.Minute, IdleTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if _, _, err := fetch(o, origin.Request{Name: "a", Length: -1}); err == nil {
			t.Errorf("%d: there is an image", status)
		}
		if n := len(other.seen()); n > 0 {
			t.Errorf("%d: the other host was asked %d times", status, n)
		}
	}
}

// names answers questions for the IPv4 addresses of any name.
type names struct {
	mu      sync.Mutex
	answers [][]string
	asked   int
}

func (n *names) questions() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go n.talk(there)
		return here, nil
	}}
}

// talk speaks DNS over a stream: each message behind its length.
func (n *names) talk(conn net.Conn) {
	defer conn.Close()
	for {
		var length [2]byte
		if _, err := conn.Read(length[:]); err != nil {
			return
		}
		message := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := conn.Read(message); err != nil {
			return
		}
		reply := n.reply(message)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// reply answers a question of one name (RFC 1035, section 4).
func (n *names) reply(question []byte) []byte {
	end := 12
	for question[end] != 0 {
		end += 1 + int(question[end])
	}
	kind := binary.BigEndian.Uint16(question[end+1:])
	body := question[12 : end+5]
	var addresses []string
	if kind == 1 { // A
		n.mu.Lock()
		addresses = n.answers[min(n.asked, len(n.answers)-1)]
		n.asked++
		n.mu.Unlock()
	}
	reply := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, byte(len(addresses)), 0, 0, 0, 0}, body...)
	for _, a := range addresses {
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, A, IN, no time to live
		reply = append(reply, netip.MustParseAddr(a).AsSlice()...)
	}
	return reply
}
