package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers on a unix socket and returns a client for it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "ic") // short: t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with ErrServerClosed
	}()
	c := New(socket)
	t.Cleanup(func() {
		c.Close()
		_ = server.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return c
}

// requests are the calls of a client: what each sends, is answered and returns.
var requests = []struct {
	name, want, answer string
	call               func(ctx context.Context, c *Client) (any, error)
	check              any
}{
	{"images", "GET /v1/images ", `{"images":[{"id":"x"}]}`, func(ctx context.Context, c *Client) (any, error) {
		l, err := c.Images(ctx)
		return len(l), err
	}, 1},
	{"image", "GET /v1/images/a%252Fb ", `{"id":"a%2Fb","state":"cached"}`, func(ctx context.Context, c *Client) (any, error) {
		i, err := c.Image(ctx, "a%2Fb")
		return i.State, err
	}, cache.StateCached},
	{"delete", "DELETE /v1/images/x ", ``, func(ctx context.Context, c *Client) (any, error) { return nil, c.Delete(ctx, "x") }, nil},
	{"delete all", "DELETE /v1/images ", `{"deleted":7}`, func(ctx context.Context, c *Client) (any, error) { return c.DeleteAll(ctx) }, 7},
	{"queue", "PUT /v1/queue/x ", `{"queued":true}`, func(ctx context.Context, c *Client) (any, error) { return c.Queue(ctx, "x") }, true},
	{"queued", "GET /v1/queue ", `{"queue":["b","a"],"entries":[{"id":"b","tries":2},{"id":"a"}]}`, func(ctx context.Context, c *Client) (any, error) {
		q, err := c.Queued(ctx)
		return [2]cache.QueueEntry(q), err
	}, [2]cache.QueueEntry{{ID: "b", Tries: 2}, {ID: "a"}}},
	{"retry queued", "POST /v1/queue ", `{"queued":3}`, func(ctx context.Context, c *Client) (any, error) { return c.RetryQueued(ctx) }, 3},
	{"unqueue all", "DELETE /v1/queue ", `{"deleted":2}`, func(ctx context.Context, c *Client) (any, error) { return c.UnqueueAll(ctx) }, 2},
	{"pins", "GET /v1/pins ", `{"pins":[{"id":"x","from":"a request","cached":true}]}`, func(ctx context.Context, c *Client) (any, error) {
		p, err := c.Pins(ctx)
		return p[0], err
	}, cache.PinInfo{Pin: cache.Pin{ID: "x", From: "a request"}, Cached: true}},
	{"pin", "PUT /v1/pins/x {}", `{"id":"x"}`, func(ctx context.Context, c *Client) (any, error) {
		return c.Pin(ctx, "x", time.Time{})
	}, cache.PinInfo{Pin: cache.Pin{ID: "x"}}},
	{"pin until", `PUT /v1/pins/x {"until":"2027-01-31T18:00:00Z"}`, `{}`, func(ctx context.Context, c *Client) (any, error) {
		return c.Pin(ctx, "x", time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC))
	}, cache.PinInfo{}},
	{"unpin", "DELETE /v1/pins/x ", ``, func(ctx context.Context, c *Client) (any, error) { return nil, c.Unpin(ctx, "x") }, nil},
	{"usage", "GET /v1/usage ", `{"bytes":5}`, func(ctx context.Context, c *Client) (any, error) {
		u, err := c.Usage(ctx)
		return u.Bytes, err
	}, int64(5)},
	{"victims", "GET /v1/victims?limit=3 ", `{"victims":[{"id":"x"}]}`, func(ctx context.Context, c *Client) (any, error) {
		v, err := c.Victims(ctx, 3)
		return len(v), err
	}, 1},
	{"prune", `POST /v1/prune {"max_size":0,"dry_run":true}`, `{"files":1,"bytes":2}`, func(ctx context.Context, c *Client) (any, error) {
		return c.Prune(ctx, cache.PruneOptions{MaxSize: new(int64(0)), DryRun: true})
	}, cache.Result{Files: 1, Bytes: 2}},
	{"clean", `POST /v1/clean {"stall_time":90}`, `{"files":1,"bytes":2}`, func(ctx context.Context, c *Client) (any, error) { return c.Clean(ctx, new(90*time.Second)) }, cache.Result{Files: 1, Bytes: 2}},
	{"clean by default", `POST /v1/clean {}`, `{}`, func(ctx context.Context, c *Client) (any, error) { return c.Clean(ctx, nil) }, cache.Result{}},
	{"schedules", "GET /v1/schedules ", `{"schedules":[{"name":"nightly","running":true}]}`, func(ctx context.Context, c *Client) (any, error) {
		s, err := c.Schedules(ctx)
		return s[0].Name, err
	}, "nightly"},
	{"policies", "GET /v1/policies ", `{"policies":[{"name":"candidate","hits":9}]}`, func(ctx context.Context, c *Client) (any, error) {
		r, err := c.Policies(ctx)
		return r.Policies[0].Hits, err
	}, uint64(9)},
	{"plugins", "GET /v1/plugins ", `{"plugins":[{"name":"lru","pid":9}]}`, func(ctx context.Context, c *Client) (any, error) {
		p, err := c.Plugins(ctx)
		return p[0].PID, err
	}, 9},
}

func TestRequests(t *testing.T) {
	for _, tc := range requests {
		t.Run(tc.name, func(t *testing.T) {
			sent := make(chan string, 1)
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				sent <- r.Method + " " + r.RequestURI + " " + string(body)
				_, _ = io.WriteString(w, tc.answer)
			})
			got, err := tc.call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.check {
				t.Errorf("got %v, want %v", got, tc.check)
			}
			if got := <-sent; got != tc.want {
				t.Errorf("sent %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	for status, want := range map[int]error{
		404: cache.ErrNotFound, 401: ErrDenied, 403: ErrDenied,
		409: cache.ErrConflict, 422: cache.ErrVerify, 507: cache.ErrNoSpace,
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error": "no such thing"}`)
		})
		_, err := c.Usage(t.Context())
		if !errors.Is(err, want) || err.Error() != "no such thing" {
			t.Errorf("%d: %v, want %v", status, err, want)
		}
	}
}

func TestAnswersThatAreNotOurs(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) })
	if _, err := c.Usage(t.Context()); err == nil || err.Error() != "the service answers 502 Bad Gateway" {
		t.Errorf("%v", err)
	}
	c = serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	if _, err := c.Usage(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v, want %v", err, ErrUnreachable)
	}
}

func TestUnreachable(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "none"))
	defer c.Close()
	if _, err := c.Usage(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.socket) {
		t.Errorf("%v, want %v and the socket's path", err, ErrUnreachable)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Usage(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}
