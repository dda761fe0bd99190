// Package evict decides which images leave, and lets them leave: by the advice
// of a policy, which is validated, and in least-recently-used order where there
// is none. It knows the index and the files, and not the engine.
package evict

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/history"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/pins"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/host/store"
)

const (
	// refreshEvery is how often the standing list follows what happens.
	refreshEvery = time.Second
	// standingShare is the part of the cache that the standing list is worth:
	// enough for the fills of a few seconds.
	standingShare = 8
	// standingAge is how old the list of a scoring policy may be: an image that
	// was accessed since is passed over anyway.
	standingAge = 10 * time.Second
	// adviceTimeout bounds one question to the policy; the supervisor has a
	// deadline of its own for each call.
	adviceTimeout = 30 * time.Second
	// proposals is how often a stateful policy is asked again after it named
	// images that may not leave.
	proposals = 2
)

// Victim is an image that is to leave, and who says so.
type Victim struct {
	Image *index.Image
	Why   string
}

// Evictor decides who leaves. A fill that needs room takes victims from the
// standing list, which a goroutine keeps filled with the policy's advice;
// least-recently-used order stands in when the list is empty. A prune asks
// the policy itself.
type Evictor struct {
	log         *slog.Logger
	index       *index.Index
	pool        *space.Pool
	free        *space.Free
	store       *store.Store
	history     *history.History
	pins        *pins.Pins
	now         func() time.Time
	max         int64 // bytes that images may take
	hard        bool  // max is never exceeded
	minAge      time.Duration
	trash       chan trashed
	stopped     <-chan struct{}
	advisor     *advisor
	advisorFree chan struct{} // holds a token while nobody uses the advisor
	used        chan struct{} // the standing list was drawn on

	// mu guards what follows; it is held for no I/O and no question.
	mu       sync.Mutex
	policy   Policy // the newest, which the advisor takes over when it is asked next
	brought  bool   // the advisor has not yet taken it over
	standing []Victim
	at       time.Time // when the standing list was made
	asOf     time.Time // the accesses that it knows of are up to here
	verdict  string    // who decided last, and if it was the fallback, why
}

// Config is what an evictor works with. All of it is required.
type Config struct {
	Policy  Policy
	Index   *index.Index
	Events  *index.Events // of the index
	Pool    *space.Pool
	Free    *space.Free
	Store   *store.Store
	History *history.History
	Pins    *pins.Pins
	MaxSize int64 // bytes that images may take
	Hard    bool  // MaxSize is never exceeded; else only a prune looks at it
	MinAge  time.Duration
	Now     func() time.Time
	Log     *slog.Logger
	Stopped <-chan struct{} // closed when nothing may be begun any more
}

// New returns an evictor that does nothing before it is run.
func New(cfg Config) *Evictor {
	e := &Evictor{
		log: cfg.Log, index: cfg.Index, pool: cfg.Pool, free: cfg.Free, store: cfg.Store, history: cfg.History, pins: cfg.Pins,
		now: cfg.Now, max: cfg.MaxSize, hard: cfg.Hard, minAge: cfg.MinAge,
		trash: make(chan trashed, 1024), stopped: cfg.Stopped,
		advisor: &advisor{
			policy: cfg.Policy, index: cfg.Index, events: cfg.Events, max: cfg.MaxSize, now: cfg.Now,
			log: cfg.Log, fs: cfg.Store.FS(), path: cfg.Store.PrivateDir() + "/policy-state",
		},
		advisorFree: make(chan struct{}, 1), used: make(chan struct{}, 1),
		policy:  cfg.Policy,
		verdict: "nothing was evicted yet",
	}
	e.advisorFree <- struct{}{}
	return e
}

// Run unlinks what is in trash, keeps the standing list and the policy up to
// date, and saves the policy's state now and then, until the context ends.
func (e *Evictor) Run(ctx context.Context) {
	var work sync.WaitGroup
	for _, f := range []func(context.Context){e.reclaim, e.keepStanding, e.keepState} {
		work.Go(func() { f(ctx) })
	}
	work.Wait()
}

