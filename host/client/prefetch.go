package client

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// pollInterval is short compared with any transfer worth waiting for, and long
// compared with a call over the socket.
const pollInterval = 250 * time.Millisecond

// Prefetch queues images and waits until each is cached or has failed; without
// ids it waits for the images that are queued now. It returns the last state of
// each, in the order of ids: an image that is not cached has failed. Tell is called
// with each state that is seen, and whether it is the last.
func (c *Client) Prefetch(ctx context.Context, ids []string, tell func(i cache.ImageInfo, last bool)) ([]cache.ImageInfo, error) {
	w := waiter{service: c, tell: tell, stale: map[string]string{}}
	ids, err := w.enqueue(ctx, ids)
	if err != nil {
		return nil, err
	}
	return w.wait(ctx, ids)
}

// queue is the part of the service that a waiter needs.
type queue interface {
	Image(ctx context.Context, id string) (cache.ImageInfo, error)
	Queue(ctx context.Context, id string) (bool, error)
	Queued(ctx context.Context) ([]cache.QueueEntry, error)
}

// waiter follows images until they are cached or have failed.
type waiter struct {
	service queue
	tell    func(i cache.ImageInfo, last bool)
	stale   map[string]string // the failure of each image from before it was queued
}

// enqueue queues images, and returns the ids to wait for: without names those of
// the images that are queued already.
func (w waiter) enqueue(ctx context.Context, names []string) (ids []string, err error) {
	if len(names) == 0 {
		entries, err := w.service.Queued(ctx)
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		return ids, err
	}
	for _, name := range names {
		before, err := w.service.Image(ctx, name)
		if err == nil {
			_, err = w.service.Queue(ctx, name) // false is fine: the image is cached or on its way
		}
		if err != nil {
			return nil, fmt.Errorf("queue %s: %w", name, err)
		}
		w.stale[before.ID] = failureOf(before)
		ids = append(ids, before.ID)
	}
	return ids, nil
}

// wait returns the last state of each image, in the order of ids.
func (w waiter) wait(ctx context.Context, ids []string) ([]cache.ImageInfo, error) {
	results := make([]cache.ImageInfo, len(ids))
	ended := make([]bool, len(ids))
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		open := 0
		for i, id := range ids {
			if ended[i] {
				continue
			}
			info, err := w.service.Image(ctx, id)
			if err != nil {
				return nil, err
			}
			results[i], ended[i] = info, w.ended(info)
			w.tell(info, ended[i])
			if !ended[i] {
				open++
			}
		}
		if open == 0 {
			return results, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// ended reports whether there is nothing left to wait for. The service keeps
// trying an image that failed, with growing pauses.
func (w waiter) ended(i cache.ImageInfo) bool {
	switch i.State {
	case cache.StateFilling:
		delete(w.stale, i.ID) // errors from now on are new
		return false
	case cache.StateQueued:
		return i.Error != "" && failureOf(i) != w.stale[i.ID]
	default:
		return true
	}
}

// failureOf tells one failure of an image from the next, which may have the
// same reason.
func failureOf(i cache.ImageInfo) string {
	if n := len(i.History); n > 0 {
		return i.Error + i.History[n-1].Time.String()
	}
	return i.Error
}
