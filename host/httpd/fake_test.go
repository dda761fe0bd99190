package httpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/sdk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var modified = time.Date(2026, 3, 4, 5, 6, 7, 800, time.UTC)

// fakeContent is an image in memory.
type fakeContent struct {
	data    []byte
	info    cache.ImageInfo
	etag    string
	modTime time.Time
	outcome cache.Outcome

	// step runs before each write of at most block bytes at off; its error
	// ends CopyTo.
	block int
	step  func(ctx context.Context, off int64) error

	file *os.File // if set, has the data, and is sent unread

	copies int
	closed bool
}

func newContent(data string) *fakeContent {
	return &fakeContent{
		data:    []byte(data),
		info:    cache.ImageInfo{State: cache.StateCached, Size: int64(len(data)), SHA256: strings.Repeat("ab", 32), Verified: true},
		etag:    `"v1"`,
		modTime: modified,
		outcome: cache.Outcome{Hit: true},
		block:   1 << 20,
		step:    func(context.Context, int64) error { return nil },
	}
}

func (c *fakeContent) Info() cache.ImageInfo  { return c.info }
func (c *fakeContent) ETag() string           { return c.etag }
func (c *fakeContent) ModTime() time.Time     { return c.modTime }
func (c *fakeContent) Outcome() cache.Outcome { return c.outcome }
func (c *fakeContent) Close() error           { c.closed = true; return nil }

func (c *fakeContent) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	c.copies++
	end := int64(len(c.data))
	if n >= 0 {
		end = off + n
	}
	if c.file != nil {
		if _, err := c.file.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
		return w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: c.file, N: end - off})
	}
	pos := off
	for pos < end {
		if err := c.step(ctx, pos); err != nil {
			return pos - off, err
		}
		m, err := w.Write(c.data[pos:min(end, pos+int64(c.block))])
		pos += int64(m)
		if err != nil {
			return pos - off, err
		}
	}
	return pos - off, nil
}

// failAt makes CopyTo fail with err before the byte at off.
func (c *fakeContent) failAt(off int64, err error) *fakeContent {
	c.step = func(_ context.Context, pos int64) error {
		if pos >= off {
			return err
		}
		return nil
	}
	c.block = int(max(off, 1))
	return c
}

type fakeWrite struct {
	cache.WriteOptions
	data []byte
}

// fakeEngine is a cache of fakeContents, in all its roles. Once fail is set,
// every method that can fail does.
type fakeEngine struct {
	mu     sync.Mutex
	fail   error
	images map[string]*fakeContent
	queue  []string
	pins   map[string]time.Time
	writes map[string]*fakeWrite
	calls  []string // of methods that change or transfer something

	pruned  cache.PruneOptions
	cleaned *time.Duration
	limit   int
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func newEngine() *fakeEngine {
	return &fakeEngine{images: map[string]*fakeContent{}, pins: map[string]time.Time{}, writes: map[string]*fakeWrite{}}
}

func (e *fakeEngine) check(id string) error {
	if e.fail != nil {
		return e.fail
	}
	if !idPattern.MatchString(id) || id == "incomplete" || id == "queue" {
		return fmt.Errorf("%w: %.20q", cache.ErrBadID, id)
	}
	return nil
}

func (e *fakeEngine) begin(call, id string) (*fakeContent, func(), error) {
	e.mu.Lock()
	if call != "" {
		e.calls = append(e.calls, call+" "+id)
	}
	if err := e.check(id); err != nil {
		return nil, e.mu.Unlock, err
	}
	return e.images[id], e.mu.Unlock, nil
}

func (e *fakeEngine) open(call, id string) (cache.Content, error) {
	c, end, err := e.begin(call, id)
	defer end()
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, fmt.Errorf("image %q: %w", id, cache.ErrNotFound)
	}
	return c, nil
}

func (e *fakeEngine) Open(ctx context.Context, id string) (cache.Content, error) {
	return e.open(fresh(ctx)+"open", id)
}

// fresh is a word for requests that want the origin asked.
func fresh(ctx context.Context) string {
	if cache.WantsFresh(ctx) {
		return "fresh "
	}
	return ""
}

func (e *fakeEngine) OpenCached(_ context.Context, id string) (cache.Content, error) {
	return e.open("open cached", id)
}

func (e *fakeEngine) Stat(ctx context.Context, id string) (cache.Content, error) {
	return e.open(fresh(ctx)+"stat", id)
}

func (e *fakeEngine) Images() []cache.ImageInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	var infos []cache.ImageInfo
	for id, c := range e.images {
		info := c.info
		info.ID = id
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b cache.ImageInfo) int { return strings.Compare(a.ID, b.ID) })
	return infos
}

