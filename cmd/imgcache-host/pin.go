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

func (a *app) pin() *cobra.Command {
	var until string
	var span time.Duration
	cmd := &cobra.Command{
		Use:   "pin NAME...",
		Short: "Keep images from being evicted",
		Long: "Keep images from being evicted, for ever or until a time. You can pin an image before it is cached.\n" +
			"The command delete removes a pinned image too, but not its pin.",
		Example: "  imgcache-host pin debian-12.qcow2 --for 72h\n  imgcache-host pin noble/current/x.img --until 2027-01-31",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&until, "until", "", "`time` at which the pin ends: 2027-01-31, \"2027-01-31 18:00\" or 2027-01-31T18:00:00Z (default: never)")
	cmd.Flags().DurationVar(&span, "for", 0, "`duration` after which the pin ends, such as 72h (default: never)")
	cmd.RunE = a.call(func(ctx context.Context, c *client.Client, ids []string) error {
		end, err := pinEnd(until, span, cmd.Flags().Changed("for"))
		if err != nil {
			return usageError{err, cmd.CommandPath()}
		}
		var pins []cache.PinInfo
		for _, id := range ids {
			pin, err := c.Pin(ctx, id, end)
			if err != nil {
				return fmt.Errorf("pin %s: %w", id, err)
			}
			pins = append(pins, pin)
		}
		return a.answer(map[string]any{"pins": pins}, func(w io.Writer) { showPins(w, pins) })
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the pins, and who set them",
		Args:  cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			pins, err := c.Pins(ctx)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"pins": pins}, func(w io.Writer) { showPins(w, pins) })
		}),
	})
	return cmd
}

// pinEnd returns when a pin is to end; the zero time is never.
func pinEnd(until string, span time.Duration, spanGiven bool) (time.Time, error) {
	switch {
	case spanGiven && until != "":
		return time.Time{}, errors.New("--until and --for cannot be used together")
	case spanGiven && span <= 0:
		return time.Time{}, fmt.Errorf("--for: expected a duration above zero, got %v", span)
	case spanGiven:
		return time.Now().Add(span), nil
	case until == "":
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04", time.DateOnly} {
		if end, err := time.ParseInLocation(layout, until, time.Local); err == nil {
			return end, nil
		}
	}
	return time.Time{}, fmt.Errorf("--until: expected a time such as 2027-01-31, \"2027-01-31 18:00\" or 2027-01-31T18:00:00Z, got %q", until)
}

func showPins(w io.Writer, pins []cache.PinInfo) {
	n := anyNamed(pins, func(p cache.PinInfo) (string, string) { return p.ID, p.Name })
	n.row(w, "ID", "NAME", "UNTIL", "CACHED", "FROM")
	for _, p := range pins {
		n.row(w, p.ID, p.Name, pinUntil(p.Until), yes(p.Cached), p.From)
	}
}

// pinUntil says when a pin ends.
func pinUntil(t time.Time) string {
	if t.IsZero() {
		return "for ever"
	}
	return localTime(t)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) unpin() *cobra.Command {
	return &cobra.Command{
		Use:   "unpin NAME...",
		Short: "Let images be evicted again",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.call(func(ctx context.Context, c *client.Client, ids []string) error {
			for _, id := range ids {
				if err := c.Unpin(ctx, id); err != nil {
					return fmt.Errorf("unpin %s: %w", id, err)
				}
			}
			return a.answer(map[string]any{"unpinned": ids}, func(w io.Writer) { row(w, "unpinned", strings.Join(ids, " ")) })
		}),
	}
}
