package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
)

func (a *app) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "Read cached images and check each block of them",
		Long: "Read all images, or the named ones, and check each block. A corrupt image leaves the cache; its\n" +
			"file is kept in invalid/ until the next clean. An image that another program stored is compared\n" +
			"with the digest that its origin declares, if any, and is checked at each read from then on.\n" +
			"Ctrl-C stops; the next run begins with the images that have not been checked for longest.\n" +
			"The exit code is 1 when an image is wrong or could not be read.",
		RunE: a.call(func(ctx context.Context, c *client.Client, ids []string) error {
			m := meter{to: a.stderr, terminal: isTerminal(a.stderr)}
			r, err := c.Verify(ctx, ids, m.show)
			m.end()
			if err != nil {
				return err
			}
			return errors.Join(a.answer(r, func(w io.Writer) { showReport(w, r) }), complaint(r))
		}),
	}
}

func showReport(w io.Writer, r cache.ScrubReport) {
	row(w, "right", fmt.Sprintf("%s, %s", english.Plural(r.Images, "image", ""), humanBytes(r.Bytes)))
	if r.Adopted > 0 {
		row(w, "verified on read from now on", english.Plural(r.Adopted, "image", ""))
	}
	for _, f := range r.Bad {
		row(w, "bad", cmp.Or(f.Name, f.ID), f.Reason)
	}
	for _, f := range r.Unread {
		row(w, "unread", cmp.Or(f.Name, f.ID), f.Reason)
	}
}

// complaint is an error unless every image is right.
func complaint(r cache.ScrubReport) error {
	var errs []error
	if n := len(r.Bad); n > 0 {
		errs = append(errs, fmt.Errorf("%s corrupt, and no longer in the cache", english.PluralWord(n, fmt.Sprintf("%d image was", n), fmt.Sprintf("%d images were", n))))
	}
	if n := len(r.Unread); n > 0 {
		errs = append(errs, fmt.Errorf("%s could not be checked", english.Plural(n, "image", "")))
	}
	return errors.Join(errs...)
}

// meter shows how far a verification is: a line that changes on a terminal,
// else a line for each tenth.
type meter struct {
	to       io.Writer
	terminal bool
	drawn    bool
	tenth    int64 // the last tenth that was written
}

func (m *meter) show(p cache.ScrubProgress) {
	share := 1.0
	if p.TotalBytes > 0 {
		share = min(1, float64(p.Bytes)/float64(p.TotalBytes))
	}
	done := fmt.Sprintf("%d of %s, %s of %s", p.Images, english.Plural(p.Total, "image", ""), humanBytes(p.Bytes), humanBytes(p.TotalBytes))
	if p.Bad > 0 {
		done += fmt.Sprintf(", %d bad", p.Bad)
	}
	if m.terminal {
		fmt.Fprintf(m.to, "\r\x1b[K%s  %s  %s", bar(share), done, p.ID) // over the line, and clear the rest
		m.drawn = true
		return
	}
	if tenth := int64(share * 10); tenth > m.tenth {
		m.tenth = tenth
		fmt.Fprintf(m.to, "%d %%  %s\n", tenth*10, done)
	}
}

// end clears the line.
func (m *meter) end() {
	if m.drawn {
		fmt.Fprint(m.to, "\r\x1b[K")
	}
}

// scrubbing describes the progress of a scrub in a line; "" when none runs.
func scrubbing(p *cache.ScrubProgress, now time.Time) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%d of %s, %s of %s, for %v", p.Images, english.Plural(p.Total, "image", ""),
		humanBytes(p.Bytes), humanBytes(p.TotalBytes), now.Sub(p.Started).Round(time.Second))
}
