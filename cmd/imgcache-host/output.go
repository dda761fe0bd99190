package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/imgcache/imgcache-host/host/cache"
)

// format is how answers are written; the zero value is a table.
type format struct {
	json bool
	svg  bool // of a command that draws
}

func (f *format) Type() string { return "format" }

func (f *format) String() string {
	switch {
	case f.json:
		return "json"
	case f.svg:
		return "svg"
	}
	return "table"
}

func (f *format) Set(s string) error {
	switch s {
	case "table", "json", "svg":
		f.json, f.svg = s == "json", s == "svg"
		return nil
	default:
		return fmt.Errorf("expected table or json, got %q", s)
	}
}

// answer writes v as JSON, or calls table.
func (a *app) answer(v any, table func(w io.Writer)) error {
	if a.output.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row writes the cells of a line of a table; an empty cell shows as a dash. What
// a terminal would obey is written as Go writes it in a string.
func row(w io.Writer, cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		if text[i] = visible(fmt.Sprint(c)); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(text, "\t"))
}

// visible escapes the characters that cannot be seen, such as those that move
// the cursor or turn the direction of the words round.
func visible(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// visibleText is visible for a text of several lines.
func visibleText(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		end := strings.IndexAny(s, "\n\t")
		if end < 0 {
			end = len(s)
		}
		b.WriteString(visible(s[:end]))
		rest := min(end+1, len(s))
		b.WriteString(s[end:rest])
		s = s[rest:]
	}
	return b.String()
}

// names says whether a table has a column with the names of its images.
type names bool

// anyNamed reports whether one of the images has a name other than its id.
func anyNamed[T any](list []T, of func(T) (id, name string)) names {
	return names(slices.ContainsFunc(list, func(t T) bool {
		id, name := of(t)
		return name != "" && name != id
	}))
}

// row writes the cells of a line about an image.
func (n names) row(w io.Writer, id, name string, cells ...any) {
	head := []any{id}
	if n {
		if name == id {
			name = ""
		}
		head = append(head, name)
	}
	row(w, append(head, cells...)...)
}

// title is how an image is called in a sentence.
func title(i cache.ImageInfo) string { return cmp.Or(i.Name, i.ID) }

// humanBytes writes a size for people; a negative one is unknown.
func humanBytes(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return humanize.IBytes(uint64(n))
}

// localTime writes a moment by the clock of the user.
func localTime(t time.Time) string { return t.Local().Format(time.DateTime + " MST") }

// age says how long ago t was; "" for the zero time.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humanize.Time(t)
}
