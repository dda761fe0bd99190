package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// drainTimeout is how long the old driver may take for the operations that
	// wait for it. Its record log keeps those that it does not take.
	drainTimeout = 10 * time.Second
	// moveTimeout is how long the new driver may fail before the move is given
	// up: a plugin that was killed is back within a second, and a database has
	// failed over within a minute.
	moveTimeout = time.Minute
	// moveRounds is how often the move begins again because the driver has lost
	// what it had.
	moveRounds = 3
	// maxDifferences bounds how many wrong records a report lists.
	maxDifferences = 20
)

// The failures of a migration that callers act on.
var (
	// ErrMoving says that another migration is running.
	ErrMoving = errors.New("the records are being moved already")
	// ErrDifferent says that records that were read back are wrong.
	ErrDifferent = errors.New("verification failed")
)

// Target is the driver to which records are moved.
type Target struct {
	Name   string // how the configuration refers to it
	Driver sdk.Driver
	// Bare says that it cannot store versions, times of commit and the numbers
	// of batches, as Glance's tables cannot.
	Bare bool
	// DryRun reports what would be done, and does nothing.
	DryRun bool
}

// Progress says how far a migration is.
type Progress struct {
	To      string    `json:"to"`
	Phase   string    `json:"phase"`   // "draining", "listing", "sending" or "verifying"
	Records int       `json:"records"` // that the driver has acknowledged
	Total   int       `json:"total"`
	Error   string    `json:"error,omitempty"` // why the current step is being tried again
	Started time.Time `json:"started"`
}

// Report says what a migration did.
type Report struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Configured is the driver of the configuration, which a restart uses.
	Configured string `json:"configured"`

	Records  int    `json:"records"`  // one for each image
	Hits     uint64 `json:"hits"`     // of all images
	Replaced int    `json:"replaced"` // of the records, those that replace an older one in To
	Removed  int    `json:"removed"`  // older records in To without an image
	Verified int    `json:"verified"` // records that were read back and are right
	Moved    bool   `json:"moved"`    // To keeps the records from now on
	Unsent   int    `json:"unsent"`   // changes that From did not take; its record log keeps them
	DryRun   bool   `json:"dry_run,omitempty"`

	Differences []index.Difference `json:"differences,omitempty"` // the first wrong records
	Different   int                `json:"different"`             // number of wrong records
}

// move is a request to move the records to another driver.
type move struct {
	ctx    context.Context
	to     *loggedDriver
	dry    bool
	report *Report
	done   chan<- error // buffered
}

// Migrate moves the records to another driver and uses it from then on. tell is
// called with the progress regularly, and what is returned with an error says how
// far the migration came. See Cache.Migrate for the whole contract.
func (r *Recorder) Migrate(ctx context.Context, to Target, tell func(Progress)) (Report, error) {
	k := &loggedDriver{name: to.Name, driver: to.Driver, bare: to.Bare, journal: r.home.journal}
	if r.home.name != to.Name {
		k.journal = journal.New(r.fs, journal.Path(r.dir, to.Name), "")
	}
	return r.moveTo(ctx, k, to.DryRun, tell)
}

// moveTo makes the recorder's goroutine move the records, and waits for it.
func (r *Recorder) moveTo(ctx context.Context, to *loggedDriver, dry bool, tell func(Progress)) (Report, error) {
	if !r.migrating.TryLock() {
		return Report{}, ErrMoving
	}
	defer r.migrating.Unlock()
	report := Report{From: r.inUse.Load().name, To: to.name, Configured: r.home.name, DryRun: dry}
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
	tick := time.NewTicker(FlushEvery / 4)
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

// knowRecords waits until the index has the records of the driver in use, since
// unknown records cannot be moved. It gives up soon if the driver fails, but not if
// the driver merely has many records.
func (r *Recorder) knowRecords(ctx context.Context) error {
	for {
		limited, cancel := context.WithTimeout(ctx, drainTimeout)
		err := r.WhenMerged(limited)
		cancel()
		switch why := r.Why(); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case why != "":
			return fmt.Errorf("%w: the records of %s are not known yet: %s", sdk.ErrUnavailable, r.inUse.Load().name, why)
		}
	}
}

