// Package journal is the record log: what a driver has still to be told, on
// disk before it is sent, and numbered so that a batch that is sent twice
// counts once.
package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Journal is the record log: what the driver has still to be told, on disk
// before it is sent. Its file holds one checked line per step. A torn or
// damaged line ends the log. An operation goes through three places:
//
//	fresh    in memory, since the last flush, which is at most a second ago
//	pending  on disk, not yet part of a batch; operations of one id merge
//	sent     the batch on its way to the driver; it never changes
//
// Merging bounds the log by the number of images, however long the driver is
// away.
type Journal struct {
	fs    store.FS
	path  string
	older string // where an older program has the log; empty: nowhere

	// mu guards what follows. The index takes it under its own mutex.
	mu      sync.Mutex
	fresh   opSet
	kick    chan struct{} // a put or delete wants to be sent soon
	pending opSet
	sent    *sdk.Batch
	source  string     // "": the file was not read yet
	seq     uint64     // of the newest batch
	file    store.File // used by the recorder's goroutine only
	size    int64
	least   int64 // what size was when the file was last written anew
}

// line is one step in the journal's file.
type line struct {
	Source string   `json:"source,omitempty"` // begins a log: the batches have this source
	Seq    uint64   `json:"seq,omitempty"`    // with source: the newest batch; with send: its number; with ack: as sent
	Pend   []opLine `json:"pend,omitempty"`   // operations to be sent some time
	Send   []opLine `json:"send,omitempty"`   // a batch; its ids leave the pending set
	Ack    bool     `json:"ack,omitempty"`    // the driver has the batch Seq
}

// opLine is an operation in the journal's file. Times are Unix nanoseconds.
type opLine struct {
	Kind     sdk.OpKind `json:"k"`
	ID       string     `json:"i"`
	Version  string     `json:"v,omitempty"`
	Size     int64      `json:"s,omitempty"`
	Hits     uint64     `json:"h,omitempty"`
	Accessed int64      `json:"a,omitempty"`
	Modified int64      `json:"m,omitempty"`
}

func toLines(ops []sdk.Op) []opLine {
	if len(ops) == 0 {
		return nil
	}
	lines := make([]opLine, len(ops))
	for i, op := range ops {
		e := op.Entry
		lines[i] = opLine{op.Kind, e.ID, e.Version, e.Size, e.Hits, unixNano(e.LastAccessed), unixNano(e.LastModified)}
	}
	return lines
}

