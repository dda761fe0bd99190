package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/spf13/cobra"
)

func (a *app) queue() *cobra.Command {
	var retry bool
	cmd := &cobra.Command{
		Use:   "queue [NAME...]",
		Short: "Queue images to be fetched, or show the queue",
		Args: func(_ *cobra.Command, ids []string) error {
			if retry && len(ids) > 0 {
				return errors.New("--retry is for the whole queue and takes no ID: an image that is queued again is tried at once")
			}
			return nil
		},
		RunE: a.call(func(ctx context.Context, c *client.Client, ids []string) error {
			if retry {
				return a.retryQueue(ctx, c)
			}
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
						row(w, id, "not queued: it is already cached, filling or queued")
					}
				}
			})
		}),
	}
	cmd.Flags().BoolVar(&retry, "retry", false, "try everything that is queued at once, without the pauses after failed attempts")
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
		n := anyNamed(entries, func(e cache.QueueEntry) (string, string) { return e.ID, e.Name })
		n.row(w, "ID", "NAME", "FAILED", "NEXT TRY", "LAST ERROR")
		for _, e := range entries {
			next := age(e.Next)
			if e.Running {
				next = "now"
			}
			n.row(w, e.ID, e.Name, e.Tries, next, e.Error)
		}
	})
}

func (a *app) retryQueue(ctx context.Context, c *client.Client) error {
	n, err := c.RetryQueued(ctx)
	if err != nil {
		return err
	}
	return a.answer(map[string]any{"queued": n}, func(w io.Writer) {
		row(w, "tried at once", n)
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
		Use:   "prefetch [NAME...]",
		Short: "Queue images and wait until they are cached",
		Long:  "Queue images and wait until each is cached or has failed. Without a name, wait for what the queue holds now.",
		RunE: a.callRunning(func(ctx context.Context, c *client.Client, names []string) error {
			meter := prefetchMeter{to: a.stderr, shown: map[string]string{}}
			results, err := c.Prefetch(ctx, names, meter.show)
			if err != nil {
				return err
			}
			return errors.Join(a.answer(map[string]any{"images": results}, func(w io.Writer) {
				n := anyNamed(results, func(i cache.ImageInfo) (string, string) { return i.ID, i.Name })
				n.row(w, "ID", "NAME", "STATE", "SIZE", "ERROR")
				for _, i := range results {
					n.row(w, i.ID, i.Name, i.State, humanBytes(i.Size), i.Error)
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

// prefetchMeter shows how far images are.
type prefetchMeter struct {
	to    io.Writer
	shown map[string]string // the last line about each image
}

// show writes a line when there is news, in steps of a tenth.
func (m prefetchMeter) show(i cache.ImageInfo, last bool) {
	line := string(i.State)
	switch {
	case i.State == cache.StateFilling && i.Size > 0:
		line = fmt.Sprintf("%s %d%% of %s", i.State, i.Written*10/i.Size*10, humanBytes(i.Size))
	case i.State != cache.StateCached && last:
		line = strings.TrimSuffix("failed: "+i.Error, ": ")
	}
	if m.shown[i.ID] != line {
		m.shown[i.ID] = line
		fmt.Fprintf(m.to, "%s  %s\n", visible(title(i)), visible(line))
	}
}
