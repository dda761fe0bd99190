package evict

import (
	"context"
	"fmt"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/ranking"
)

// advise returns images of need bytes together, in the order in which they are
// to leave: those that the policy chooses and, if they do not suffice, the least
// recently used. The error says why the policy was not followed, or not
// completely; the list is usable all the same. If leave is not nil, it is called
// at once for each chosen image, makes it leave and reports whether it did. The
// caller holds the advisor's token.
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

// choice collects the images for one answer.
type choice struct {
	*Evictor
	rule  Rule
	need  int64 // bytes still missing
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
		return fmt.Errorf("%w: it names %d images that are not in the cache or that it named twice", errAdvice, foreign)
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
