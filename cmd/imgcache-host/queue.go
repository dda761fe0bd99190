package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/spf13/cobra"
)

func (a *app) queue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue [ID...]",
		Short: "Queue images to be fetched, or show the queue",
		Args:  cobra.ArbitraryArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, ids []string) error {
			if len(ids) == 0 {
				return a.showQueue(ctx, c)
			}
			queued := map[string]bool{}
			for _, id := range ids {
				ok, err := c.Queue(ctx, id)
				if err != nil {
					return fmt.Errorf("queue %s: %w", id, err)
				}
				queued[id] = ok
			}
			return a.answer(map[string]any{"queued": queued}, func(w io.Writer) {
				for _, id := range ids {
					if queued[id] {
						row(w, id, "queued")
					} else {
						row(w, id, "not queued: it is cached, filling or queued already")
					}
				}
			})
		}),
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "Show the queue, with what failed and when it is tried again",
		Args:  cobra.NoArgs,
		RunE:  a.call(func(ctx context.Context, c *client.Client, _ []string) error { return a.showQueue(ctx, c) }),
	})
	return cmd
}

func (a *app) showQueue(ctx context.Context, c *client.Client) error {
	entries, err := c.Queued(ctx)
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"queue": queuedIDs(entries), "entries": entries}, func(w io.Writer) {
		row(w, "ID", "FAILED", "NEXT TRY", "LAST ERROR")
		for _, e := range entries {
			next := age(e.Next)
			if e.Running {
				next = "now"
			}
			row(w, e.ID, e.Tries, next, e.Error)
		}
	})
}

func queuedIDs(entries []cache.QueueEntry) []string {
	ids := []string{}
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids
}

func (a *app) prefetch() *cobra.Command {
	return &cobra.Command{
		Use:   "prefetch [ID...]",
		Short: "Queue images and wait until they are cached",
		Long:  "Queue images and wait until each is cached or has failed. Without an ID, wait for what the queue holds now.",
		RunE: a.callRunning(func(ctx context.Context, c *client.Client, ids []string) error {
			w := waiter{client: c, progress: a.stderr, shown: map[string]string{}, stale: map[string]string{}}
			ids, err := w.enqueue(ctx, ids)
			if err != nil {
				return err
			}
			results, err := w.wait(ctx, ids)
			if err != nil {
				return err
			}
			return errors.Join(a.answer(map[string]any{"images": results}, func(w io.Writer) {
				row(w, "ID", "STATE", "SIZE", "ERROR")
				for _, i := range results {
					row(w, i.ID, i.State, humanBytes(i.Size), i.Error)
				}
			}), failures(results))
		}),
	}
}

func failures(images []cache.ImageInfo) error {
	failed := 0
	for _, i := range images {
		if i.State != cache.StateCached {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d images could not be fetched", failed, len(images))
	}
	return nil
}

// pollInterval is short against any transfer worth waiting for, and long
// against a call over the socket.
const pollInterval = 250 * time.Millisecond

// waiter follows images until they are cached or have failed.
type waiter struct {
	client   *client.Client
	progress io.Writer
	shown    map[string]string // the last line about each image
	stale    map[string]string // the failure of each image from before it was queued
}

// enqueue queues ids, or takes over the queue when there are none, and
// returns what to wait for.
func (w waiter) enqueue(ctx context.Context, ids []string) ([]string, error) {
	if len(ids) == 0 {
		entries, err := w.client.Queued(ctx)
		return queuedIDs(entries), err
	}
	for _, id := range ids {
		before, err := w.client.Image(ctx, id)
		if err == nil {
			_, err = w.client.Queue(ctx, id) // false is fine: it is there or on its way
		}
		if err != nil {
			return nil, fmt.Errorf("queue %s: %w", id, err)
		}
		w.stale[id] = failure(before)
	}
	return ids, nil
}

// wait returns the last state of each image, in the order of ids.
func (w waiter) wait(ctx context.Context, ids []string) ([]cache.ImageInfo, error) {
	results := make([]cache.ImageInfo, len(ids))
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		open := 0
		for i, id := range ids {
			if results[i].ID != "" && w.ended(results[i]) {
				continue
			}
			info, err := w.client.Image(ctx, id)
			if err != nil {
				return nil, err
			}
			results[i] = info
			w.show(info)
			if !w.ended(info) {
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

// failure tells one failure of an image from the next, which may have the
// same reason.
func failure(i cache.ImageInfo) string {
	if n := len(i.History); n > 0 {
		return i.Error + i.History[n-1].Time.String()
	}
	return i.Error
}

// ended reports whether there is nothing left to wait for. The service goes
// on trying an image that failed, with ever longer pauses.
func (w waiter) ended(i cache.ImageInfo) bool {
	switch i.State {
	case cache.StateFilling:
		delete(w.stale, i.ID) // an error from now on is of this attempt
		return false
	case cache.StateQueued:
		return i.Error != "" && failure(i) != w.stale[i.ID]
	default:
		return true
	}
}

// show writes a line when there is news, in steps of a tenth.
func (w waiter) show(i cache.ImageInfo) {
	line := string(i.State)
	switch {
	case i.State == cache.StateFilling && i.Size > 0:
		line = fmt.Sprintf("%s %d%% of %s", i.State, i.Written*10/i.Size*10, humanBytes(i.Size))
	case i.State != cache.StateCached && w.ended(i):
		line = strings.TrimSuffix("failed: "+i.Error, ": ")
	}
	if w.shown[i.ID] != line {
		w.shown[i.ID] = line
		fmt.Fprintf(w.progress, "%s  %s\n", i.ID, line)
	}
}
