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

// The failures of a migration that callers act on.
var (
	// ErrMoving says that another migration is under way.
	ErrMoving = errors.New("the records are being moved already")
	// ErrDifferent says that records which were read back are not as they
	// must be.
	ErrDifferent = errors.New("verification failed")
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

// Progress is how far a migration is.
type Progress struct {
	To      string    `json:"to"`
	Phase   string    `json:"phase"`   // "draining", "listing", "sending" or "verifying"
	Records int       `json:"records"` // that the driver has acknowledged
	Total   int       `json:"total"`
	Error   string    `json:"error,omitempty"` // what is being tried again
	Started time.Time `json:"started"`
}

// Report says what a migration did.
type Report struct {
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

	Differences []index.Difference `json:"differences,omitempty"` // records that are not right, the first ones
	Different   int                `json:"different"`             // their number
}

// move is a request to keep the records with another driver from now on.
type move struct {
	ctx    context.Context
	to     *loggedDriver
	dry    bool
	report *Report
	done   chan<- error // buffered
}

// Migrate moves the records to another driver and goes on with it: see
// [Cache.Migrate].
func (r *Recorder) Migrate(ctx context.Context, to Target, tell func(Progress)) (Report, error) {
	k := &loggedDriver{name: to.Name, driver: to.Driver, bare: to.Bare, journal: r.home.journal}
	if r.home.name != to.Name {
		k.journal = journal.New(r.fs, journal.Path(r.dir, to.Name), "")
	}
	return r.moveTo(ctx, k, to.DryRun, tell)
}

// moveTo has the recorder's goroutine move the records.
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

// knowRecords waits until the index has the records of the driver in use: what
// is not known cannot be moved. A driver that fails is not waited for as long as
// one that has many.
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

// WhenMerged returns when the driver's records are merged. The error is the
// context's.
func (r *Recorder) WhenMerged(ctx context.Context) error {
	select {
	case <-r.Merged:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// move carries out a migration. The driver that is left is not called meanwhile.
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

// drain sends what waits to the driver that is left, if that answers.
func (r *Recorder) drain(m move) {
	ctx, cancel := context.WithTimeout(m.ctx, drainTimeout)
	defer cancel()
	err := r.step(ctx)
	if errors.Is(err, sdk.ErrInvalid) { // it had lost its place, which is mended
		err = r.step(ctx)
	}
	if m.ctx.Err() == nil {
		r.report(err)
	}
	m.report.Unsent = r.Unsent()
}

// fill brings all records to the driver, in place of those that it has, and
// checks that they are there.
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
func (r *Recorder) older(m move) ([]string, error) {
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
		return fmt.Errorf("%w: %d records of %s are not right, among them %s: %s", ErrDifferent, len(wrong), m.to.name, wrong[0].ID, wrong[0].Reason)
	}
	return nil
}

// insist repeats a call with pauses until it succeeds, the driver refuses it,
// or it has failed for long.
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

// progress changes what is told of the migration.
func (r *Recorder) progress(change func(*Progress)) {
	p := *r.moved.Load()
	change(&p)
	r.moved.Store(&p)
}

// unmove forgets a driver to which the records did not move. The log of the
// driver of the configuration is kept, since it is complete.
func (r *Recorder) unmove(k *loggedDriver) error {
	if k.journal == r.home.journal || !slices.Contains(r.index.Logs(), k.journal) {
		return nil
	}
	r.index.TellOnly(r.inUse.Load().journal, r.home.journal)
	return k.journal.Discard()
}

// use goes on with a driver that has all records.
func (r *Recorder) use(k *loggedDriver) {
	before := r.inUse.Swap(k)
	r.index.TellOnly(k.journal, r.home.journal)
	if before.journal != r.home.journal {
		if err := before.journal.Close(); err != nil {
			r.log.Warn("close record log", "driver", before.name, "error", err)
		}
	}
	r.listed = true
	r.waiting.Store(nil)
	r.report(nil)
	r.last.write(r.complete())
}
