// Package journal is the record log: the operations that a driver was not told
// yet. They are on disk before they are sent, and numbered, so that a batch that
// is sent twice counts once.
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

// Journal is the record log of a driver: the operations that it was not told yet,
// on disk before they are sent. Its file holds one checked line per step. A torn
// or damaged line ends the log. An operation goes through three places:
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
	older string // where an older program kept the log; empty: nowhere

	// mu guards what follows. The index takes it under its own mutex.
	mu      sync.Mutex
	fresh   opSet
	kick    chan struct{} // receives when a put or delete is to be sent soon
	pending opSet
	sent    *sdk.Batch
	source  string     // "": the file was not read yet
	seq     uint64     // number of the newest batch
	file    store.File // used by the recorder's goroutine only
	size    int64
	least   int64 // what size was when the file was last rewritten
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
	// compactAt is the length in bytes above which the file is rewritten when
	// nothing is left to send: so large that a busy second does not cause a
	// rewrite, and so small that the file is read at once at the start.
	compactAt = 256 << 10
	// compactBy says when the file is rewritten while the driver is away: when
	// it is so many times as long as after the last rewrite.
	compactBy = 4
	// maxBatchOps keeps a batch well below the message limit of a driver:
	// an operation is at most half a KiB.
	maxBatchOps = 10000
)

// Path returns the path of the record log of a driver in a directory.
func Path(dir, driver string) string {
	if driver == "" {
		return path.Join(dir, "records.log")
	}
	return path.Join(dir, "records-"+strings.TrimPrefix(driver, "driver.")+".log")
}

// New returns the record log in the file path, which need not exist yet. It takes
// operations from now on; the first flush reads the file.
//
// older is the file in which an older program kept the log. If path does not
// exist, that file is renamed to it. Empty: there is none.
func New(fsys store.FS, path, older string) *Journal {
	return &Journal{fs: fsys, path: path, older: older, kick: make(chan struct{}, 1)}
}

// Hurried returns a channel that receives when a put or delete waits to be
// sent.
func (j *Journal) Hurried() <-chan struct{} { return j.kick }

// open reads the file, unless that was done, and rewrites it. A file that cannot
// be read is not overwritten.
func (j *Journal) open() error {
	if j.file != nil {
		return nil
	}
	if err := j.Load(); err != nil {
		return err
	}
	return j.rewrite()
}

// Load reads the file, unless that was done. It writes nothing, but may rename the
// file of an older program.
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
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, lines.ErrTooLarge) { // it is written anew then
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

// OnItsWay returns the batch that was sent and not acknowledged, or nil.
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

// replay rebuilds the state from the file's bytes, up to the first line that is
// torn or damaged.
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

// Put adds an operation that stores a record. Put, Delete and Touch are called
// under the index's mutex, which gives the operations their order.
func (j *Journal) Put(e sdk.Entry) { j.note(sdk.Put(e), true) }

// Delete adds an operation that deletes a record: see [Journal.Put].
func (j *Journal) Delete(id string) { j.note(sdk.Delete(id), true) }

// Touch adds an operation that adds hits, possibly none, to a record and sets its
// last access: see [Journal.Put].
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

// Save writes the fresh operations to the file, so that a kill of the host does
// not lose them. After an error nothing is lost: the next call writes them.
func (j *Journal) Save() error {
	_, err := j.write(false)
	return err
}

// Flush does what Save does, makes a batch of waiting operations if none is on its
// way, and returns the batch to send, or nil.
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

// leaveLost closes the file if it no longer has its name because another program
// removed or replaced it. Then it is written again.
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

// Acknowledge drops the batch on its way, which the driver has applied. That is
// written without a sync, because a batch that is sent twice does no harm.
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

// Restart begins a new source, under which everything that is not acknowledged
// will be sent again. It is called when the driver does not know the old source,
// and so cannot have applied the batch on its way.
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

// Begin drops what the log holds and begins a new source. The next flush replaces
// the file. The recorder's goroutine calls it.
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

// Gather makes the operations since [Journal.Begin] pending, so that the next
// flush writes them together when it replaces the file. Otherwise a kill could
// leave a part of them.
func (j *Journal) Gather() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, op := range j.fresh.ops() {
		j.pending.add(op)
	}
	j.fresh = opSet{}
}

// Unsaid says which operations of an image a driver was not told yet.
type Unsaid struct {
	Hits    uint64 // the sum of the hits in them
	Any     bool   // there are operations
	Renewed bool   // among them is a put or delete
}

// Unacknowledged returns what the driver was not told about id yet. It leaves out
// the batch on its way, because nobody asks while there is one.
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

// Images returns the number of images with pending operations.
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
		// It is not known what the file holds now, so it is rewritten before
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
	j.mu.Unlock() // to write a hundred thousand operations takes longer than a hit may wait
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

// shorten rewrites the file if it has become much longer than necessary. While the
// driver is away it grows each second.
func (j *Journal) shorten() error {
	if j.size < compactAt || j.size < compactBy*j.least {
		return nil
	}
	return j.rewrite()
}

// Close closes the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// Discard closes the file and removes it.
func (j *Journal) Discard() error {
	err := j.Close()
	if gone := j.fs.Remove("journal.remove", j.path); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// Logs are the record logs of the drivers that have to learn what happens. That of
// the driver in use is the first.
type Logs []*Journal

// Put calls [Journal.Put] of each log.
func (l Logs) Put(e sdk.Entry) {
	for _, j := range l {
		j.Put(e)
	}
}

// Delete calls [Journal.Delete] of each log.
func (l Logs) Delete(id string) {
	for _, j := range l {
		j.Delete(id)
	}
}

// Touch calls [Journal.Touch] of each log.
func (l Logs) Touch(id string, hits uint64, at time.Time) {
	for _, j := range l {
		j.Touch(id, hits, at)
	}
}
