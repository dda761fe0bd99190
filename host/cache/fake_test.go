package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// fakeOrigin has one image and every bad habit.
type fakeOrigin struct {
	mu      sync.Mutex
	rng     *rand.Rand
	data    []byte
	version string
	size    bool // announce the size
	digest  bool // declare SHA-256
	corrupt bool // send a wrong byte
	down    bool
	cuts    int // transfers still to be broken off, somewhere
	cutAt   int // break the next one off here
	opens   int // transfers from the start
	active  int
	most    int    // active at once
	sent    int    // bytes
	blamed  int    // transfers, for wrong bytes
	asked   int    // Stats and Opens
	missing string // a pattern of the names that it does not have
	trickle string // a pattern of the names of which a byte comes in a second
	flows   int    // after so many bytes at the usual rate
	terms   origin.Terms
	gate    chan struct{} // Open waits until it is closed; nil: it does not
}

func (o *fakeOrigin) Name() string        { return "fake" }
func (o *fakeOrigin) Terms() origin.Terms { return o.terms }

func (o *fakeOrigin) ByID(id string) (origin.Origin, string, error) { return o, id, nil }

func (o *fakeOrigin) Learn(string, string) {}

func (o *fakeOrigin) NameOf(id string) string { return id }

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 8)) }

// setDown lets the origin go away, or come back.
func (o *fakeOrigin) setDown(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = down
}

func (o *fakeOrigin) object() origin.Object {
	obj := origin.Object{Version: o.version, ETag: o.version, Size: -1, URL: "fake://image"}
	if o.size {
		obj.Size = int64(len(o.data))
	}
	if o.digest {
		sum := sha256.Sum256(o.data)
		obj.Digests = []origin.Digest{{Algorithm: "sha256", Sum: sum[:]}}
		obj.Version = fmt.Sprintf("sha256:%x", sum)
	}
	return obj
}

// matches reports whether a name follows a pattern, if there is one.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return pattern != "" && ok && err == nil
}

func (o *fakeOrigin) Stat(_ context.Context, name string) (origin.Object, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	switch {
	case matches(o.missing, name):
		return origin.Object{}, origin.ErrNotFound
	case o.down:
		return origin.Object{}, origin.ErrUnavailable
	}
	return o.object(), nil
}