// SetPolicy makes p the policy from the next question on.
func (e *Evictor) SetPolicy(p Policy) {
	e.mu.Lock()
	e.policy, e.brought = p, true
	e.mu.Unlock()
	e.events().Restart(p.Stateful != nil)
	select {
	case e.used <- struct{}{}:
	default:
	}
}

// newest returns the policy that the next question goes to.
func (e *Evictor) newest() Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy
}

// takeOver gives the advisor a policy that was brought since its last
// question. What an earlier one advised is void.
func (e *Evictor) takeOver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.brought {
		e.brought, e.standing, e.at = false, nil, time.Time{}
		e.advisor.policy, e.advisor.built = e.policy, false
	}
}

// UnlinkInTrash has a file unlinked that is in trash and whose bytes count as
// being freed. Im is the image that it was, or nil.
func (e *Evictor) UnlinkInTrash(file store.Trashed, im *index.Image) {
	e.unlinkLater(trashed{file: file, im: im})
}

// trashed is a file that waits to be unlinked.
type trashed struct {
	file store.Trashed
	im   *index.Image // nil: left over from an earlier run
	done func()       // called after the first attempt to unlink it; may be nil

	tried bool // the first attempt was made
}

func (t trashed) size() int64 {
	if t.im != nil {
		return t.im.Size
	}
	return t.file.Size
}

// Rule says which images may leave. Pinned ones never do.
type Rule struct {
	MinAge time.Duration // since the image was committed
	InUse  bool          // images that are being read too
}

// may returns what says under the index's mutex whether an image may leave.
func (e *Evictor) may(r Rule, now time.Time) func(*index.Image, index.Use) bool {
	return func(im *index.Image, u index.Use) bool {
		return (r.InUse || u.Readers == 0) && now.Sub(u.Admitted) >= r.MinAge && !e.pins.Holds(im.ID, now)
	}
}

// candidates returns the images that may leave, in no order.
func (e *Evictor) candidates(r Rule) *candidates {
	list := &candidates{}
	list.images, list.records = e.index.Candidates(e.may(r, e.now()))
	return list
}

// MakeRoom lets victims leave until n more bytes will fit, and the file system
// has the bytes that it is short of, and returns without waiting for their
// files to be unlinked. It reports whether room can be expected.
func (e *Evictor) MakeRoom(n, short int64) bool {
	victims, enough := e.pick(n, short)
	gone := 0
	for _, v := range victims {
		if e.evict(v, fmt.Sprintf("to make room for %d bytes", n), nil) == nil {
			gone++
		}
	}
	return enough && (gone > 0 || len(victims) == 0)
}

// pick takes victims for n more bytes out of the index, in the order of the
// standing list and then by least recent use. Their bytes count as leaving
// from here on, so that two fills do not both evict for the same shortage.
func (e *Evictor) pick(n, short int64) (victims []Victim, enough bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	total, pending := e.pool.State()
	short -= pending
	if e.hard {
		short = max(short, total-pending+n-e.max)
	}
	if short <= 0 {
		return nil, true
	}
	r := Rule{MinAge: e.minAge}
	take := func(v Victim, since time.Time) {
		if e.takeOut(v.Image, r, since) {
			victims = append(victims, v)
			short -= v.Image.Size
		}
	}
	for short > 0 && len(e.standing) > 0 {
		v := e.standing[0]
		e.standing = e.standing[1:]
		take(v, e.asOf)
	}
	select {
	case e.used <- struct{}{}:
	default:
	}
	if short > 0 {
		for im := range e.candidates(r).byAccess() {
			if short <= 0 {
				break
			}
			take(Victim{im, "least recently used; the standing list was empty"}, time.Time{})
		}
	}
	return victims, short <= 0 || pending > 0 || len(victims) > 0
}

// Evictable returns how many bytes could leave, or are leaving.
func (e *Evictor) Evictable() int64 {
	_, n := e.pool.State()
	for _, im := range e.candidates(Rule{MinAge: e.minAge}).images {
		n += im.Size
	}
	return n
}

