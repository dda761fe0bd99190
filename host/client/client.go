// Package client speaks the native API of a running service over its admin
// socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/imgcache/imgcache-host/host/shadow"
)

var (
	// ErrUnreachable says that nothing answers on the socket.
	ErrUnreachable = errors.New("the service cannot be reached")
	// ErrDenied says that the caller may not use the socket or the request.
	ErrDenied = errors.New("permission denied")
)

// Error is an answer of the service other than success. It unwraps to the
// error of package cache, or to [ErrDenied], that its status stands for.
type Error struct {
	Status  int    // HTTP status
	Message string // of the service
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns what the status stands for, or nil.
func (e *Error) Unwrap() error {
	switch e.Status {
	case http.StatusNotFound:
		return cache.ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusConflict:
		return cache.ErrConflict
	case http.StatusUnprocessableEntity:
		return cache.ErrVerify
	case http.StatusInsufficientStorage:
		return cache.ErrNoSpace
	default:
		return nil
	}
}

// Client calls one service. It is safe for concurrent use. Every error wraps
// [ErrUnreachable], [ErrDenied] or an [*Error], or is that of the context.
type Client struct {
	socket string
	dial   func(context.Context) (net.Conn, error)
	http   *http.Client
}

// New returns a client for the service behind a unix socket. It connects with
// the first call.
func New(socket string) *Client {
	dialer := net.Dialer{Timeout: 5 * time.Second} // a local socket answers at once or its service hangs
	return Over(socket, func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", socket) })
}

// Over returns a client for the service that dial connects to. Errors call the
// service by the name.
func Over(name string, dial func(context.Context) (net.Conn, error)) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	return &Client{socket: name, dial: dial, http: &http.Client{Transport: transport}}
}

// Ping connects and hangs up. The error says why no service can be reached.
func (c *Client) Ping(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	return conn.Close()
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Images returns the images of the cache, ordered by id.
func (c *Client) Images(ctx context.Context) ([]cache.ImageInfo, error) {
	var out struct {
		Images []cache.ImageInfo `json:"images"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/images", nil, &out)
	return out.Images, err
}

// Image returns what the cache knows about one image; its state is
// [cache.StateAbsent] when the cache knows nothing. Here and below an image is given
// by its name, the path on which it is served, or its id.
func (c *Client) Image(ctx context.Context, id string) (cache.ImageInfo, error) {
	var out cache.ImageInfo
	err := c.call(ctx, http.MethodGet, "/v1/images/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Node is a node that holds an image.
type Node struct {
	Name string    `json:"name"`
	URL  string    `json:"url,omitempty"`
	Seen time.Time `json:"seen"`
}

// Nodes lists the nodes that hold an image. It is an error when the driver
// does not keep records for several nodes.
func (c *Client) Nodes(ctx context.Context, id string) ([]Node, error) {
	var out struct {
		Nodes []Node `json:"nodes"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/images/"+url.PathEscape(id)+"/nodes", nil, &out)
	return out.Nodes, err
}

// Refresh has the service ask the origin of an image now, and waits until its
// version is in the cache.
func (c *Client) Refresh(ctx context.Context, id string) (cache.ImageInfo, error) {
	var out cache.ImageInfo
	err := c.call(ctx, http.MethodPost, "/v1/images/"+url.PathEscape(id)+"/refresh", nil, &out)
	return out, err
}

// Delete removes a cached image.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/images/"+url.PathEscape(id), nil, nil)
}

// DeleteAll removes all cached images and returns their number.
func (c *Client) DeleteAll(ctx context.Context) (int, error) { return c.deleteAll(ctx, "/v1/images") }

// Queued returns what is queued, in the order of queueing.
func (c *Client) Queued(ctx context.Context) ([]cache.QueueEntry, error) {
	var out struct {
		Entries []cache.QueueEntry `json:"entries"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/queue", nil, &out)
	return out.Entries, err
}

// Queue asks the service to fetch an image. It reports false when the image is
// cached, being fetched or queued already.
func (c *Client) Queue(ctx context.Context, id string) (bool, error) {
	var out struct {
		Queued bool `json:"queued"`
	}
	err := c.call(ctx, http.MethodPut, "/v1/queue/"+url.PathEscape(id), nil, &out)
	return out.Queued, err
}

// RetryQueued begins to fetch what is queued without waiting for the pauses after
// failed attempts, and returns how many images are queued.
func (c *Client) RetryQueued(ctx context.Context) (int, error) {
	var out struct {
		Queued int `json:"queued"`
	}
	err := c.call(ctx, http.MethodPost, "/v1/queue", nil, &out)
	return out.Queued, err
}

// UnqueueAll empties the queue and returns the number of its entries.
func (c *Client) UnqueueAll(ctx context.Context) (int, error) { return c.deleteAll(ctx, "/v1/queue") }

func (c *Client) deleteAll(ctx context.Context, path string) (int, error) {
	var out struct {
		Deleted int `json:"deleted"`
	}
	err := c.call(ctx, http.MethodDelete, path, nil, &out)
	return out.Deleted, err
}

// Fills returns the progress of the running fills and of the writes of clients, and
// the interrupted fills.
func (c *Client) Fills(ctx context.Context) ([]cache.FillInfo, error) {
	var out struct {
		Fills []cache.FillInfo `json:"fills"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/fills", nil, &out)
	return out.Fills, err
}

// Pins returns the pins in force, ordered by id.
func (c *Client) Pins(ctx context.Context) ([]cache.PinInfo, error) {
	var out struct {
		Pins []cache.PinInfo `json:"pins"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/pins", nil, &out)
	return out.Pins, err
}

// Pin keeps an image from being evicted until a time; the zero time is for
// ever. It returns the pin that lasts longest.
func (c *Client) Pin(ctx context.Context, id string, until time.Time) (cache.PinInfo, error) {
	in := struct {
		Until time.Time `json:"until,omitzero"`
	}{until}
	var out cache.PinInfo
	err := c.call(ctx, http.MethodPut, "/v1/pins/"+url.PathEscape(id), in, &out)
	return out, err
}

// Unpin removes the pin that was set with [Client.Pin]. The error wraps
// [cache.ErrConflict] when the configuration pins the image.
func (c *Client) Unpin(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/pins/"+url.PathEscape(id), nil, nil)
}

// Usage says how full the cache is.
func (c *Client) Usage(ctx context.Context) (cache.Usage, error) {
	var out cache.Usage
	err := c.call(ctx, http.MethodGet, "/v1/usage", nil, &out)
	return out, err
}

// Ready returns what keeps the service from doing all that it is configured to
// do; nothing when all is well.
func (c *Client) Ready(ctx context.Context) ([]string, error) {
	var out struct {
		Reasons []string `json:"reasons"`
	}
	err := c.exchange(ctx, http.MethodGet, "/readyz", nil, &out, http.StatusServiceUnavailable)
	return out.Reasons, err
}

// Victims returns at most limit images that would leave next, in order.
func (c *Client) Victims(ctx context.Context, limit int) ([]cache.Victim, error) {
	var out struct {
		Victims []cache.Victim `json:"victims"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/victims?limit="+strconv.Itoa(limit), nil, &out)
	return out.Victims, err
}

// Prune removes images by the options, and returns what it removed or, in a
// dry run, would remove.
func (c *Client) Prune(ctx context.Context, o cache.PruneOptions) (cache.Result, error) {
	var out cache.Result
	err := c.call(ctx, http.MethodPost, "/v1/prune", o, &out)
	return out, err
}

// Clean removes stalled and invalid files; with a nil stall the configured
// stall_time decides.
func (c *Client) Clean(ctx context.Context, stall *time.Duration) (cache.Result, error) {
	var in struct {
		StallTime *float64 `json:"stall_time,omitempty"`
	}
	if stall != nil {
		seconds := stall.Seconds()
		in.StallTime = &seconds
	}
	var out cache.Result
	err := c.call(ctx, http.MethodPost, "/v1/clean", in, &out)
	return out, err
}

// Plugin is a plugin of the service.
type Plugin = plugin.Status

// Schedules returns the schedules and how they are doing.
func (c *Client) Schedules(ctx context.Context) ([]schedule.Status, error) {
	var out struct {
		Schedules []schedule.Status `json:"schedules"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/schedules", nil, &out)
	return out.Schedules, err
}

// Policies compares the policies that the service tries.
func (c *Client) Policies(ctx context.Context) (shadow.Report, error) {
	var out shadow.Report
	err := c.call(ctx, http.MethodGet, "/v1/policies", nil, &out)
	return out, err
}

// Plugins returns the plugins that the service runs.
func (c *Client) Plugins(ctx context.Context) ([]Plugin, error) {
	var out struct {
		Plugins []Plugin `json:"plugins"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/plugins", nil, &out)
	return out.Plugins, err
}

// Reload makes the service restart a plugin from its file.
func (c *Client) Reload(ctx context.Context, name string) (Plugin, error) {
	var out Plugin
	err := c.call(ctx, http.MethodPost, "/v1/plugins/"+url.PathEscape(name)+"/reload", nil, &out)
	return out, err
}

// Verify makes the service read images and check them, all of them when none
// is named. Tell is called now and then. With an error the report says what was
// found up to then.
func (c *Client) Verify(ctx context.Context, ids []string, tell func(cache.ScrubProgress)) (cache.ScrubReport, error) {
	in := struct {
		IDs []string `json:"ids,omitempty"`
	}{ids}
	return follow[cache.ScrubProgress, cache.ScrubReport](ctx, c, "/v1/verify", in, tell)
}

// Driver returns which driver keeps the records.
func (c *Client) Driver(ctx context.Context) (DriverStatus, error) {
	var out DriverStatus
	err := c.call(ctx, http.MethodGet, "/v1/driver", nil, &out)
	return out, err
}

// DriverStatus says which driver keeps the records.
type DriverStatus struct {
	Driver     string            `json:"driver"`
	Configured string            `json:"configured"` // the one that a restart will use
	Migration  *records.Progress `json:"migration,omitempty"`
}

// MigrateOptions says between which drivers the records move.
type MigrateOptions struct {
	From   string `json:"from,omitempty"` // empty: the one that keeps them
	To     string `json:"to"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// Migrate makes the service move the records to another driver. Tell is called
// now and then.
func (c *Client) Migrate(ctx context.Context, o MigrateOptions, tell func(records.Progress)) (records.Report, error) {
	return follow[records.Progress, records.Report](ctx, c, "/v1/driver/migrate", o, tell)
}

// follow starts long work and reads its progress, a JSON object on each line,
// until the report.
func follow[P, R any](ctx context.Context, c *Client, path string, in any, tell func(P)) (R, error) {
	var report R
	err := c.send(ctx, http.MethodPost, path, in, http.StatusOK, func(answer io.Reader) error {
		for lines := json.NewDecoder(answer); ; {
			var line struct {
				Progress *P     `json:"progress"`
				Report   *R     `json:"report"`
				Error    string `json:"error"`
			}
			if err := lines.Decode(&line); err != nil {
				return err
			}
			if line.Progress != nil {
				tell(*line.Progress)
			}
			if line.Report != nil {
				report = *line.Report
			}
			if line.Error != "" {
				return &Error{Status: http.StatusInternalServerError, Message: line.Error}
			}
			if line.Report != nil {
				return nil
			}
		}
	})
	return report, err
}

// maxAnswer bounds an answer: a million images of 400 bytes each.
const maxAnswer = 400 << 20

// call sends in as JSON if it is not nil, and reads the answer into out if that
// is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	return c.exchange(ctx, method, path, in, out, http.StatusOK)
}

// exchange is call, where the status fine counts as success too.
func (c *Client) exchange(ctx context.Context, method, path string, in, out any, fine int) error {
	return c.send(ctx, method, path, in, fine, func(answer io.Reader) error {
		if out == nil {
			return nil
		}
		return json.NewDecoder(answer).Decode(out)
	})
}

// send sends in as JSON if it is not nil, and calls read with the answer if
// that is a success or has the status fine.
func (c *Client) send(ctx context.Context, method, path string, in any, fine int, read func(io.Reader) error) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://imgcache"+path, body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode >= 300 && resp.StatusCode != fine {
		return failure(resp.StatusCode, answer)
	}
	var failed *Error
	switch err := read(answer); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &failed):
		return err
	default:
		return fmt.Errorf("%w: its answer to %s %s cannot be read: %w", ErrUnreachable, method, path, err)
	}
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w on the admin socket %s", ErrDenied, c.socket)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the rest names the socket again
	}
	return fmt.Errorf("%w on the admin socket %s: %w", ErrUnreachable, c.socket, err)
}

// failure reads the error in an answer. An answer that is not the service's
// JSON, such as one from a proxy in between, becomes an error with its status.
func failure(status int, answer io.Reader) error {
	var body struct {
		Error string `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(answer, 1<<16)).Decode(&body)
	message := strings.TrimSpace(body.Error)
	if err != nil || message == "" {
		message = fmt.Sprintf("the service answers %d %s", status, http.StatusText(status))
	}
	return &Error{Status: status, Message: message}
}