func (o *fakeOrigin) Open(ctx context.Context, r origin.Request) (origin.Object, io.ReadCloser, error) {
	if o.gate != nil {
		<-o.gate
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	obj := o.object()
	switch {
	case matches(o.missing, r.Name):
		return origin.Object{}, nil, origin.ErrNotFound
	case o.down:
		return origin.Object{}, nil, origin.ErrUnavailable
	case r.Version != "" && r.Version != obj.Version:
		return origin.Object{}, nil, origin.ErrChanged
	case r.Offset == 0 && r.Length < 0:
		o.opens++
	}
	b := &fakeBody{ctx: ctx, o: o, cut: -1, flows: -1, rest: o.data[min(r.Offset, int64(len(o.data))):]}
	if matches(o.trickle, r.Name) {
		b.flows = o.flows
	}
	if r.Length >= 0 {
		b.rest = b.rest[:min(r.Length, int64(len(b.rest)))]
	}
	if o.corrupt && len(b.rest) > 0 {
		b.rest = append([]byte(nil), b.rest...)
		b.rest[o.rng.IntN(len(b.rest))] ^= 1
	}
	if o.cuts > 0 && len(b.rest) > 0 {
		o.cuts--
		b.cut = o.rng.IntN(len(b.rest))
	}
	if o.cutAt > 0 {
		b.cut, o.cutAt = o.cutAt, 0
	}
	o.active++
	o.most = max(o.most, o.active)
	return obj, b, nil
}

// fakeBody is a slow stream that may break off.
type fakeBody struct {
	ctx    context.Context
	o      *fakeOrigin
	rest   []byte
	cut    int // bytes until it breaks off; -1: never
	flows  int // bytes until it trickles; -1: it never does
	closed bool
}

func (b *fakeBody) Read(p []byte) (n int, err error) {
	defer func() {
		b.o.mu.Lock()
		defer b.o.mu.Unlock()
		b.o.sent += n
	}()
	b.o.mu.Lock()
	n, pause := min(1+b.o.rng.IntN(400<<10), len(p), len(b.rest)), time.Duration(b.o.rng.IntN(200))*time.Millisecond
	b.o.mu.Unlock()
	switch {
	case b.flows == 0:
		n, pause = 1, time.Second
	case b.flows > 0:
		n = min(n, b.flows)
		b.flows -= n
	}
	select {
	case <-time.After(pause):
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
	if b.cut >= 0 && b.cut <= n {
		n := copy(p, b.rest[:b.cut])
		b.cut, b.rest = 0, nil
		return n, fmt.Errorf("%w: cut", origin.ErrUnavailable)
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	copy(p, b.rest[:n])
	b.rest = b.rest[n:]
	if b.cut >= 0 {
		b.cut -= n
	}
	return n, nil
}

// Wrong implements [origin.Suspect].
func (b *fakeBody) Wrong() {
	b.o.mu.Lock()
	defer b.o.mu.Unlock()
	b.o.blamed++
}

func (b *fakeBody) Close() error {
	b.o.mu.Lock()
	defer b.o.mu.Unlock()
	if b.closed {
		return errors.New("body closed twice")
	}
	b.closed = true
	b.o.active--
	return nil
}

// flakyFS fails now and then, and wholly after a crash.
type flakyFS struct {
	store.FS
	mu      sync.Mutex
	rng     *rand.Rand
	odds    int                 // one operation in odds fails; 0: none
	open    map[*flakyFile]bool // nil: none yet
	crashed atomic.Bool
	free    atomic.Pointer[func() int64] // nil: that of the file system
	stuck   atomic.Value                 // string: the renames of this call site fail
	rotten  atomic.Int64                 // images cannot be read beyond so many bytes; 0: they can

	readOnly atomic.Bool  // nothing can be made or renamed
	listed   atomic.Int64 // directories that were listed
	looked   atomic.Int64 // files that were looked at
}

func (f *flakyFS) ReadDir(op, name string) ([]fs.DirEntry, error) {
	f.listed.Add(1)
	return f.FS.ReadDir(op, name)
}

func (f *flakyFS) Lstat(op, name string) (fs.FileInfo, error) {
	f.looked.Add(1)
	return f.FS.Lstat(op, name)
}

func (f *flakyFS) Free(op string) (int64, error) {
	if free := f.free.Load(); free != nil {
		return (*free)(), nil
	}
	return f.FS.Free(op)
}

func (f *flakyFS) Check(op string) error {
	if f.readOnly.Load() {
		return syscall.EROFS
	}
	return f.FS.Check(op)
}

// setOdds lets one operation in odds fail; 0: none.
func (f *flakyFS) setOdds(odds int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.odds = odds
}

func (f *flakyFS) fault() error {
	if f.crashed.Load() {
		return errors.New("the machine is gone")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.odds > 0 && f.rng.IntN(f.odds) == 0 {
		return []error{syscall.ENOSPC, syscall.EIO, syscall.EDQUOT}[f.rng.IntN(3)]
	}
	return nil
}

func (f *flakyFS) OpenFile(op, name string, flag int, perm fs.FileMode) (store.File, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	if f.readOnly.Load() && flag&os.O_CREATE != 0 {
		return nil, syscall.EROFS
	}
	file, err := f.FS.OpenFile(op, name, flag, perm)
	if err != nil {
		return nil, err
	}
	flaky := &flakyFile{file, f, op, name}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[*flakyFile]bool{}
	}
	f.open[flaky] = true
	return flaky, nil
}

// leftOpen returns what is open, as storetest.FS.LeftOpen does.
func (f *flakyFS) leftOpen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for file := range f.open {
		names = append(names, file.op+" "+file.name)
	}
	slices.Sort(names)
	return names
}

func (f *flakyFS) Rename(op, a, b string) error {
	if err := f.fault(); err != nil {
		return err
	}
	if op == f.stuck.Load() {
		return syscall.EROFS
	}
	return f.FS.Rename(op, a, b)
}

func (f *flakyFS) Link(op, a, b string) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.FS.Link(op, a, b)
}

func (f *flakyFS) Remove(op, name string) error {
	if f.crashed.Load() {
		return errors.New("the machine is gone")
	}
	return f.FS.Remove(op, name)
}

type flakyFile struct {
	store.File
	f        *flakyFS
	op, name string
}

func (f *flakyFile) Close() error {
	f.f.mu.Lock()
	delete(f.f.open, f)
	f.f.mu.Unlock()
	return f.File.Close()
}

func (f *flakyFile) ReadAt(p []byte, off int64) (int, error) {
	if from := f.f.rotten.Load(); from > 0 && f.op == "image" && off+int64(len(p)) >= from {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

func (f *flakyFile) Write(p []byte) (int, error) {
	if err := f.f.fault(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // as a full disk does
		return n, err
	}
	return f.File.Write(p)
}

func (f *flakyFile) Sync() error {
	if err := f.f.fault(); err != nil {
		return err
	}
	return f.File.Sync()
}

// Lock passes on what the store wants of its lock file.
func (f *flakyFile) Lock() error { return f.File.(interface{ Lock() error }).Lock() }
