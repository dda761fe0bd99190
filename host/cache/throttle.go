package cache

import "context"

// enterFill waits for a fill's turn, which lasts until leave is called.
func (c *Cache) enterFill(ctx context.Context) (leave func(), err error) {
	if c.slots == nil {
		return func() {}, nil
	}
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// throttle waits until n more bytes may be fetched. n is at most a block.
func (c *Cache) throttle(ctx context.Context, n int) error {
	if c.rate == nil || n == 0 {
		return nil
	}
	if err := c.rate.WaitN(ctx, n); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
