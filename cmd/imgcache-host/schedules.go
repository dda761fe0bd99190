package main

import (
	"context"
	"io"
	"strings"

	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/spf13/cobra"
)

func (a *app) schedules() *cobra.Command {
	return &cobra.Command{
		Use:   "schedules",
		Short: "List the schedules, the result of the last run and the time of the next",
		Args:  cobra.NoArgs,
		RunE: a.callRunning(func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Schedules(ctx)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"schedules": list}, func(w io.Writer) {
				row(w, "NAME", "WHEN", "RUN", "LAST RUN", "RESULT", "NEXT RUN")
				for _, s := range list {
					row(w, s.Name, s.When, strings.Join(s.Run, ", "), age(s.LastRun), outcome(s), nextRun(s))
				}
			})
		}),
	}
}

// outcome is the result of the last run of a schedule, on one line.
func outcome(s schedule.Status) string {
	if s.Error == "" {
		return s.Result
	}
	text := "failed: " + strings.ReplaceAll(s.Error, "\n", "; ")
	if s.Result != "" {
		text += " (" + s.Result + ")"
	}
	return text
}

// nextRun says when a schedule runs next.
func nextRun(s schedule.Status) string {
	switch {
	case s.Running:
		return "running"
	case s.NextRun.IsZero():
		return ""
	}
	return localTime(s.NextRun)
}
