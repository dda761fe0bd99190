package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// drainTimeout is how long the driver that is left may take for what waits
	// for it. Its record log keeps what it does not take.
	drainTimeout = 10 * time.Second
	// moveTimeout is how long the driver to which records move may fail before
	// that is given up: a plugin that was killed is back within a second, and
	// a database has failed over.
	moveTimeout = time.Minute
	// moveRounds is how often the move begins anew because the driver has lost
	// what it had.
	moveRounds = 3
	// maxDifferences bounds what is told of records that are not right.
	maxDifferences = 20
)

// Target is the driver to which records are moved.
type Target struct {
	Name   string // how the configuration refers to it
	Driver sdk.Driver
	// Bare says that its records have neither versions, nor times of commit of
	// their own, nor a place for the number of a batch, as those of Glance.
	Bare bool
	// DryRun asks only what would be done.
	DryRun bool
}

// MigrateProgress is how far a migration is.
type MigrateProgress struct {
	To      string    `json:"to"`
	Phase   string    `json:"phase"`   // "draining", "listing", "sending" or "verifying"
	Records int       `json:"records"` // that the driver has acknowledged
	Total   int       `json:"total"`
	Error   string    `json:"error,omitempty"` // what is being tried again
	Started time.Time `json:"started"`
}

// MigrateReport says what a migration did.
type MigrateReport struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Configured is the driver with which a restart goes on.
	Configured string `json:"configured"`

	Records  int    `json:"records"`  // one for each image
	Hits     uint64 `json:"hits"`     // of all images
	Replaced int    `json:"replaced"` // of the records, those of which To had an older one
	Removed  int    `json:"removed"`  // older records in To without an image
	Verified int    `json:"verified"` // records that were read back and are right
	Moved    bool   `json:"moved"`    // To keeps the records from now on
	Unsent   int    `json:"unsent"`   // changes that From did not take; its record log keeps them
	DryRun   bool   `json:"dry_run,omitempty"`

	Differences []Difference `json:"differences,omitempty"` // records that are not right, the first ones
	Different   int          `json:"different"`             // their number
}

// Difference is a record that is not as it should be.
type Difference struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// move is a request to keep the records with another driver from now on.
type move struct {
	ctx    context.Context
	to     *keeper
	dry    bool
	report *MigrateReport
	done   chan<- error // buffered
}

// Migrate moves the records to another driver and goes on with it, while images
// are served. What the driver had before is replaced. It calls tell now and
// then, and returns when every record was read back and compared; the records
// are with the new driver then, and only then. After an error nothing has
// changed, but for what is in the store of the new driver, and the next call
// begins anew.
//
// The record log of the driver of the configuration is kept on, as if that
// driver were away: a restart with it misses nothing.
func (c *Cache) Migrate(ctx context.Context, to Target, tell func(MigrateProgress)) (MigrateReport, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(errStopped) })()
	k := &keeper{name: to.Name, driver: to.Driver, bare: to.Bare}
	if k.log = c.recorder.home.log; c.recorder.home.name != to.Name {
		k.log = newJournal(c.store.FS(), logPath(c.store.PrivateDir(), to.Name))
	}
	return c.recorder.migrate(ctx, k, to.DryRun, tell)
}

// migrate has the recorder's goroutine move the records.
func (r *recorder) migrate(ctx context.Context, to *keeper, dry bool, tell func(MigrateProgress)) (MigrateReport, error) {
	if !r.migrating.TryLock() {
		return MigrateReport{}, fmt.Errorf("%w: the records are being moved already", ErrConflict)
	}
	defer r.migrating.Unlock()
	report := MigrateReport{From: r.inUse.Load().name, To: to.name, Configured: r.home.name, DryRun: dry}
	if to.name == report.From {
		return report, fmt.Errorf("%w: %s keeps the records already", sdk.ErrInvalid, to.name)
	}
	if err := r.knowRecords(ctx); err != nil {
		return report, err
	}
	done := make(chan error, 1)
	select {
	case r.moves <- move{ctx: ctx, to: to, dry: dry, report: &report, done: done}:
	case <-ctx.Done():
		return report, context.Cause(ctx)
	}
	tick := time.NewTicker(flushEvery / 4)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return report, err
		case <-tick.C:
			if p := r.moved.Load(); p != nil {
				tell(*p)
			}
		}
	}
}

