package httpd

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// BenchmarkDownload shows what the faces cost over a bare net/http that writes
// the same blocks.
func BenchmarkDownload(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 20} {
		e := newEngine()
		e.images["img"] = newContent(content(size))
		b.Run("faces/"+strconv.Itoa(size), func(b *testing.B) {
			ln, err := ListenTCP(b.Context(), "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- Serve(ctx, ln, newService(e).Handler(Faces{Images: true}), Limits{}) }()
			download(b, "http://"+ln.Addr().String()+"/images/img", size)
			stop()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
		b.Run("bare/"+strconv.Itoa(size), func(b *testing.B) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = e.images["img"].CopyTo(r.Context(), w, 0, -1)
			}))
			defer srv.Close()
			download(b, srv.URL, size)
		})
	}
}

func download(b *testing.B, url string, size int) {
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(size))
	for b.Loop() {
		resp, err := client.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
		if err != nil || n != int64(size) {
			b.Fatalf("%d bytes, %v", n, err)
		}
		_ = resp.Body.Close()
	}
	transport.CloseIdleConnections()
}