func fromLines(lines []opLine) []sdk.Op {
	ops := make([]sdk.Op, len(lines))
	for i, l := range lines {
		ops[i] = sdk.Op{Kind: l.Kind, Entry: sdk.Entry{
			ID: l.ID, Version: l.Version, Size: l.Size, Hits: l.Hits,
			LastAccessed: fromUnixNano(l.Accessed), LastModified: fromUnixNano(l.Modified),
		}}
	}
	return ops
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

const (
	// compactAt is the length of the file above which it is rewritten when
	// nothing is left to send: large enough that a busy second does not
	// rewrite, small enough to read at start in no time.
	compactAt = 256 << 10
	// compactBy is how many times as long as its shortest form the file of a
	// driver that is away becomes before it is rewritten.
	compactBy = 4
	// maxBatchOps keeps a batch well below the message limit of a driver:
	// an operation is at most half a KiB.
	maxBatchOps = 10000
)

// Path returns where the record log of a driver is, in a directory.
func Path(dir, driver string) string {
	if driver == "" {
		return path.Join(dir, "records.log")
	}
	return path.Join(dir, "records-"+strings.TrimPrefix(driver, "driver.")+".log")
}

// New returns the record log that is in path, or will be. What happens
// is noted from now on; the first flush reads what the file holds.
//
// Older is where an older program has the log, which is taken over; empty:
// nowhere.
func New(fsys store.FS, path, older string) *Journal {
	return &Journal{fs: fsys, path: path, older: older, kick: make(chan struct{}, 1)}
}

// Hurried returns a channel that receives when a put or delete waits to be
// sent.
func (j *Journal) Hurried() <-chan struct{} { return j.kick }

// open reads the file, unless that is done, or begins one. Nothing is written
// over a file that cannot be read.
func (j *Journal) open() error {
	if j.file != nil {
		return nil
	}
	if err := j.Load(); err != nil {
		return err
	}
	return j.rewrite()
}

// Load reads the file, unless that is done. It writes nothing, but for taking
// an older program's file over.
func (j *Journal) Load() error {
	j.mu.Lock()
	read := j.source != ""
	j.mu.Unlock()
	if read {
		return nil
	}
	data, err := lines.ReadFile(j.fs, "journal.read", j.path)
	if errors.Is(err, fs.ErrNotExist) && j.older != "" {
		if err = j.fs.Rename("journal.adopt", j.older, j.path); err == nil {
			data, err = lines.ReadFile(j.fs, "journal.read", j.path)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read record log: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.replay(data)
	if j.source == "" {
		j.source, j.seq = newSourceID(), 0
	}
	return nil
}

// OnItsWay returns the batch that the driver has not acknowledged; nil: there
// is none.
func (j *Journal) OnItsWay() *sdk.Batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sent
}

func newSourceID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// replay rebuilds the state from the file's bytes, up to the first line that
// is not whole.
func (j *Journal) replay(data []byte) {
	for len(data) > 0 {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		var l line
		if !whole || !lines.Parse(text, &l) {
			return
		}
		data = rest
		switch {
		case l.Source != "":
			j.source, j.seq, j.sent, j.pending = l.Source, l.Seq, nil, opSet{}
		case l.Send != nil:
			ops := fromLines(l.Send)
			j.seq, j.sent = l.Seq, &sdk.Batch{Source: j.source, Seq: l.Seq, Ops: ops}
			for _, op := range ops {
				j.pending.remove(op.Entry.ID)
			}
		case l.Ack && j.sent != nil && j.sent.Seq == l.Seq:
			j.sent = nil
		}
		for _, op := range fromLines(l.Pend) {
			j.pending.add(op)
		}
	}
}

// Put notes that an image was stored. Put, Delete and Touch are called under the
// index's mutex, which gives the operations their order.
func (j *Journal) Put(e sdk.Entry) { j.note(sdk.Put(e), true) }

// Delete notes that an image is gone: see [Journal.Put].
func (j *Journal) Delete(id string) { j.note(sdk.Delete(id), true) }

// Touch notes hits, which may be none, and the last access of an image: see
// [Journal.Put].
func (j *Journal) Touch(id string, hits uint64, at time.Time) { j.note(sdk.Touch(id, hits, at), false) }

func (j *Journal) note(op sdk.Op, soon bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fresh.add(op)
	if soon {
		select {
		case j.kick <- struct{}{}:
		default:
		}
	}
}

// Save writes what is fresh to the file, so that a kill of the host does not
// lose it. After an error nothing is lost: the next save writes it.
func (j *Journal) Save() error {
	_, err := j.write(false)
	return err
}

// Flush is save, makes what waits the next batch when none is on its way, and
// returns the batch to send; nil: there is none.
func (j *Journal) Flush() (*sdk.Batch, error) { return j.write(true) }

func (j *Journal) write(form bool) (*sdk.Batch, error) {
	j.leaveLost()
	if err := j.open(); err != nil {
		return nil, err
	}
	j.mu.Lock()
	sent, fresh := j.sent, j.fresh
	j.fresh = opSet{}
	for _, op := range fresh.ops() {
		j.pending.add(op)
	}
	var batch *sdk.Batch
	if ops := j.pending.take(maxBatchOps); form && sent == nil && len(ops) > 0 {
		batch = &sdk.Batch{Source: j.source, Seq: j.seq + 1, Ops: ops}
		for _, op := range ops {
			fresh.remove(op.Entry.ID) // written as part of the batch
		}
	}
	j.mu.Unlock()

	l := line{Pend: toLines(fresh.ops())}
	if batch != nil {
		l.Seq, l.Send = batch.Seq, toLines(batch.Ops)
	}
	if l.Pend == nil && l.Send == nil {
		return sent, nil
	}
	if err := j.append(l, batch != nil); err != nil {
		return sent, fmt.Errorf("write record log: %w", err)
	}
	if batch == nil {
		return sent, j.shorten()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, op := range batch.Ops {
		j.pending.remove(op.Entry.ID)
	}
	j.seq, j.sent = batch.Seq, batch
	return batch, nil
}

// leaveLost closes the file when its name does not lead to it any more, because
// somebody else took it away: it is written anew then.
func (j *Journal) leaveLost() {
	if j.file == nil {
		return
	}
	ours, err := j.file.Stat()
	if err != nil {
		return
	}
	named, err := j.fs.Lstat("journal.lstat", j.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, named) {
		j.file.Close()
		j.file = nil
	}
}

// Acknowledge drops the batch that the driver has. The file is told lazily:
// a batch that is sent twice does no harm.
func (j *Journal) Acknowledge() error {
	j.mu.Lock()
	seq := j.sent.Seq
	j.sent = nil
	idle := j.pending.len() == 0
	j.mu.Unlock()
	if idle && j.size > compactAt {
		return j.rewrite()
	}
	return j.append(line{Ack: true, Seq: seq}, false)
}

// Restart begins a new source, under which everything that is not
// acknowledged will be sent again. It is called when the driver does not know
// the old one, so that it cannot have applied the batch on its way.
func (j *Journal) Restart() error {
	j.mu.Lock()
	j.source, j.seq = newSourceID(), 0
	if j.sent != nil {
		later := j.pending
		j.pending = opSet{}
		for _, op := range slices.Concat(j.sent.Ops, later.ops()) {
			j.pending.add(op)
		}
		j.sent = nil
	}
	j.mu.Unlock()
	return j.rewrite()
}

// Begin drops what the log holds and begins a new source. The next flush writes
// it in place of the file. It is called by the recorder's goroutine.
func (j *Journal) Begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.source, j.seq = newSourceID(), 0
	j.fresh, j.pending, j.sent = opSet{}, opSet{}, nil
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

// Gather makes what was told since begin a part of what is written at once in
// place of the file, lest a kill leave half of it.
func (j *Journal) Gather() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, op := range j.fresh.ops() {
		j.pending.add(op)
	}
	j.fresh = opSet{}
}

// Unsaid is what a driver has still to be told of an image.
type Unsaid struct {
	Hits    uint64
	Any     bool
	Renewed bool // that its record is new, or gone
}

// Unacknowledged returns what the driver is not known to have learnt of id. The
// batch on its way is left out: nobody asks while there is one.
func (j *Journal) Unacknowledged(id string) (u Unsaid) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, set := range []opSet{j.fresh, j.pending} {
		for _, op := range set.byID[id] {
			u.Any = true
			if op.Kind == sdk.OpTouch {
				u.Hits += op.Entry.Hits
			} else {
				u.Renewed = true
			}
		}
	}
	return u
}

// Images returns the number of images of which the driver has still to learn.
func (j *Journal) Images() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pending.len()
}