// knowRecords waits until the index has the records of the driver in use: what
// is not known cannot be moved. A driver that fails is not waited for as long as
// one that has many.
func (r *recorder) knowRecords(ctx context.Context) error {
	for {
		limited, cancel := context.WithTimeout(ctx, drainTimeout)
		err := until(limited, r.merged)
		cancel()
		switch why := r.why(); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case why != "":
			return fmt.Errorf("%w: the records of %s are not known yet: %s", sdk.ErrUnavailable, r.inUse.Load().name, why)
		}
	}
}

// Migration returns how far the move of the records to another driver is; nil:
// they do not move.
func (c *Cache) Migration() *MigrateProgress { return c.recorder.moved.Load() }

// RecordsWith returns the name of the driver that keeps the records.
func (c *Cache) RecordsWith() string { return c.recorder.inUse.Load().name }

// move carries out a migration. The driver that is left is not called meanwhile.
func (r *recorder) move(m move) error {
	r.moved.Store(&MigrateProgress{To: m.to.name, Phase: "draining", Total: r.index.len(), Started: r.now()})
	defer r.moved.Store(nil)
	r.drain(m)
	err := r.fill(m)
	if err != nil || m.dry {
		return errors.Join(err, r.unmove(m.to))
	}
	r.use(m.to)
	m.report.Moved = true
	r.log.Info("the records have moved", "from", m.report.From, "to", m.report.To, "records", m.report.Records)
	return nil
}

// drain sends what waits to the driver that is left, if that answers.
func (r *recorder) drain(m move) {
	ctx, cancel := context.WithTimeout(m.ctx, drainTimeout)
	defer cancel()
	err := r.step(ctx)
	if errors.Is(err, sdk.ErrInvalid) { // it had lost its place, which is mended
		err = r.step(ctx)
	}
	if m.ctx.Err() == nil {
		r.report(err)
	}
	m.report.Unsent = r.unsent()
}