// takeOut takes an image out of the index if it may leave, and was not accessed
// since advice was given on it.
func (e *Evictor) takeOut(im *index.Image, r Rule, since time.Time) bool {
	now := e.now()
	may := e.may(r, now)
	left := e.index.Evict(im, now, func(im *index.Image, u index.Use) bool {
		return may(im, u) && (since.IsZero() || !u.Accessed.After(since))
	})
	if left {
		e.pool.BeginFreeing(im.Size)
	}
	return left
}

// evict moves the file of a claimed image to trash. The bytes return to the
// pool when it is unlinked; done is called then. After an error the image is
// as it was, but for its hits.
func (e *Evictor) evict(v Victim, purpose string, done func()) error {
	if err := e.Discard(v.Image, done); err != nil {
		return err
	}
	e.history.Happened(slog.LevelInfo, v.Image.ID, history.Evicted, v.Why+", "+purpose, "bytes", v.Image.Size)
	return nil
}

// Discard moves the file of an image that left the index, and whose bytes
// count as leaving, to trash. After an error the image is in the index again.
func (e *Evictor) Discard(im *index.Image, done func()) error {
	file, err := e.store.Trash(im.ID)
	if err == nil {
		e.unlinkLater(trashed{file: file, im: im, done: done})
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // somebody else took the file away
	} else {
		e.index.Stays(im) // before its bytes return to the pool
		e.log.Warn("a file cannot be moved to trash", "image", im.ID, "error", err)
	}
	e.gone(im)
	if done != nil {
		done()
	}
	return err
}

// unlinkLater hands a file in trash to the goroutine that unlinks. After the
// cache was stopped the file waits for the next start.
func (e *Evictor) unlinkLater(t trashed) {
	select {
	case e.trash <- t:
	case <-e.stopped:
		if t.done != nil {
			t.done()
		}
	}
}

func (e *Evictor) gone(im *index.Image) {
	e.pool.EndFreeing(im.Size)
	e.index.Unlinked(im)
}

// ReclaimAgain is how long a file that could not be unlinked is left alone.
const ReclaimAgain = time.Minute

// reclaim unlinks what is in trash, away from everybody who waits: a GiB
// takes a quarter of a second. What cannot be unlinked stays charged, for it is
// on the disk, and is tried again; it counts as leaving no more, so that nobody
// waits for it.
func (e *Evictor) reclaim(ctx context.Context) {
	var stuck []trashed
	tick := time.NewTicker(ReclaimAgain)
	defer tick.Stop()
	for {
		select {
		case t := <-e.trash:
			if !e.unlink(&t) {
				stuck = append(stuck, t)
			}
		case <-tick.C:
			stuck = slices.DeleteFunc(stuck, func(t trashed) bool { return e.unlink(&t) })
		case <-ctx.Done():
			return
		}
	}
}

// Empty unlinks what waits in trash, for a cache that has ended.
func (e *Evictor) Empty() {
	for {
		select {
		case t := <-e.trash:
			e.unlink(&t)
		default:
			return
		}
	}
}

// unlink tries to unlink a file and reports whether its bytes were released.
func (e *Evictor) unlink(t *trashed) bool {
	err := e.store.Reclaim(t.file)
	first := !t.tried
	t.tried = true
	if first {
		e.pool.EndFreeing(t.size()) // before their release, which wakes those who count on it
	}
	switch {
	case err != nil:
		e.log.Warn("a file in trash cannot be unlinked; its bytes stay charged", "file", t.file.Name, "error", err)
	case t.im != nil:
		e.index.Unlinked(t.im)
	default:
		e.pool.Release(t.file.Size)
	}
	if first && t.done != nil {
		t.done()
	}
	return err == nil
}

// keepStanding keeps the policy and the standing list up to date until the
// context ends.
func (e *Evictor) keepStanding(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		if e.events().Pending() {
			_ = e.Inform(ctx) // the verdict has the error
			if e.wantsAdvice() {
				e.refresh(ctx)
			}
		}
		select {
		case <-tick.C:
		case <-e.used:
		case <-ctx.Done():
			return
		}
	}
}

