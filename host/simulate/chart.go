package simulate

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// The places of the chart, in pixels.
const (
	chartWidth, chartHeight         = 860, 480
	left, right, top, bottom        = 70, 690, 50, 420
	legendX, legendY, legendSpacing = 710, 70, 22
)

// colors tell the policies apart, also for those who see few colours (Okabe and
// Ito: "Color Universal Design", 2008).
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"}

// Chart draws the miss ratio of each policy over the size of the cache as SVG.
func Chart(w io.Writer, title string, results []Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, chartHeight)
	label(&b, left, 28, "start", 16, title)
	c := newScale(results)
	c.axes(&b)
	for i, name := range policiesOf(results) {
		c.line(&b, i, name, results)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func policiesOf(results []Result) (names []string) {
	for _, r := range results {
		if !slices.Contains(names, r.Policy) {
			names = append(names, r.Policy)
		}
	}
	return names
}

func label(b *strings.Builder, x, y float64, anchor string, size int, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" fill="#333">`, x, y, anchor, size)
	_ = xml.EscapeText(b, []byte(text)) // a strings.Builder does not fail
	b.WriteString("</text>\n")
}

// scale places sizes, by their logarithm, and ratios on the chart.
type scale struct {
	sizes []uint64
	most  float64 // the ratio at the upper end
}

func newScale(results []Result) scale {
	var c scale
	for _, r := range results {
		c.sizes = append(c.sizes, r.Size)
		c.most = max(c.most, r.MissRatio)
	}
	slices.Sort(c.sizes)
	c.sizes = slices.Compact(c.sizes)
	c.most = max(0.1, math.Ceil(c.most*10)/10)
	return c
}

func (c scale) x(size uint64) float64 {
	low, high := math.Log(float64(c.sizes[0])), math.Log(float64(c.sizes[len(c.sizes)-1]))
	if low == high {
		return (left + right) / 2
	}
	return left + (right-left)*(math.Log(float64(size))-low)/(high-low)
}

func (c scale) y(ratio float64) float64 { return bottom - (bottom-top)*ratio/c.most }

func (c scale) axes(b *strings.Builder) {
	for i := 0; i <= 5; i++ {
		ratio := c.most * float64(i) / 5
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>`+"\n", left, c.y(ratio), right, c.y(ratio))
		label(b, left-8, c.y(ratio)+4, "end", 12, fmt.Sprintf("%.0f %%", 100*ratio))
	}
	last := math.Inf(-1)
	for _, size := range c.sizes {
		x := c.x(size)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#999"/>`+"\n", x, bottom, x, bottom+5)
		if x-last > 60 { // or the labels would touch
			label(b, x, bottom+20, "middle", 12, humanize.IBytes(size))
			last = x
		}
	}
	label(b, (left+right)/2, bottom+44, "middle", 13, "size of the cache")
	label(b, left, top-8, "end", 13, "misses")
}

func (c scale) line(b *strings.Builder, i int, name string, results []Result) {
	color, dashes := colors[i%len(colors)], ""
	if name == Belady {
		color, dashes = "#000000", ` stroke-dasharray="5 4"`
	}
	var points []string
	for _, size := range c.sizes {
		for _, r := range results {
			if r.Policy == name && r.Size == size {
				points = append(points, fmt.Sprintf("%.1f,%.1f", c.x(size), c.y(r.MissRatio)))
			}
		}
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", strings.Join(points, " "), color, dashes)
	for _, p := range points {
		x, y, _ := strings.Cut(p, ",")
		fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="3" fill="%s"/>`+"\n", x, y, color)
	}
	y := float64(legendY + i*legendSpacing)
	fmt.Fprintf(b, `<line x1="%d" y1="%.0f" x2="%d" y2="%.0f" stroke="%s" stroke-width="2"%s/>`+"\n", legendX, y, legendX+26, y, color, dashes)
	label(b, legendX+34, y+4, "start", 12, name)
}
