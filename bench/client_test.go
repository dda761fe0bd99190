package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestClient downloads an image in both ways, and one with a wrong byte, which
// must be found.
func TestClient(t *testing.T) {
	t.Parallel()
	want, err := makeImage(t.TempDir(), "image", 2*block+17)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(want.path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[block+5] ^= 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content := map[string][]byte{"/good": good, "/bad": bad, "/short": good[1:]}[r.URL.Path]
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	for _, c := range []struct {
		path     string
		verified bool
		fault    string
	}{
		{"/good", false, ""},
		{"/good", true, ""},
		{"/bad", true, "block 1 has other bytes"},
		{"/short", false, "want 2097169"},
		{"/short", true, "want 2097169"},
	} {
		conn, err := dial(server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var count atomic.Int64
		err = conn.download(c.path, want, c.verified, &count)
		switch {
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%+v: error is %v", c, err)
		case c.fault == "" && (err != nil || count.Load() != want.size):
			t.Errorf("%+v: %d bytes, %v", c, count.Load(), err)
		}
		_ = conn.Close()
	}
}