// Inform brings a stateful policy up to date.
func (e *Evictor) Inform(ctx context.Context) error {
	if e.newest().Stateful == nil {
		return nil
	}
	if err := e.lockAdvisor(ctx); err != nil {
		return err
	}
	defer e.unlockAdvisor()
	limited, cancel := context.WithTimeout(ctx, adviceTimeout)
	defer cancel()
	err := e.advisor.observe(limited, nil)
	if err != nil && ctx.Err() == nil {
		e.noteVerdict(err)
	}
	return err
}

// wantsAdvice reports whether the standing list is worth a question: when the
// cache, or the file system, is filling up and the list is half used, or a
// scoring policy's is old. A stateful policy moves on with each question, so it
// is not asked for its list's age.
func (e *Evictor) wantsAdvice() bool {
	if total, _ := e.pool.State(); total < e.max/2 && !e.free.Scarce(e.standingWant()) {
		return false
	}
	e.mu.Lock()
	old := e.policy.Scorer != nil && e.now().Sub(e.at) > standingAge
	e.mu.Unlock()
	return old || e.standingBytes() < e.standingWant()/2
}

// standingList returns those of the standing list that may still leave.
func (e *Evictor) standingList() []Victim {
	e.mu.Lock()
	list := slices.Clone(e.standing)
	e.mu.Unlock()
	images := make([]*index.Image, len(list))
	for i, v := range list {
		images[i] = v.Image
	}
	_, no := e.index.Among(images, e.may(Rule{MinAge: e.minAge}, e.now()))
	return slices.DeleteFunc(list, func(v Victim) bool { return slices.Contains(no, v.Image) })
}

func (e *Evictor) standingWant() int64 { return e.max/standingShare + 1 }

func (e *Evictor) standingBytes() (n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.standing {
		n += v.Image.Size
	}
	return n
}

func (e *Evictor) events() *index.Events { return e.advisor.events }

