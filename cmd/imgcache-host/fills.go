package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) fills() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "fills",
		Short: "Show which images are being fetched or written by clients, and their progress",
		Args:  cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			for drawn := 0; ; {
				list, err := c.Fills(ctx)
				if err != nil {
					return err
				}
				if drawn, err = a.drawFills(list, drawn); err != nil || !watch || over(list) {
					return err
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return nil
				}
			}
		}),
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show them again every second until no transfer runs")
	return cmd
}

// over reports whether nothing will change any more.
func over(list []cache.FillInfo) bool {
	for _, f := range list {
		if f.Phase != cache.Interrupted {
			return false
		}
	}
	return true
}

// drawFills writes the fills in place of the lines drawn before, where the
// output is a terminal, and returns how many lines there are now.
func (a *app) drawFills(list []cache.FillInfo, drawn int) (lines int, err error) {
	terminal := isTerminal(a.stdout) && !a.output.json
	if terminal && drawn > 0 {
		fmt.Fprintf(a.stdout, "\x1b[%dA\x1b[J", drawn) // up, and clear the rest
	}
	var text bytes.Buffer
	to := *a
	to.stdout = &text
	err = to.answer(map[string]any{"fills": list}, func(w io.Writer) {
		if len(list) == 0 {
			row(w, "no image is being fetched")
			return
		}
		n := anyNamed(list, func(f cache.FillInfo) (string, string) { return f.ID, f.Name })
		n.row(w, "ID", "NAME", "PHASE", "PROGRESS", "FETCHED", "SIZE", "RATE", "LEFT", "CLIENTS")
		for _, f := range list {
			n.row(w, f.ID, f.Name, f.Phase, progress(f, terminal), humanBytes(f.Written), humanBytes(f.Size), perSecond(f), left(f), f.Clients)
		}
	})
	if err != nil {
		return 0, err
	}
	lines = bytes.Count(text.Bytes(), []byte("\n"))
	_, err = a.stdout.Write(text.Bytes())
	return lines, err
}

// progress shows how much of an image has arrived, with a bar on a terminal.
func progress(f cache.FillInfo, terminal bool) string {
	if f.Size <= 0 {
		return ""
	}
	share := min(1, float64(f.Written)/float64(f.Size))
	if !terminal {
		return fmt.Sprintf("%.0f %%", 100*share)
	}
	return bar(share)
}

// bar draws a share from 0 to 1.
func bar(share float64) string {
	const width = 24
	done := int(share * width)
	return "[" + strings.Repeat("#", done) + strings.Repeat(".", width-done) + "] " + fmt.Sprintf("%3.0f %%", 100*share)
}

func perSecond(f cache.FillInfo) string {
	if f.Rate <= 0 || f.Phase == cache.Interrupted {
		return ""
	}
	return humanBytes(f.Rate) + "/s"
}

// left estimates the remaining time.
func left(f cache.FillInfo) string {
	if f.Rate <= 0 || f.Size < 0 || f.Phase == cache.Interrupted {
		return ""
	}
	return (time.Duration(float64(f.Size-f.Written)/float64(f.Rate)) * time.Second).String()
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