// WhenMerged waits until the driver's records are merged. The error is that of the
// context.
func (r *Recorder) WhenMerged(ctx context.Context) error {
	select {
	case <-r.Merged:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// move carries out a migration. After drain the old driver is not called meanwhile.
func (r *Recorder) move(m move) error {
	r.moved.Store(&Progress{To: m.to.name, Phase: "draining", Total: r.index.Count(), Started: r.now()})
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

// drain sends the waiting operations to the old driver, if it answers.
func (r *Recorder) drain(m move) {
	ctx, cancel := context.WithTimeout(m.ctx, drainTimeout)
	defer cancel()
	err := r.step(ctx)
	if errors.Is(err, sdk.ErrInvalid) { // it did not know the source; step has begun a new one
		err = r.step(ctx)
	}
	if m.ctx.Err() == nil {
		r.report(err)
	}
	m.report.Unsent = r.Unsent()
}

// fill replaces the records of the new driver by those of all images, and checks
// that it has them.
func (r *Recorder) fill(m move) error {
	for round := 1; ; round++ {
		older, err := r.older(m)
		if err != nil {
			return fmt.Errorf("list the records of %s: %w", m.to.name, err)
		}
		m.report.Records, m.report.Hits, m.report.Replaced, m.report.Removed = r.index.Outline(older)
		if m.dry {
			return nil
		}
		r.index.Retell(m.to.journal, older)
		err = r.deliver(m)
		if errors.Is(err, sdk.ErrInvalid) && round < moveRounds {
			r.log.Warn("the driver lost its data while records were moved to it; the move begins again", "driver", m.to.name, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("send records to %s: %w", m.to.name, err)
		}
		return r.verify(m)
	}
}

// older returns the ids of the records that the new driver has.
func (r *Recorder) older(m move) ([]string, error) {
	r.phase("listing")
	var ids []string
	err := r.insist(m.ctx, listTimeout, func(ctx context.Context) error {
		ids = nil
		return m.to.driver.List(ctx, func(entries []sdk.Entry) error {
			for _, e := range entries {
				if sdk.ValidID(e.ID) { // other records are not ours
					ids = append(ids, e.ID)
				}
			}
			return nil
		})
	})
	return ids, err
}

// deliver sends the record log until the driver has everything that was in it at
// the beginning. Images may come and go meanwhile.
func (r *Recorder) deliver(m move) error {
	r.phase("sending")
	for left := m.to.journal.Images(); left > 0; {
		batch, err := m.to.journal.Flush()
		if err != nil || batch == nil {
			return err
		}
		err = r.insist(m.ctx, applyTimeout, func(ctx context.Context) error { return m.to.driver.Apply(ctx, *batch) })
		if err == nil {
			err = m.to.journal.Acknowledge()
		}
		if err != nil {
			return err
		}
		left -= images(batch.Ops)
		r.progress(func(p *Progress) { p.Records = max(0, p.Total-max(0, left)) })
	}
	return nil
}

// images returns how many images the operations are for. The operations of an image
// stand together.
func images(ops []sdk.Op) (n int) {
	for i, op := range ops {
		if i == 0 || op.Entry.ID != ops[i-1].Entry.ID {
			n++
		}
	}
	return n
}

// verify reads the records back and compares them with the index.
func (r *Recorder) verify(m move) error {
	r.phase("verifying")
	want := r.index.Expect(m.to.journal)
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
	wrong := r.index.Differences(want, got, m.to.journal, m.to.bare)
	m.report.Verified, m.report.Different = max(0, len(want)-len(wrong)), len(wrong)
	m.report.Differences = wrong[:min(len(wrong), maxDifferences)]
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %d records of %s are wrong, the first is that of %s: %s", ErrDifferent, len(wrong), m.to.name, wrong[0].ID, wrong[0].Reason)
	}
	return nil
}

// insist repeats a call, with pauses, until it succeeds, the driver refuses it, or
// it has failed for moveTimeout.
func (r *Recorder) insist(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	begun, pause := r.now(), FlushEvery/10
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
			r.progress(func(p *Progress) { p.Error = "" })
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case r.now().Sub(begun) > moveTimeout:
			return err
		}
		r.progress(func(p *Progress) { p.Error = err.Error() })
		r.rest(ctx, pause)
		pause = min(2*pause, maxPause)
	}
}

func (r *Recorder) phase(name string) { r.progress(func(p *Progress) { p.Phase = name }) }

// progress changes the progress of the migration.
func (r *Recorder) progress(change func(*Progress)) {
	p := *r.moved.Load()
	change(&p)
	r.moved.Store(&p)
}

// unmove forgets a driver to which the records were not moved. Its record log is
// removed, unless it is the driver of the configuration, whose log is complete.
func (r *Recorder) unmove(k *loggedDriver) error {
	if k.journal == r.home.journal || !slices.Contains(r.index.Logs(), k.journal) {
		return nil
	}
	r.index.TellOnly(r.inUse.Load().journal, r.home.journal)
	return k.journal.Discard()
}

// use makes a driver that has all records the one in use.
func (r *Recorder) use(k *loggedDriver) {
	before := r.inUse.Swap(k)
	r.index.TellOnly(k.journal, r.home.journal)
	if before.journal != r.home.journal {
		if err := before.journal.Close(); err != nil {
			r.log.Warn("could not close the record log", "driver", before.name, "error", err)
		}
	}
	r.listed = true
	r.waiting.Store(nil)
	r.report(nil)
	r.last.write(r.complete())
}
