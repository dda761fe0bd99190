package httpd

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepNear looks at the send buffer of connections: only a hit on this
// machine has a small one.
func TestKeepNear(t *testing.T) {
	t.Parallel()
	if loopback(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}) || loopback(&net.UnixAddr{}) || !loopback(&net.TCPAddr{IP: net.IPv6loopback}) {
		t.Error("loopback does not tell this machine from others")
	}
	for _, hit := range []bool{false, true} {
		e := newEngine()
		img := newContent(content(1 << 20))
		img.outcome.Hit = hit
		e.images["img"] = img
		ln, err := ListenTCP(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		buffers := make(chan int, 1)
		faces := newService(e).Handler(Faces{Images: true})
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			faces.ServeHTTP(w, r)
			buffers <- sendBuffer(t, r)
		})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- Serve(ctx, ln, h, Limits{}) }()
		resp, err := http.Get("http://" + ln.Addr().String() + "/images/img")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
		// The kernel doubles what it is asked for.
		if got := <-buffers; (got == 2*nearBuffer) != hit {
			t.Errorf("hit %v: the send buffer has %d bytes", hit, got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func sendBuffer(t *testing.T, r *http.Request) (n int) {
	raw, err := tcp(r).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			var e error
			if n, e = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); e != nil {
				t.Error(e)
			}
		})
	}
	if err != nil {
		t.Error(err)
	}
	return n
}
