package httpd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
)

// TestVerifyTellsProgress line by line, while it runs, and the report last.
func TestVerifyTellsProgress(t *testing.T) {
	e := newEngine()
	h := newService(e).Handler(everything)
	w := call(h, "POST", "/v1/verify", `{"ids": ["a", "bad"]}`)
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if w.Code != 200 || len(lines) < 2 {
		t.Fatalf("%d: %q", w.Code, lines)
	}
	var first, last verifyLine
	for line, into := range map[string]*verifyLine{lines[0]: &first, lines[len(lines)-1]: &last} {
		if err := json.Unmarshal([]byte(line), into); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	if diff := cmp.Diff(&cache.ScrubProgress{ID: "a", Total: 2, Bytes: 1, TotalBytes: 4, Started: modified}, first.Progress); diff != "" {
		t.Error(diff)
	}
	want := &cache.ScrubReport{Images: 1, Bytes: 4, Bad: []cache.Finding{{ID: "bad", Reason: "block 1"}}, Unread: []cache.Finding{}}
	if diff := cmp.Diff(want, last.Report); diff != "" {
		t.Error(diff)
	}
	if last.Progress == nil || last.Progress.Bytes != 4 {
		t.Errorf("the end of the progress is %+v", last.Progress)
	}
	if w := call(h, "POST", "/v1/verify", `{"ids": ["dying"]}`); !strings.Contains(w.Body.String(), `"error":"the service is stopping"}`) {
		t.Errorf("one that stops: %s", w.Body)
	}
	e.fail = fmt.Errorf("%w: a scrub is running", cache.ErrConflict)
	if w := call(h, "POST", "/v1/verify", ""); w.Code != http.StatusConflict {
		t.Errorf("one too many: %d %s", w.Code, w.Body)
	}
}

// TestVerifyEndsWithTheService, which does not wait for it as for a download.
func TestVerifyEndsWithTheService(t *testing.T) {
	ln, err := ListenTCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, ln, newService(newEngine()).Handler(everything), Limits{DrainTimeout: time.Hour})
	}()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+ln.Addr().String()+"/v1/verify", strings.NewReader(`{"ids": ["slow"]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	rest, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(rest), "the service is stopping") {
		t.Errorf("%s, %v", rest, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestVerifyEndsWithItsClient, who has seen the progress by then.
func TestVerifyEndsWithItsClient(t *testing.T) {
	address := start(t, newService(newEngine()).Handler(everything), Limits{})
	c := dial(t, address)
	body := `{"ids": ["slow"]}`
	fmt.Fprintf(c, "POST /v1/verify HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	var line verifyLine
	if err := json.NewDecoder(resp.Body).Decode(&line); err != nil || line.Progress.ID != "slow" {
		t.Errorf("%+v, %v", line, err)
	}
	c.Close() // start waits for the handler
}