// fill brings all records to the driver, in place of those that it has, and
// checks that they are there.
func (r *recorder) fill(m move) error {
	for round := 1; ; round++ {
		older, err := r.older(m)
		if err != nil {
			return fmt.Errorf("list the records of %s: %w", m.to.name, err)
		}
		*m.report = r.index.outline(*m.report, older)
		if m.dry {
			return nil
		}
		r.index.retell(m.to.log, older)
		err = r.deliver(m)
		if errors.Is(err, sdk.ErrInvalid) && round < moveRounds {
			r.log.Warn("the driver has lost its place while records moved to it; beginning anew", "driver", m.to.name, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("send records to %s: %w", m.to.name, err)
		}
		return r.verify(m)
	}
}

// older returns the ids of the records that the driver has.
func (r *recorder) older(m move) ([]string, error) {
	r.phase("listing")
	var ids []string
	err := r.insist(m.ctx, listTimeout, func(ctx context.Context) error {
		ids = nil
		return m.to.driver.List(ctx, func(entries []sdk.Entry) error {
			for _, e := range entries {
				if sdk.ValidID(e.ID) { // else it is not ours to speak of
					ids = append(ids, e.ID)
				}
			}
			return nil
		})
	})
	return ids, err
}

// deliver sends the record log until the driver has everything that was in it
// at first. What happens meanwhile goes on happening.
func (r *recorder) deliver(m move) error {
	r.phase("sending")
	for left := m.to.log.images(); left > 0; {
		batch, err := m.to.log.flush()
		if err != nil || batch == nil {
			return err
		}
		err = r.insist(m.ctx, applyTimeout, func(ctx context.Context) error { return m.to.driver.Apply(ctx, *batch) })
		if err == nil {
			err = m.to.log.acknowledge()
		}
		if err != nil {
			return err
		}
		left -= images(batch.Ops)
		r.progress(func(p *MigrateProgress) { p.Records = max(0, p.Total-max(0, left)) })
	}
	return nil
}

// images returns of how many images operations are. Those of one stand together.
func images(ops []sdk.Op) (n int) {
	for i, op := range ops {
		if i == 0 || op.Entry.ID != ops[i-1].Entry.ID {
			n++
		}
	}
	return n
}

// verify reads the records back and compares them with the index.
func (r *recorder) verify(m move) error {
	r.phase("verifying")
	want := r.index.expect(m.to.log)
	var got map[string]sdk.Entry
	err := r.insist(m.ctx, listTimeout, func(ctx context.Context) error {
		got = map[string]sdk.Entry{}
		return m.to.driver.List(ctx, func(entries []sdk.Entry) error {
			for _, e := range entries {
				got[e.ID] = e
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read the records of %s back: %w", m.to.name, err)
	}
	wrong := r.index.differences(want, got, m.to)
	m.report.Verified, m.report.Different = max(0, len(want)-len(wrong)), len(wrong)
	m.report.Differences = wrong[:min(len(wrong), maxDifferences)]
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %d records of %s are not right, among them %s: %s", ErrVerify, len(wrong), m.to.name, wrong[0].ID, wrong[0].Reason)
	}
	return nil
}

// insist repeats a call with pauses until it succeeds, the driver refuses it,
// or it has failed for long.
func (r *recorder) insist(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	begun, pause := r.now(), flushEvery/10
	for {
		if err := r.save(); err != nil {
			return err
		}
		err := r.whileLogging(func() error {
			limited, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			return call(limited)
		})
		switch {
		case err == nil, errors.Is(err, sdk.ErrInvalid):
			r.progress(func(p *MigrateProgress) { p.Error = "" })
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case r.now().Sub(begun) > moveTimeout:
			return err
		}
		r.progress(func(p *MigrateProgress) { p.Error = err.Error() })
		r.rest(ctx, pause)
		pause = min(2*pause, maxPause)
	}
}

func (r *recorder) phase(name string) { r.progress(func(p *MigrateProgress) { p.Phase = name }) }

// progress changes what is told of the migration.
func (r *recorder) progress(change func(*MigrateProgress)) {
	p := *r.moved.Load()
	change(&p)
	r.moved.Store(&p)
}

// unmove forgets a driver to which the records did not move. The log of the
// driver of the configuration is kept, since it is complete.
func (r *recorder) unmove(k *keeper) error {
	if k.log == r.home.log || !slices.Contains(r.index.logs(), k.log) {
		return nil
	}
	r.index.tellOnly(r.inUse.Load().log, r.home.log)
	return k.log.discard()
}

// use goes on with a driver that has all records.
func (r *recorder) use(k *keeper) {
	before := r.inUse.Swap(k)
	r.index.tellOnly(k.log, r.home.log)
	if before.log != r.home.log {
		if err := before.log.close(); err != nil {
			r.log.Warn("close record log", "driver", before.name, "error", err)
		}
	}
	r.listed = true
	r.waiting.Store(nil)
	r.report(nil)
	r.mark.write(r.complete())
}

// tellOnly has these record logs told what happens, and no others.
func (x *index) tellOnly(inUse, home *journal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.log = slices.Compact(logs{inUse, home})
}

// retellAtOnce is how many images are looked at before others may use the index:
// a millisecond or two.
const retellAtOnce = 1000

// retell begins a record log anew, with the records of all images and their
// full hits, and has it told from now on what happens. Each record is deleted
// before it is put, since a driver keeps the hits of one that it has; so are
// older ones that have no image. It is called by the recorder's goroutine,
// which writes nothing of it meanwhile.
func (x *index) retell(j *journal, older []string) {
	x.mu.Lock()
	j.begin()
	if !slices.Contains(x.log, j) {
		x.log = append(x.log, j)
	}
	ids := slices.AppendSeq(older, maps.Keys(x.images))
	x.mu.Unlock()
	slices.Sort(ids)
	for some := range slices.Chunk(slices.Compact(ids), retellAtOnce) {
		x.mu.Lock()
		for _, id := range some {
			j.delete(id) // and whatever else was told of it
			if im := x.images[id]; im != nil {
				j.put(im.entry())
			}
		}
		x.mu.Unlock()
	}
	j.gather()
}

// outline says in a report what is to be moved.
func (x *index) outline(r MigrateReport, older []string) MigrateReport {
	x.mu.Lock()
	defer x.mu.Unlock()
	r.Records, r.Hits, r.Replaced, r.Removed = len(x.images), 0, 0, 0
	for _, im := range x.images {
		r.Hits += im.hits
	}
	for _, id := range older {
		if x.images[id] != nil {
			r.Replaced++
		} else {
			r.Removed++
		}
	}
	return r
}

// expectation is what the record of an image must be: the entry, but for what
// the driver has still to be told.
type expectation struct {
	im     *image
	entry  sdk.Entry
	unsent unsaid
}

// expect returns what a driver must have, by its record log, of which no batch
// is on its way.
func (x *index) expect(j *journal) map[string]expectation {
	x.mu.Lock()
	defer x.mu.Unlock()
	want := make(map[string]expectation, len(x.images))
	for id, im := range x.images {
		want[id] = expectation{im, im.entry(), j.unacknowledged(id)}
	}
	return want
}

// differences compares the records that a driver has with what it must have,
// and returns those that are wrong by id.
func (x *index) differences(want map[string]expectation, got map[string]sdk.Entry, k *keeper) []Difference {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []Difference
	for id, e := range want {
		if e.unsent.renewed || x.images[id] != e.im {
			continue // it has come or gone since the driver was told
		}
		if have, ok := got[id]; !ok && k.bare && !glanceID(id) {
			continue
		} else if !ok {
			list = append(list, Difference{id, "there is no record"})
		} else if why := e.compare(have, k.bare); why != "" {
			list = append(list, Difference{id, why})
		}
	}
	for id := range got {
		if sdk.ValidID(id) && x.images[id] == nil && want[id].im == nil && !k.log.unacknowledged(id).any {
			list = append(list, Difference{id, "there is a record, and no image"})
		}
	}
	slices.SortFunc(list, func(a, b Difference) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// glanceID reports whether an id can be one of Glance, whose tables have no
// place for others.
func glanceID(id string) bool { return len(id) <= 36 && id == strings.ToLower(id) }

// compare says what is wrong with a record, or "". Drivers keep microseconds,
// rounded either way. A bare one may keep seconds, and may have counted a batch
// twice. A last access may be later, where whoever reads the file moves it.
func (e expectation) compare(have sdk.Entry, bare bool) string {
	hits, least := e.entry.Hits-e.unsent.hits, time.Microsecond
	if bare {
		least = time.Second
	}
	switch {
	case have.Version != e.entry.Version && !bare:
		return fmt.Sprintf("version %q, want %q", have.Version, e.entry.Version)
	case have.Size != e.entry.Size:
		return fmt.Sprintf("size %d, want %d", have.Size, e.entry.Size)
	case have.Hits < hits, have.Hits > hits && !bare:
		return fmt.Sprintf("%d hits, want %d", have.Hits, hits)
	case !e.unsent.any && have.LastAccessed.Before(e.entry.LastAccessed.Add(-least)):
		return fmt.Sprintf("last access %v, want %v", have.LastAccessed, e.entry.LastAccessed)
	case !bare && have.LastModified.Sub(e.entry.LastModified).Abs() > time.Microsecond:
		return fmt.Sprintf("cached at %v, want %v", have.LastModified, e.entry.LastModified)
	}
	return ""
}
