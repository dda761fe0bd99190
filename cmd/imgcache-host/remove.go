package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

var errDeclined = errors.New("nothing was changed")

// confirm asks before something is removed. Without a terminal there is nobody
// to ask, so it does not.
func (a *app) confirm(format string, args ...any) error {
	if a.yes {
		return nil
	}
	if !isTerminal(a.stdin) {
		return nil
	}
	fmt.Fprintf(a.stderr, format+" [y/N] ", args...)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	default:
		return errDeclined
	}
}

func (a *app) remove() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME...",
		Short: "Remove images from the cache",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.call(func(ctx context.Context, c *client.Client, names []string) error {
			if err := a.confirm("Remove %s from the cache?", strings.Join(names, ", ")); err != nil {
				return err
			}
			var ids []string
			for _, name := range names {
				i, err := c.Image(ctx, name)
				if err == nil {
					err = c.Delete(ctx, name)
				}
				if err != nil {
					return fmt.Errorf("delete %s: %w", name, err)
				}
				ids = append(ids, i.ID)
			}
			pinned, err := stillPinned(ctx, c, ids)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"deleted": names, "pinned": pinned}, func(w io.Writer) {
				row(w, "deleted", strings.Join(names, " "))
				if len(pinned) > 0 {
					row(w, "still pinned", strings.Join(pinned, " ")+" (to end that: imgcache-host unpin)")
				}
			})
		}),
	}
}

// stillPinned returns the ids that are still pinned, and will be kept when they
// are cached again.
func stillPinned(ctx context.Context, c *client.Client, ids []string) ([]string, error) {
	pins, err := c.Pins(ctx)
	pinned := []string{}
	for _, p := range pins {
		if slices.Contains(ids, p.ID) {
			pinned = append(pinned, cmp.Or(p.Name, p.ID))
		}
	}
	return pinned, err
}

// target says what clear empties.
type target string

func (t *target) Type() string   { return "target" }
func (t *target) String() string { return string(*t) }

func (t *target) Set(s string) error {
	switch s {
	case "cache", "queue", "both":
		*t = target(s)
		return nil
	default:
		return fmt.Errorf("expected cache, queue or both, got %q", s)
	}
}

func (a *app) clear() *cobra.Command {
	what := target("both")
	cmd := &cobra.Command{
		Use:   "clear",
		Short: "Remove all images, all queue entries, or both",
		Args:  cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			if err := a.confirm("Empty %s?", map[target]string{"cache": "the cache", "queue": "the queue", "both": "the cache and the queue"}[what]); err != nil {
				return err
			}
			var images, entries int
			var err error
			if what != "cache" { // first the queue, or it would fill the cache again
				entries, err = c.UnqueueAll(ctx)
			}
			if err == nil && what != "queue" {
				images, err = c.DeleteAll(ctx)
			}
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"images": images, "queue": entries}, func(w io.Writer) {
				row(w, "images deleted", images)
				row(w, "queue entries deleted", entries)
			})
		}),
	}
	cmd.Flags().Var(&what, "target", "what to empty: cache, queue or both")
	return cmd
}

func (a *app) prune() *cobra.Command {
	var maxSize string
	var o cache.PruneOptions
	cmd := &cobra.Command{
		Use:         "prune",
		Annotations: asksPolicy,
		Short:       "Remove images by the policy until the cache is small enough",
		Long: "Remove images by the policy. Without --max-size the watermarks of the configuration decide.\n" +
			"With it, images leave until the cache is at or below that size; 0 empties it.",
		Args: cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			if maxSize != "" {
				n, err := parseBytes(maxSize)
				if err != nil {
					return usageError{fmt.Errorf("--max-size: %w", err), "imgcache-host prune"}
				}
				o.MaxSize = &n
			}
			if !o.DryRun {
				if err := a.confirm("Prune the cache?"); err != nil {
					return err
				}
			}
			r, err := c.Prune(ctx, o)
			if err != nil {
				return err
			}
			return a.answerRemoved(r, o.DryRun)
		}),
	}
	cmd.Flags().StringVar(&maxSize, "max-size", "", "`size` to reach, such as 5GiB, or a number of bytes")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only show what would be removed")
	return cmd
}

// parseBytes reads a size on the command line, where a number without a unit
// counts bytes.
func parseBytes(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	return config.ParseSize(s)
}

func (a *app) clean() *cobra.Command {
	var stall time.Duration
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove stalled and invalid files",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&stall, "stall-time", 0, "remove partial files that have not grown for this long (default: as configured)")
	cmd.RunE = a.call(func(ctx context.Context, c *client.Client, _ []string) error {
		var given *time.Duration
		if cmd.Flags().Changed("stall-time") {
			given = &stall
		}
		r, err := c.Clean(ctx, given)
		if err != nil {
			return err
		}
		return a.answerRemoved(r, false)
	})
	return cmd
}

func (a *app) answerRemoved(r cache.Result, dry bool) error {
	return a.answer(r, func(w io.Writer) {
		verb := "removed"
		if dry {
			verb = "would remove"
		}
		row(w, fmt.Sprintf("%s %d files, %s", verb, r.Files, humanBytes(r.Bytes)))
	})
}
