package main

import (
	"strings"
	"testing"
)

// TestTable checks how samples become rows: ratios are those of the medians,
// and an aim that is missed says by how much.
func TestTable(t *testing.T) {
	t.Parallel()
	nginx := []sample{{rate: 1, server: 0.1}, {rate: 2, server: 0.2}, {rate: 30, server: 0.3}}
	ours := []sample{{rate: 9, server: 0.5}, {rate: 3, server: 0.3}, {rate: 0.1, server: 0.1}}
	r := rowOf("hits", ours, nginx)
	r.server = "imgcache-host"
	r.aimRate(1.2)
	r.aimCPU(1.2)
	text := (&table{head: "here", rows: []row{r}}).String()
	for _, want := range []string{
		"here\n",
		"| hits | imgcache-host | GiB/s | 0.1 / 3 / 9 | 1.50 | 0.300 | 1.50 |",
		"| ≥ 1.2× nginx; CPU ≤ 1.2× nginx | yes; no: 1.50× |",
		"1 of 2 aims are met.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

// TestVerdicts checks that a limit looks at the median, and a count at the
// worst round.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	values := []float64{1, 1, 2}
	for name, c := range map[string]struct {
		row
		met bool
	}{
		"median below":    {row{values: values}.under(1.5), true},
		"median at limit": {row{values: values}.under(1), false},
		"worst above":     {row{values: values}.atMost(1), false},
		"worst at limit":  {row{values: values}.atMost(2), true},
		"nothing":         {row{}.under(1), false},
	} {
		if got := c.aims[0].met; got != c.met {
			t.Errorf("%s: met is %v, want %v", name, got, c.met)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}
