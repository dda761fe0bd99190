package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/spf13/cobra"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how full the cache is and how it is doing",
		Args:  cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			var s struct {
				cache.Usage
				Lacks []string `json:"lacks"` // what keeps the service from doing all it is configured to do
				Notes []string `json:"notes"` // remarks of plugins about their configuration
			}
			var err error
			if s.Usage, err = c.Usage(ctx); err == nil {
				s.Lacks, err = c.Ready(ctx)
			}
			if err == nil {
				s.Notes, err = notes(ctx, c)
			}
			if err != nil {
				return err
			}
			u := s.Usage
			return a.answer(s, func(w io.Writer) {
				row(w, "used", fmt.Sprintf("%s of %s (%s)", humanBytes(u.Bytes), humanBytes(u.MaxBytes), u.Limit))
				row(w, "reserved", humanBytes(u.Reserved))
				row(w, "taken of the disk", humanBytes(u.Allocated))
				row(w, "free on disk", freeOf(u))
				row(w, "images", u.Images)
				row(w, "pinned", pinned(u))
				row(w, "fills", u.Fills)
				row(w, "writes", u.Writes)
				row(w, "queued", u.Queued)
				row(w, "hits", u.Hits)
				row(w, "misses", u.Misses)
				row(w, "served", humanBytes(int64(u.BytesServed)))
				row(w, "fetched", humanBytes(int64(u.BytesFetched)))
				row(w, "records", u.Records)
				row(w, "unsent records", unsent(u))
				row(w, "policy", u.Policy)
				row(w, "disk", u.Disk)
				row(w, "corrupt images", u.Quarantined)
				row(w, "scrub", scrubbing(u.Scrub, time.Now()))
				for _, reason := range s.Lacks {
					row(w, "not ready", reason)
				}
				for _, note := range s.Notes {
					row(w, "note", note)
				}
			})
		}),
	}
}

// notes returns what the plugins say, each with its name.
func notes(ctx context.Context, c *client.Client) ([]string, error) {
	plugins, err := c.Plugins(ctx)
	all := []string{}
	for _, p := range plugins {
		for _, note := range p.Notes {
			all = append(all, p.Name+": "+note)
		}
	}
	return all, err
}

// pinned says how much is pinned, and whether that is too much.
func pinned(u cache.Usage) string {
	text := fmt.Sprintf("%s, %s", english.Plural(u.Pinned, "image", ""), humanBytes(u.PinnedBytes))
	if u.PinsFull {
		text += ": they fill the cache, so other images are passed through"
	}
	return text
}

// unsent says how far the driver is behind, and why.
func unsent(u cache.Usage) string {
	text := fmt.Sprint(u.Unsent)
	if !u.UnsentSince.IsZero() {
		text += ", behind since " + age(u.UnsentSince)
	}
	if u.RecordsError != "" {
		text += ": " + u.RecordsError
	}
	return text
}

// freeOf says how much space the file system has left, and how much of that
// stays free.
func freeOf(u cache.Usage) string {
	if u.MinFree > 0 {
		return fmt.Sprintf("%s, of which %s stay free", humanBytes(u.Free), humanBytes(u.MinFree))
	}
	return humanBytes(u.Free)
}

func (a *app) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images of the cache",
		Args:  cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			images, err := c.Images(ctx)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"images": images}, func(w io.Writer) {
				n := anyNamed(images, func(i cache.ImageInfo) (string, string) { return i.ID, i.Name })
				n.row(w, "ID", "NAME", "STATE", "SIZE", "HITS", "LAST ACCESS", "CACHED")
				for _, i := range images {
					n.row(w, i.ID, i.Name, stateOf(i), humanBytes(i.Size), i.Hits, age(i.LastAccessed), age(i.LastModified))
				}
			})
		}),
	}
}

// stateOf is the state of an image in a list, with its pin.
func stateOf(i cache.ImageInfo) string {
	if i.Pinned {
		return string(i.State) + ", pinned"
	}
	return string(i.State)
}

func (a *app) show() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show everything that is known about an image",
		Args:  cobra.ExactArgs(1),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			i, err := c.Image(ctx, args[0])
			if err != nil {
				return err
			}
			if err := a.answer(i, func(w io.Writer) { showImage(w, i) }); err != nil {
				return err
			}
			if i.State == cache.StateAbsent {
				return fmt.Errorf("image %s is %w in the cache%s%s", title(i), cache.ErrNotFound, because(i.Error), reserved(i))
			}
			return nil
		}),
	}
}

func (a *app) nodes() *cobra.Command {
	return &cobra.Command{
		Use:   "nodes NAME",
		Short: "List the nodes that hold an image, for nodes that share records",
		Args:  cobra.ExactArgs(1),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			nodes, err := c.Nodes(ctx, args[0])
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"nodes": nodes}, func(w io.Writer) {
				row(w, "NAME", "URL", "HEARD OF")
				for _, n := range nodes {
					row(w, n.Name, n.URL, age(n.Seen))
				}
			})
		}),
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return "; the last thing that happened: " + reason
}

// reserved says that an absent image is pinned.
func reserved(i cache.ImageInfo) string {
	if !i.Pinned {
		return ""
	}
	return "; it is pinned " + pinUntil(i.PinnedUntil)
}

// showImage writes what is known about an image; of an absent image only its
// history is known.
func showImage(w io.Writer, i cache.ImageInfo) {
	if i.State != cache.StateAbsent {
		showState(w, i)
	}
	if i.State != cache.StateAbsent && len(i.History) > 0 {
		fmt.Fprintln(w)
	}
	if len(i.History) > 0 {
		row(w, "WHEN", "WHAT HAPPENED", "WHY OR HOW")
	}
	for _, e := range i.History {
		what := e.Event
		if e.Times > 1 {
			what += fmt.Sprintf(" (%d times)", e.Times)
		}
		row(w, age(e.Time), what, e.Reason)
	}
}

func showState(w io.Writer, i cache.ImageInfo) {
	row(w, "id", i.ID)
	if i.Name != "" && i.Name != i.ID {
		row(w, "name", i.Name)
	}
	row(w, "state", i.State)
	if i.Pinned {
		row(w, "pinned", pinUntil(i.PinnedUntil))
	}
	row(w, "size", fmt.Sprintf("%s (%d bytes)", humanBytes(i.Size), i.Size))
	if i.State == cache.StateFilling {
		row(w, "written", humanBytes(i.Written))
	}
	row(w, "hits", i.Hits)
	row(w, "last access", age(i.LastAccessed))
	row(w, "cached", age(i.LastModified))
	row(w, "version", i.Version)
	row(w, "sha256", i.SHA256)
	row(w, "verified on read", i.Verified)
	row(w, "last checked", age(i.LastChecked))
	row(w, "readers", i.Readers)
	row(w, "url", i.URL)
	if i.Error != "" {
		row(w, "last error", i.Error)
	}
}

func (a *app) victims() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:         "victims",
		Annotations: asksPolicy,
		Short:       "Show which images would be evicted next, and why",
		Args:        cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			victims, err := c.Victims(ctx, limit)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"victims": victims}, func(w io.Writer) {
				n := anyNamed(victims, func(v cache.Victim) (string, string) { return v.ID, v.Name })
				n.row(w, "ID", "NAME", "SIZE", "WHY")
				for _, v := range victims {
					n.row(w, v.ID, v.Name, humanBytes(v.Size), v.Why)
				}
			})
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", 10, "maximum number of images to show")
	return cmd
}
