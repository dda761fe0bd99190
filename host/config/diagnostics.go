package config

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// Diagnostics is everything that is wrong with a configuration, each with its
// file, line and column, the line itself, and a sentence on what to do.
type Diagnostics struct {
	list  hcl.Diagnostics
	files map[string]*hcl.File
}

// Error returns what [Diagnostics.Write] writes, without the last newline.
func (d *Diagnostics) Error() string {
	var b bytes.Buffer
	_ = d.Write(&b) // a Buffer takes everything
	return strings.TrimRight(b.String(), "\n")
}

// Brief returns the first problem in one line: where, and what.
func (d *Diagnostics) Brief() string {
	if len(d.list) == 0 {
		return ""
	}
	first := d.list[0]
	text := fmt.Sprintf("%s: %s", first.Summary, strings.Join(strings.Fields(first.Detail), " "))
	if at := first.Subject; at != nil {
		text = fmt.Sprintf("%s:%d,%d: %s", at.Filename, at.Start.Line, at.Start.Column, text)
	}
	return text
}

// Len returns the number of problems.
func (d *Diagnostics) Len() int { return len(d.list) }

// maxShownProblems is how many problems are shown. Nobody reads more at once, and
// a file of the wrong kind has a hundred thousand.
const maxShownProblems = 50

// Write writes the problems in the order of files and lines, in plain text
// without colours; how many there are beyond the first 50 is said at the end.
func (d *Diagnostics) Write(w io.Writer) error {
	for i, diag := range d.list {
		if i == maxShownProblems {
			_, err := fmt.Fprintf(w, "\nThere are %d more.\n", len(d.list)-i)
			return err
		}
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := d.writeOne(w, diag); err != nil {
			return err
		}
	}
	return nil
}

func (d *Diagnostics) writeOne(w io.Writer, diag *hcl.Diagnostic) error {
	severity := "error"
	if diag.Severity == hcl.DiagWarning {
		severity = "warning"
	}
	var b strings.Builder
	if at := diag.Subject; at != nil {
		fmt.Fprintf(&b, "%s:%d,%d: ", at.Filename, at.Start.Line, at.Start.Column)
	}
	fmt.Fprintf(&b, "%s: %s\n", severity, diag.Summary)
	if at := diag.Subject; at != nil {
		b.WriteString(d.snippet(*at))
	}
	for line := range strings.Lines(diag.Detail) {
		fmt.Fprintf(&b, "  %s\n", strings.TrimRight(line, "\n"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// snippet returns the line at which a range begins, with the range underlined
// as far as it stays on that line, or "" when the source is not available.
func (d *Diagnostics) snippet(at hcl.Range) string {
	file := d.files[at.Filename]
	if file == nil || at.Start.Byte > len(file.Bytes) {
		return ""
	}
	start := bytes.LastIndexByte(file.Bytes[:at.Start.Byte], '\n') + 1
	end := len(file.Bytes)
	if i := bytes.IndexByte(file.Bytes[start:], '\n'); i >= 0 {
		end = start + i
	}
	line := string(bytes.TrimRight(file.Bytes[start:end], "\r"))
	if strings.TrimSpace(line) == "" {
		return ""
	}
	from := min(at.Start.Byte-start, len(line))
	to := min(max(at.End.Byte-start, from), len(line))
	line, from, to = clip(line, from, to)

	// Tabs stay tabs, so that the marks stand below what they mark.
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, line[:from])
	marks := strings.Repeat("^", max(1, utf8.RuneCountInString(line[from:to])))
	return fmt.Sprintf("%5d | %s\n      | %s%s\n", at.Start.Line, line, indent, marks)
}

// maxShownLine is how much of a line is shown, in bytes, when it is longer.
const maxShownLine = 200

// clip cuts a long line around the part that is marked.
func clip(line string, from, to int) (part string, newFrom, newTo int) {
	if len(line) <= maxShownLine {
		return line, from, to
	}
	start := max(0, from-maxShownLine/2)
	end := min(len(line), start+maxShownLine)
	for start > 0 && !utf8.RuneStart(line[start]) {
		start--
	}
	for end < len(line) && !utf8.RuneStart(line[end]) {
		end--
	}
	return line[start:end], from - start, min(to, end) - start
}

// newDiagnostics sorts by position; problems without one come last.
func newDiagnostics(list hcl.Diagnostics, files map[string]*hcl.File) *Diagnostics {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b *hcl.Diagnostic) int {
		switch {
		case a.Subject == nil && b.Subject == nil:
			return 0
		case a.Subject == nil:
			return 1
		case b.Subject == nil:
			return -1
		}
		if c := strings.Compare(a.Subject.Filename, b.Subject.Filename); c != 0 {
			return c
		}
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return &Diagnostics{list: sorted, files: files}
}