func (e *fakeEngine) Image(id string) (cache.ImageInfo, error) {
	c, end, err := e.begin("", id)
	defer end()
	if err != nil {
		return cache.ImageInfo{}, err
	}
	if c == nil {
		return cache.ImageInfo{ID: id, State: cache.StateAbsent}, nil
	}
	info := c.info
	info.ID = id
	return info, nil
}

func (e *fakeEngine) Delete(_ context.Context, id string) error {
	_, end, err := e.begin("delete", id)
	defer end()
	if err == nil {
		delete(e.images, id)
	}
	return err
}

func (e *fakeEngine) Refresh(ctx context.Context, id string) (cache.ImageInfo, error) {
	if _, err := e.open("refresh", id); err != nil {
		return cache.ImageInfo{}, err
	}
	return e.Image(id)
}

func (e *fakeEngine) DeleteAll(context.Context) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.images)
	clear(e.images)
	return n, e.fail
}

func (e *fakeEngine) Queue(id string) (bool, error) {
	c, end, err := e.begin("queue", id)
	defer end()
	if err != nil || c != nil || slices.Contains(e.queue, id) {
		return false, err
	}
	e.queue = append(e.queue, id)
	return true, nil
}

func (e *fakeEngine) Queued() (entries []cache.QueueEntry, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range e.queue {
		entries = append(entries, cache.QueueEntry{ID: id})
	}
	if len(entries) > 1 {
		entries[0].Tries, entries[0].Error, entries[0].Next = 3, "away", modified
		entries[1].Running = true
	}
	return entries, e.fail
}

func (e *fakeEngine) RetryQueued() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.queue), e.fail
}

func (e *fakeEngine) Unqueue(id string) error {
	_, end, err := e.begin("unqueue", id)
	defer end()
	e.queue = slices.DeleteFunc(e.queue, func(q string) bool { return q == id })
	return err
}

func (e *fakeEngine) UnqueueAll() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.queue)
	e.queue = nil
	return n, e.fail
}

func (e *fakeEngine) Pins() []cache.PinInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	var pins []cache.PinInfo
	for id, until := range e.pins {
		pins = append(pins, e.pin(id, until))
	}
	slices.SortFunc(pins, func(a, b cache.PinInfo) int { return strings.Compare(a.ID, b.ID) })
	return pins
}

func (e *fakeEngine) pin(id string, until time.Time) cache.PinInfo {
	return cache.PinInfo{Pin: cache.Pin{ID: id, Until: until, From: "a request"}, Cached: e.images[id] != nil}
}

func (e *fakeEngine) Pin(id string, until time.Time) (cache.PinInfo, error) {
	_, end, err := e.begin("pin", id)
	defer end()
	switch {
	case err != nil:
		return cache.PinInfo{}, err
	case !until.IsZero() && until.Before(modified):
		return cache.PinInfo{}, fmt.Errorf("%w: it would have ended", sdk.ErrInvalid)
	}
	e.pins[id] = until
	return e.pin(id, until), nil
}

func (e *fakeEngine) Unpin(id string) error {
	_, end, err := e.begin("unpin", id)
	defer end()
	if id == "gold" {
		return fmt.Errorf("%w: image %q is pinned by the configuration", cache.ErrConflict, id)
	}
	delete(e.pins, id)
	return err
}

func (e *fakeEngine) Fills() []cache.FillInfo {
	return []cache.FillInfo{{ID: "new", Phase: "streaming", Size: 9, Written: 3, Rate: 2, Clients: 1, Started: modified}}
}

// Verify has two blocks of each image to read; one of the image "bad" is bad,
// and after one of the image "slow" the context has to end.
func (e *fakeEngine) Verify(ctx context.Context, ids []string, tell func(cache.ScrubProgress)) (cache.ScrubReport, error) {
	if e.fail != nil {
		return cache.ScrubReport{}, e.fail
	}
	r := cache.ScrubReport{Bad: []cache.Finding{}, Unread: []cache.Finding{}}
	for i, id := range ids {
		for block := range 2 {
			tell(cache.ScrubProgress{ID: id, Images: i, Total: len(ids), Bytes: int64(2*i + block + 1), TotalBytes: int64(2 * len(ids)), Started: modified})
			switch {
			case id == "slow":
				<-ctx.Done()
				return r, context.Cause(ctx)
			case id == "dying":
				return r, errors.New("the service is stopping")
			}
		}
		r.Bytes += 2
		if id == "bad" {
			r.Bad = append(r.Bad, cache.Finding{ID: id, Reason: "block 1"})
		} else {
			r.Images++
		}
	}
	return r, nil
}

