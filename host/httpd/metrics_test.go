package httpd

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent(content(1000))
	e.images["bad"] = newContent(content(1000)).failAt(10, cache.ErrVerify)
	more := prometheus.NewGauge(prometheus.GaugeOpts{Name: "imgcache_of_another"})
	s := newService(e, func(c *Config) { c.Metrics, c.Version = []prometheus.Collector{more}, "1.2.3" })
	h := s.Handler(everything)
	do(h, "GET", "/images/img")
	do(h, "HEAD", "/images/img")
	do(h, "GET", "/images/img", "Range", "bytes=0-9")
	do(h, "GET", "/images/none")
	aborted(t, func() { do(h, "GET", "/images/bad") })
	do(h, "GET", "/v1/usage")
	text := do(h, "GET", "/metrics").Body.String()
	for _, line := range []string{
		`imgcache_http_requests_total{code="2xx",face="images"} 3`,
		`imgcache_http_requests_total{code="4xx",face="images"} 1`,
		`imgcache_http_requests_total{code="2xx",face="admin"} 1`,
		`imgcache_http_aborted_total{face="images"} 1`,
		`imgcache_http_requests_running{face="images"} 0`,
		`imgcache_cache_bytes 1234`,
		`imgcache_cache_max_bytes 5678`,
		`imgcache_cache_images 2`,
		`imgcache_cache_hits_total 11`,
		`imgcache_cache_misses_total 5`,
		`imgcache_cache_disk_ok 1`,
		`imgcache_records_unsent 7`,
		`imgcache_of_another 0`,
		`imgcache_build_info{version="1.2.3"} 1`,
		`imgcache_http_sent_bytes_total{face="images"} 1046`, // 1000, 10, 10 and an error of 26
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s in\n%s", line, grep(text, strings.SplitN(line, "{", 2)[0]))
		}
	}
	newService(e) // another service has a registry of its own
}

func grep(text, word string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// aborted expects f to end as net/http wants a cut connection.
func aborted(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler {
			t.Errorf("panicked with %v", cause)
		}
	}()
	f()
}

// TestAccessLog: one line for each request, in which nothing that a client
// sends can make another.
func TestAccessLog(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent(content(1000))
	var out bytes.Buffer
	s := newService(e, func(c *Config) {
		c.Log = slog.New(slog.NewJSONHandler(&out, nil))
		c.Resolve = func(path, _ string) (string, error) { return ResolveImages(path, "") }
	})
	h := s.Handler(everything)
	do(h, "GET", "/images/img?token=secret", "Authorization", "Bearer secret")
	do(h, "GET", "/images/%0a%7b\"level\":\"ERROR\"}\n"+strings.Repeat("x", 1000))
	do(h, "GET", "/healthz")
	do(h, "GET", "/v1/usage")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 { // downloads only; the rest is for debugging
		t.Fatalf("%d lines:\n%s", len(lines), &out)
	}
	type line struct {
		Msg, Method, Path, Cache string
		Status                   int
		Bytes                    int64
		Aborted                  bool
	}
	var got line
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	if want := (line{"request", "GET", "/images/img", "imgcache; hit", 200, 1000, false}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("a secret is in the log:\n%s", &out)
	}
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil || got.Status != 400 || len(got.Path) > loggedPath {
		t.Errorf("%v: %+v", err, got)
	}
}

// TestPanicFailsOneRequest: the client gets an error, or a cut connection once
// bytes have gone; the log gets the stack.
func TestPanicFailsOneRequest(t *testing.T) {
	e := newEngine()
	var out bytes.Buffer
	s := newService(e, func(c *Config) {
		c.Log, c.Resolve = slog.New(slog.NewJSONHandler(&out, nil)), func(string, string) (string, error) { panic("boom") }
	})
	if w := do(s.Handler(everything), "GET", "/images/img"); w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !strings.Contains(out.String(), "metrics_test.go") {
		t.Errorf("no stack in the log:\n%s", &out)
	}
	late := s.observe(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("some"))
		panic("boom")
	}))
	aborted(t, func() { do(late, "GET", "/images/img") })
}