// Unsent returns the number of operations that the driver has not
// acknowledged.
func (j *Journal) Unsent() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.fresh.len() + j.pending.len()
	if j.sent != nil {
		n += len(j.sent.Ops)
	}
	return n
}

func (j *Journal) append(l line, sync bool) error {
	if err := j.open(); err != nil {
		return err
	}
	b := lines.Append(nil, l)
	_, err := j.file.Write(b)
	if err == nil && sync {
		err = j.file.Sync()
	}
	if err != nil {
		// What the file holds now is not known; it is written anew before
		// anything is added.
		j.file.Close()
		j.file = nil
		return err
	}
	j.size += int64(len(b))
	return nil
}

// rewrite replaces the file by the shortest one with the same meaning.
func (j *Journal) rewrite() error {
	j.mu.Lock()
	source, seq, sent, pending := j.source, j.seq, j.sent, j.pending.ops()
	j.mu.Unlock() // writing a hundred thousand takes longer than a hit may wait
	if sent != nil {
		seq--
	}
	b := lines.Append(nil, line{Source: source, Seq: seq})
	if sent != nil {
		b = lines.Append(b, line{Seq: sent.Seq, Send: toLines(sent.Ops)})
	}
	if len(pending) > 0 {
		b = lines.Append(b, line{Pend: toLines(pending)})
	}
	file, err := lines.ReplaceFile(j.fs, "journal", j.path, b)
	if err != nil {
		return fmt.Errorf("rewrite record log: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size, j.least = file, int64(len(b)), int64(len(b))
	return nil
}

// shorten rewrites the file when it has become much longer than it need be, as
// that of a driver that is away does second by second.
func (j *Journal) shorten() error {
	if j.size < compactAt || j.size < compactBy*j.least {
		return nil
	}
	return j.rewrite()
}

// Close ends the use of the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// Discard ends the use of the file and removes it.
func (j *Journal) Discard() error {
	err := j.Close()
	if gone := j.fs.Remove("journal.remove", j.path); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// Logs are the record logs of the drivers that have to learn what happens, that
// of the driver in use first.
type Logs []*Journal

// Put is [Journal.Put] of each log.
// Put is [Journal.Put] of each log.
func (l Logs) Put(e sdk.Entry) {
	for _, j := range l {
		j.Put(e)
	}
}

// Delete is [Journal.Delete] of each log.
// Delete is [Journal.Delete] of each log.
func (l Logs) Delete(id string) {
	for _, j := range l {
		j.Delete(id)
	}
}

// Touch is [Journal.Touch] of each log.
// Touch is [Journal.Touch] of each log.
func (l Logs) Touch(id string, hits uint64, at time.Time) {
	for _, j := range l {
		j.Touch(id, hits, at)
	}
}