// lockAdvisor takes the advisor's token; the caller returns it with unlockAdvisor.
func (e *Evictor) lockAdvisor(ctx context.Context) error {
	select {
	case <-e.advisorFree:
		e.takeOver()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *Evictor) unlockAdvisor() { e.advisorFree <- struct{}{} }

// refresh makes a new standing list.
func (e *Evictor) refresh(ctx context.Context) {
	if e.lockAdvisor(ctx) != nil {
		return
	}
	defer e.unlockAdvisor()
	at := e.now()
	asOf := e.index.AsOf(at)
	list, err := e.advise(ctx, e.standingWant(), Rule{MinAge: e.minAge}, nil)
	if ctx.Err() != nil {
		return
	}
	e.noteVerdict(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.standing, e.at, e.asOf = list, at, asOf
}

// noteVerdict remembers who decides, and logs when that changes.
func (e *Evictor) noteVerdict(err error) {
	verdict := e.advisor.policy.Name
	if err != nil {
		verdict = fallback(err)
	}
	e.mu.Lock()
	changed := verdict != e.verdict
	e.verdict = verdict
	e.mu.Unlock()
	switch {
	case changed && err != nil:
		e.log.Warn("the policy is not followed; least recently used leaves first", "policy", e.advisor.policy.Name, "error", err)
	case changed:
		e.log.Info("the policy is followed", "policy", e.advisor.policy.Name)
	}
}

// fallback says why the host's own order decides.
func fallback(why error) string { return "lru (fallback): " + why.Error() }

// advise returns images worth need bytes, first to leave first: the policy's
// choice, completed by least recent use. The error says why the policy was
// not, or not wholly, followed; the list is good all the same. leave, if not
// nil, is called for each chosen image at once and reports whether it left;
// otherwise nothing leaves. The caller holds the advisor's token.
func (e *Evictor) advise(ctx context.Context, need int64, r Rule, leave func(Victim) bool) ([]Victim, error) {
	ctx, cancel := context.WithTimeout(ctx, adviceTimeout)
	defer cancel()
	if leave == nil {
		leave = func(Victim) bool { return true }
	}
	c := &choice{Evictor: e, rule: r, need: need, leave: leave, taken: map[*index.Image]bool{}}
	var err error
	switch {
	case e.advisor.policy.Stateful != nil:
		err = c.byProposals(ctx)
	case e.advisor.policy.Scorer != nil:
		err = c.byRank(ctx)
	default:
		err = e.advisor.policy.missing()
	}
	if c.need > 0 {
		c.byLRU()
	}
	return c.list, err
}

// Prune lets images leave that a rule allows to: as many bytes as plan says,
// which is asked when nobody else is being advised, and for the purpose that it
// gives. Nothing leaves when dry is set. It returns the victims when their
// files are gone, except those that are still being read. The error is the
// context's.
func (e *Evictor) Prune(ctx context.Context, r Rule, dry bool, plan func() (need int64, purpose string)) ([]Victim, error) {
	if err := e.lockAdvisor(ctx); err != nil {
		return nil, err
	}
	defer e.unlockAdvisor()
	need, purpose := plan()
	if need <= 0 {
		return nil, nil
	}
	var unlinked sync.WaitGroup
	leave := func(v Victim) bool {
		if !e.takeOut(v.Image, r, time.Time{}) {
			return false
		}
		unlinked.Add(1)
		return e.evict(v, purpose, unlinked.Done) == nil
	}
	if dry {
		leave = nil
	}
	list, err := e.advise(ctx, need, r, leave)
	e.noteVerdict(err)
	unlinked.Wait()
	return list, ctx.Err()
}

// Next returns who would leave next, first to leave first: the whole order of a
// scoring policy, and the standing list of a stateful one, which a question
// would move on.
func (e *Evictor) Next(ctx context.Context) ([]Victim, error) {
	if e.newest().Stateful != nil {
		return e.standingList(), nil
	}
	if err := e.lockAdvisor(ctx); err != nil {
		return nil, err
	}
	defer e.unlockAdvisor()
	total, _ := e.pool.State()
	list, err := e.advise(ctx, total, Rule{MinAge: e.minAge}, nil)
	e.noteVerdict(err)
	return list, ctx.Err()
}

// choice is an answer in the making.
type choice struct {
	*Evictor
	rule  Rule
	need  int64 // bytes still wanted
	leave func(Victim) bool
	list  []Victim
	taken map[*index.Image]bool
}

func (c *choice) take(im *index.Image, why string) {
	v := Victim{im, why}
	if c.taken[im] || !c.leave(v) {
		return
	}
	c.taken[im] = true
	c.list = append(c.list, v)
	c.need -= im.Size
}

func (c *choice) byRank(ctx context.Context) error {
	c.events().Take()
	list := c.candidates(c.rule)
	policy := c.advisor.policy
	scores, err := ranking.Score(ctx, policy.Scorer, c.now(), list.records)
	if err != nil {
		return err
	}
	for i := range ranking.Order(list.records, scores) {
		if c.need <= 0 {
			break
		}
		c.take(list.images[i], fmt.Sprintf("%s: score %g", policy.Name, scores[i]))
	}
	return nil
}

// byProposals asks a stateful policy, tells it which of its proposals were
// refused, and asks again for the rest.
func (c *choice) byProposals(ctx context.Context) error {
	var refused []*index.Image
	foreign := 0
	for range proposals {
		if err := c.advisor.observe(ctx, refused); err != nil {
			return err
		}
		if c.need <= 0 {
			return nil
		}
		list, unknown, err := c.advisor.propose(ctx, c.need)
		if err != nil {
			return err
		}
		foreign += unknown
		refused = c.accept(list)
	}
	if err := c.advisor.observe(ctx, refused); err != nil {
		return err
	}
	if foreign > 0 && c.need > 0 {
		return fmt.Errorf("%w: it names %d images that are not in the cache", errAdvice, foreign)
	}
	return nil
}

// accept takes the proposed images that may leave and returns the others.
func (c *choice) accept(list []*index.Image) (refused []*index.Image) {
	yes, no := c.index.Among(list, c.may(c.rule, c.now()))
	for _, im := range yes {
		if c.need > 0 {
			c.take(im, c.advisor.policy.Name)
		}
	}
	return no
}

func (c *choice) byLRU() {
	for im := range c.candidates(c.rule).byAccess() {
		if c.need <= 0 {
			break
		}
		c.take(im, "least recently used")
	}
}

// Decided says who chose the last victims.
func (e *Evictor) Decided() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.policy.missing(); err != nil {
		return fallback(err)
	}
	return e.verdict
}
