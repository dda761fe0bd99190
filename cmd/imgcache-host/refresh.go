package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/spf13/cobra"
)

// refreshed is an image of which the origin was asked just now.
type refreshed struct {
	cache.ImageInfo
	Fetched bool `json:"fetched"` // it is not the one of before
}

func (a *app) refresh() *cobra.Command {
	return &cobra.Command{
		Use:   "refresh NAME...",
		Short: "Ask the origin for images now, and fetch those that have changed",
		Long: "Ask the origin whether it still has the images that are cached, however lately that was done, and fetch the others.\n" +
			"The command waits for them. Until a new version is whole, and if it cannot be fetched, the old one is served.\n" +
			"Ctrl-C stops the command, and no transfer.",
		Args: cobra.MinimumNArgs(1),
		RunE: a.callRunning(func(ctx context.Context, c *client.Client, names []string) error {
			var list []refreshed
			var failed []error
			for _, name := range names {
				i, err := refreshOne(ctx, c, name)
				if err != nil {
					failed = append(failed, fmt.Errorf("refresh %s: %w", name, err))
					continue
				}
				list = append(list, i)
			}
			return errors.Join(append(failed, a.answer(map[string]any{"images": list}, func(w io.Writer) { showRefreshed(w, list) }))...)
		}),
	}
}

func refreshOne(ctx context.Context, c *client.Client, name string) (refreshed, error) {
	before, err := c.Image(ctx, name)
	if err != nil {
		return refreshed{}, err
	}
	after, err := c.Refresh(ctx, name)
	return refreshed{after, before.State != cache.StateCached || !before.LastModified.Equal(after.LastModified)}, err
}

func showRefreshed(w io.Writer, list []refreshed) {
	if len(list) == 0 {
		return
	}
	n := anyNamed(list, func(i refreshed) (string, string) { return i.ID, i.Name })
	n.row(w, "ID", "NAME", "STATE", "SIZE", "RESULT")
	for _, i := range list {
		result := "the origin has no other version"
		if i.Fetched {
			result = "fetched"
		}
		n.row(w, i.ID, i.Name, i.State, humanBytes(i.Size), result)
	}
}
