package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// row is one line of the table.
type row struct {
	what, server string
	unit         string
	values       []float64
	base         []float64 // those of nginx; nil: there is nothing to compare
	cpu, baseCPU []float64 // seconds per GiB
	client       []float64 // the same, of the client
	aims         []aim
}

// aim is what a row should reach.
type aim struct {
	text string
	met  bool
	miss string // by how much not
}

// table is the result of a run.
type table struct {
	head string
	rows []row
}

func (t *table) add(r row) { t.rows = append(t.rows, r) }

// rowOf makes a row of samples, beside those of nginx.
func rowOf(what string, of, nginx []sample) row {
	r := row{what: what, unit: "GiB/s"}
	for _, s := range of {
		r.values, r.cpu, r.client = append(r.values, s.rate), append(r.cpu, s.server), append(r.client, s.client)
	}
	for _, s := range nginx {
		r.base, r.baseCPU = append(r.base, s.rate), append(r.baseCPU, s.server)
	}
	return r
}

// aimRate demands so many times the throughput of nginx.
func (r *row) aimRate(atLeast float64) {
	got := median(r.values) / median(r.base)
	r.aims = append(r.aims, aim{fmt.Sprintf("≥ %.1f× nginx", atLeast), got >= atLeast, fmt.Sprintf("%.2f×", got)})
}

// aimCPU allows so many times the CPU of nginx.
func (r *row) aimCPU(atMost float64) {
	got := median(r.cpu) / median(r.baseCPU)
	r.aims = append(r.aims, aim{fmt.Sprintf("CPU ≤ %.1f× nginx", atMost), got <= atMost, fmt.Sprintf("%.2f×", got)})
}

func (r row) under(limit float64) row {
	got := median(r.values)
	r.aims = append(r.aims, aim{fmt.Sprintf("< %g %s", limit, r.unit), got < limit, fmt.Sprintf("%.3g", got)})
	return r
}

// atMost looks at the worst round.
func (r row) atMost(limit float64) row {
	got := slices.Max(r.values)
	r.aims = append(r.aims, aim{strings.TrimSpace(fmt.Sprintf("≤ %g %s", limit, r.unit)), got <= limit, fmt.Sprintf("%.3g", got)})
	return r
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func spread(values []float64) string {
	if len(values) == 1 {
		return fmt.Sprintf("%.3g", values[0])
	}
	return fmt.Sprintf("%.3g / %.3g / %.3g", slices.Min(values), median(values), slices.Max(values))
}

func ratio(of, base []float64) string {
	if len(base) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(of)/median(base))
}

// String writes the table in Markdown.
func (t *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", t.head)
	b.WriteString("| what | server | unit | min / median / max | × nginx | CPU s/GiB | × nginx | client CPU s/GiB | aim | met |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	met, all := 0, 0
	for _, r := range t.rows {
		cpu, client := "", ""
		if len(r.cpu) > 0 {
			cpu, client = fmt.Sprintf("%.3f", median(r.cpu)), fmt.Sprintf("%.3f", median(r.client))
		}
		var aims, verdicts []string
		for _, a := range r.aims {
			verdict := "no: " + a.miss
			if all++; a.met {
				met++
				verdict = "yes"
			}
			aims, verdicts = append(aims, a.text), append(verdicts, verdict)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.what, r.server, r.unit, spread(r.values),
			ratio(r.values, r.base), cpu, ratio(r.cpu, r.baseCPU), client, strings.Join(aims, "; "), strings.Join(verdicts, "; "))
	}
	fmt.Fprintf(&b, "\n%d of %d aims are met. × nginx is the ratio of the medians; the nginx of the hits has tcp_nopush on, that of the misses and of the crowd is proxy_cache.\n", met, all)
	return b.String()
}

func sizeText(n int64) string {
	if n%gib == 0 {
		return fmt.Sprintf("%d GiB", n/gib)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