func (e *fakeEngine) Usage() cache.Usage {
	return cache.Usage{Bytes: 1234, MaxBytes: 5678, Limit: "hard", Images: len(e.Images()), Records: "ready", Unsent: 7, Hits: 11, Misses: 5, Disk: "ok"}
}

func (e *fakeEngine) Victims(_ context.Context, limit int) ([]cache.Victim, error) {
	e.limit = limit
	return nil, e.fail
}

func (e *fakeEngine) Prune(_ context.Context, o cache.PruneOptions) (cache.Result, error) {
	e.pruned = o
	return cache.Result{Files: 3, Bytes: 300}, e.fail
}

func (e *fakeEngine) Clean(_ context.Context, stall *time.Duration) (cache.Result, error) {
	e.cleaned = stall
	return cache.Result{Files: 1, Bytes: 10}, e.fail
}

func (e *fakeEngine) BeginWrite(_ context.Context, o cache.WriteOptions) (cache.WriteStatus, error) {
	c, end, err := e.begin("write", o.ID)
	defer end()
	if err != nil {
		return cache.WriteStatus{}, err
	}
	if c != nil {
		return cache.WriteStatus{}, fmt.Errorf("%w: image %q is cached", cache.ErrConflict, o.ID)
	}
	name := "w" + o.ID
	e.writes[name] = &fakeWrite{WriteOptions: o}
	return cache.WriteStatus{Write: name, Expires: modified}, nil
}

// write finds a write under the mutex.
func (e *fakeEngine) write(name string) (*fakeWrite, error) {
	if e.fail != nil {
		return nil, e.fail
	}
	w := e.writes[name]
	if w == nil {
		return nil, fmt.Errorf("write %.40q: %w", name, cache.ErrNotFound)
	}
	return w, nil
}

func (e *fakeEngine) WriteData(_ context.Context, name string, offset int64, r io.Reader) (cache.WriteStatus, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w, err := e.write(name)
	if err != nil {
		return cache.WriteStatus{}, err
	}
	at := int64(len(w.data))
	if offset >= 0 && offset != at {
		return cache.WriteStatus{Write: name, Offset: at}, fmt.Errorf("%w: the write is at %d", cache.ErrConflict, at)
	}
	data, err := io.ReadAll(r)
	w.data = append(w.data, data...)
	if err != nil {
		err = fmt.Errorf("read data: %w", err)
	}
	return cache.WriteStatus{Write: name, Offset: int64(len(w.data))}, err
}

func (e *fakeEngine) WriteState(name string) (cache.WriteStatus, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w, err := e.write(name)
	if err != nil {
		return cache.WriteStatus{}, err
	}
	return cache.WriteStatus{Write: name, Offset: int64(len(w.data)), Expires: modified}, nil
}

func (e *fakeEngine) CommitWrite(_ context.Context, name string) (cache.ImageInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w, err := e.write(name)
	if err != nil {
		return cache.ImageInfo{}, err
	}
	delete(e.writes, name)
	if w.Size != nil && *w.Size != int64(len(w.data)) {
		return cache.ImageInfo{}, fmt.Errorf("%w: %d bytes, not %d", cache.ErrVerify, len(w.data), *w.Size)
	}
	c := newContent(string(w.data))
	c.info.ID = w.ID
	e.images[w.ID] = c
	return c.info, nil
}

func (e *fakeEngine) AbortWrite(_ context.Context, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := e.write(name)
	delete(e.writes, name)
	return err
}

// newService makes a service of e, with what change sets further.
func newService(e *fakeEngine, change ...func(*Config)) *Service {
	c := Config{Downloads: e, Images: e, Queue: e, Pins: e, Upkeep: e, Writes: e, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	return New(c)
}

// everything serves all faces to everybody.
var everything = Faces{Images: true, Admin: true, Trusted: true}

// start runs Serve with the faces of a service over e until the test ends, and
// returns the address.
func start(t *testing.T, h http.Handler, o Limits) string {
	t.Helper()
	ln, err := ListenTCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if o.DrainTimeout == 0 {
		o.DrainTimeout = 10 * time.Millisecond // what still runs then is meant to
	}
	go func() { ended <- Serve(ctx, ln, h, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "requests were cut") {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// talk sends request over a connection of its own and returns all that comes
// back before it ends.
func talk(t *testing.T, address, request string) (string, error) {
	t.Helper()
	c := dial(t, address)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// dial connects; a peer that hangs fails the test instead of hanging it.
func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// errTest is an error that no table knows.
var errTest = errors.New("secret path /var/lib/x")

func content(n int) string { return string(bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]) }
