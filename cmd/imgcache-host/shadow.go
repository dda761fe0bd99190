package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/shadow"
)

func (a *app) policyShadow() *cobra.Command {
	return &cobra.Command{
		Use:   "shadow",
		Short: "Compare the policies that the service tries beside the active one",
		Long: "Compares the policies in the option shadow of the cache block with the active one. Each policy, also the active\n" +
			"one, runs a cache without bytes on the requests of the service. Compare these with each other, not with the\n" +
			"real cache in the first line, which also has images that were prefetched, written or pinned.",
		Args: cobra.NoArgs,
		RunE: a.callRunning(func(ctx context.Context, c *client.Client, _ []string) error {
			report, err := c.Policies(ctx)
			if err != nil {
				return err
			}
			return a.answer(report, func(w io.Writer) { showShadow(w, report) })
		}),
	}
}

func showShadow(w io.Writer, r shadow.Report) {
	if len(r.Policies) == 0 {
		fmt.Fprintln(w, "no policies are being tried; name some in the option shadow of the cache block")
		return
	}
	row(w, "POLICY", "PLUGIN", "STATE", "REQUESTS", "HITS", "HIT RATIO", "BYTE HIT RATIO", "IMAGES", "BYTES", "EVICTIONS", "WOULD HAVE EVICTED", "SINCE")
	line := func(name, plugin, state string, f shadow.Figures, evictions, departed any) {
		row(w, name, plugin, state, f.Requests, f.Hits, fmt.Sprintf("%.4f", f.HitRatio), fmt.Sprintf("%.4f", f.ByteHitRatio),
			f.Images, humanize.IBytes(f.Bytes), evictions, departed, age(f.Since))
	}
	line("(the cache)", "", "", r.Cache, "", "")
	for _, p := range r.Policies {
		name := p.Name
		if p.Active {
			name += " (active)"
		}
		departed := ""
		if d := p.Departed; d.Images > 0 {
			departed = fmt.Sprintf("%d (%s)", d.Images, humanBytes(d.Bytes))
		}
		line(name, p.Plugin, p.State, p.Figures, p.Evictions, departed)
	}
	for _, p := range r.Policies {
		for _, remark := range remarks(p) {
			fmt.Fprintf(w, "%s: %s\n", p.Name, remark)
		}
	}
}

// remarks are what is unusual about a policy, one line each.
func remarks(p shadow.Status) (list []string) {
	if p.Lost > 0 {
		list = append(list, fmt.Sprintf("lost events: %d; figures are no longer exact", p.Lost))
	}
	if p.Restarts > 0 {
		list = append(list, fmt.Sprintf("failed %d times, and its figures started again from zero; the last failure: %s", p.Restarts, strings.ReplaceAll(p.LastError, "\n", "; ")))
	}
	if p.Foreign > 0 || p.Helped > 0 {
		list = append(list, fmt.Sprintf("it proposed %d images that were not in its cache, and least-recently-used order decided %d evictions for it", p.Foreign, p.Helped))
	}
	if len(p.Departed.IDs) > 0 {
		list = append(list, "would have evicted "+strings.Join(p.Departed.IDs, ", "))
	}
	return list
}
