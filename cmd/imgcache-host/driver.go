package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize/english"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

func (a *app) driver() *cobra.Command {
	group := &cobra.Command{Use: "driver", Short: "Show the driver that keeps the records, or move them to another", Args: cobra.NoArgs, RunE: needsCommand}
	group.AddCommand(a.showDriver(), a.migrate())
	return group
}

func (a *app) showDriver() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show which driver keeps the records, and whether they are being moved",
		Args:  cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.Driver(ctx)
			if err != nil {
				return err
			}
			return a.answer(s, func(w io.Writer) {
				row(w, "driver", s.Driver)
				row(w, "driver after a restart", s.Configured)
				if s.Migration != nil {
					row(w, "moving", moving(*s.Migration))
				}
			})
		}),
	}
}

// migration is a run of driver migrate.
type migration struct {
	client.MigrateOptions
	configured string // offline: the driver with which the service will start; empty: the service runs
}

func (a *app) migrate() *cobra.Command {
	m := &migration{}
	run := a.callAs(m.offline, func(ctx context.Context, c *client.Client, _ []string) error { return a.move(ctx, c, m) })
	cmd := &cobra.Command{
		Use:   "migrate --to DRIVER [--from DRIVER]",
		Short: "Move the records to another driver, and check that they are there",
		Long: "Move the records to another driver, and read them back. The service may run or not.\n" +
			"Name a driver as in the configuration: driver.NAME for the block driver \"PLUGIN\" \"NAME\". The names\n" +
			"glance-sqlite and glance-xattr mean the records of Glance in the cache directory: to give the directory\n" +
			"back to it, or to take over what it recorded.\n\n" +
			"All records that the other driver has are replaced. If the move is interrupted or fails, the records are still\n" +
			"where they were; repeat the command to start again.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if m.To == "" {
				return usageError{errors.New("--to is missing; name the driver to which the records are to move"), cmd.CommandPath()}
			}
			return run(cmd, args)
		},
	}
	cmd.Flags().StringVar(&m.From, "from", "", "`driver` that has the records (default: the one that keeps them now)")
	cmd.Flags().StringVar(&m.To, "to", "", "`driver` to which they are to move")
	cmd.Flags().BoolVar(&m.DryRun, "dry-run", false, "only show what would be done")
	return cmd
}

// offline returns the configuration with which the cache directory is opened: its
// driver is the one that the records leave.
func (m *migration) offline(cfg *config.Config) (*config.Config, error) {
	m.configured = cfg.Cache.Driver.String()
	if m.From == "" {
		m.From = m.configured
	}
	from, err := cfg.Driver(m.From)
	if err == nil {
		_, err = cfg.Driver(m.To)
	}
	if err == nil && m.From == m.To {
		err = fmt.Errorf("--from and --to are both %s", m.To)
	}
	if err != nil {
		return nil, usageError{err, "imgcache-host driver migrate"}
	}
	own := *cfg
	own.Cache.Driver = from
	return &own, nil
}

// move moves the records and shows the result.
func (a *app) move(ctx context.Context, c *client.Client, m *migration) error {
	if !m.DryRun {
		if err := a.confirm("Replace all records that %s has?", m.To); err != nil {
			return err
		}
	}
	progress := moveMeter{to: a.stderr, terminal: isTerminal(a.stderr)}
	r, err := c.Migrate(ctx, m.MigrateOptions, progress.show)
	progress.end()
	if err != nil {
		return err
	}
	offline := m.configured != ""
	if offline {
		r.Configured = m.configured
	}
	next := nextStep(r, offline)
	answer := struct {
		records.Report
		Next string `json:"next,omitempty"` // what is left to do
	}{r, next}
	return errors.Join(a.answer(answer, func(w io.Writer) { showMove(w, r, next) }), moveComplaint(r))
}

func showMove(w io.Writer, r records.Report, next string) {
	verb := map[bool]string{true: "would move", false: "moved"}[r.DryRun]
	if !r.DryRun && !r.Moved {
		verb = "not moved"
	}
	records := func(n int) string { return english.Plural(n, "record", "") }
	row(w, verb, fmt.Sprintf("%s, %s, from %s to %s", records(r.Records), english.Plural(int(r.Hits), "hit", ""), r.From, r.To))
	if r.Replaced+r.Removed > 0 {
		row(w, "older in "+r.To, fmt.Sprintf("%s replaced, %d without an image removed", records(r.Replaced), r.Removed))
	}
	if !r.DryRun {
		row(w, "verified", records(r.Verified))
	}
	for _, d := range r.Differences {
		row(w, "wrong", d.ID, d.Reason)
	}
	if r.Unsent > 0 {
		row(w, "not taken by "+r.From, english.Plural(r.Unsent, "change", "")+", which its record log keeps")
	}
	if next != "" {
		row(w, "next", next)
	}
}

// nextStep says what is left to do after the records have moved.
func nextStep(r records.Report, offline bool) string {
	glance := r.To == "glance-sqlite" || r.To == "glance-xattr"
	switch {
	case !r.Moved:
		return ""
	case glance && offline:
		return "start Glance on the directory; it ignores .imgcache"
	case glance:
		return "stop the service, which sends the last hits, and start Glance on the directory; it ignores .imgcache"
	case r.To == r.Configured:
		return ""
	case offline:
		return fmt.Sprintf("write driver = %s in the cache block before the service starts", r.To)
	}
	return fmt.Sprintf("write driver = %s in the cache block; a restart before that goes back to %s", r.To, r.Configured)
}

// moveComplaint is an error unless the records are where they should be.
func moveComplaint(r records.Report) error {
	if r.Different == 0 {
		return nil
	}
	return fmt.Errorf("read back %s from %s with different content than was written; %s still keeps the records", english.Plural(r.Different, "record", ""), r.To, r.From)
}

// moving describes the progress of a migration in a line.
func moving(p records.Progress) string {
	text := fmt.Sprintf("to %s, %s: %d of %s", p.To, p.Phase, p.Records, english.Plural(p.Total, "record", ""))
	if p.Error != "" {
		text += "; trying again: " + p.Error
	}
	return text
}

// moveMeter shows how far a migration is: a line that changes on a terminal,
// else a line for each step.
type moveMeter struct {
	to       io.Writer
	terminal bool
	last     string // what was written
}

func (m *moveMeter) show(p records.Progress) {
	switch {
	case m.terminal:
		m.last = moving(p)
		fmt.Fprintf(m.to, "\r\x1b[K%s", m.last) // over the line, and clear the rest
	case m.last != p.Phase+p.Error:
		m.last = p.Phase + p.Error
		fmt.Fprintln(m.to, moving(p))
	}
}

// end clears the line.
func (m *moveMeter) end() {
	if m.terminal && m.last != "" {
		fmt.Fprint(m.to, "\r\x1b[K")
	}
}
