package trace

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Columns are the places of the fields in a line of a CSV file, from 1.
type Columns struct{ Time, ID, Size int }

// String returns what [Columns.Set] reads.
func (c *Columns) String() string {
	return fmt.Sprintf("time=%d,id=%d,size=%d", c.Time, c.ID, c.Size)
}

// Type names the value of a flag.
func (c *Columns) Type() string { return "columns" }

// Set reads time=2,id=5,size=4. All three are required.
func (c *Columns) Set(text string) error {
	*c = Columns{}
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return fmt.Errorf("expected NAME=NUMBER, got %q; the first column is 1", part)
		}
		switch name {
		case "time":
			c.Time = n
		case "id":
			c.ID = n
		case "size":
			c.Size = n
		default:
			return fmt.Errorf("expected time, id or size, got %q", name)
		}
	}
	if c.Time == 0 || c.ID == 0 || c.Size == 0 {
		return errors.New("expected all of time, id and size")
	}
	return nil
}

// maxLine bounds a line of a CSV file, in bytes; one in quotes may have line ends.
const maxLine = 1 << 20

// bounded is a reader that ends with an error after so many bytes.
type bounded struct {
	r    io.Reader
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("a line has more than %d bytes", maxLine)
	}
	n, err := b.r.Read(p)
	b.left -= n
	return n, err
}

// readCSV reads lines in which times are seconds, with or without a fraction,
// and sizes are bytes. If the time in the first line is not a number, that line
// names the columns.
func readCSV(r io.Reader, c Columns, take func(Access)) error {
	record := &bounded{r: r}
	lines := csv.NewReader(record)
	lines.FieldsPerRecord = -1
	lines.ReuseRecord = true
	lines.TrimLeadingSpace = true
	for first := true; ; first = false {
		record.left = maxLine
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", sdk.ErrInvalid, err)
		}
		a, err := c.access(fields)
		if err != nil && first {
			continue // the names
		}
		if err != nil {
			line, _ := lines.FieldPos(0)
			return fmt.Errorf("%w: line %d: %w", sdk.ErrInvalid, line, err)
		}
		take(a)
	}
}

func (c Columns) access(fields []string) (Access, error) {
	if n := max(c.Time, c.ID, c.Size); len(fields) < n {
		return Access{}, fmt.Errorf("expected the columns %s, got %d columns", c.String(), len(fields))
	}
	seconds, err := strconv.ParseFloat(fields[c.Time-1], 64)
	if err != nil || math.Abs(seconds) > math.MaxInt64/float64(time.Second)/2 {
		return Access{}, fmt.Errorf("expected the time as a number of seconds, got %q", fields[c.Time-1])
	}
	size, err := strconv.ParseUint(fields[c.Size-1], 10, 64)
	if err != nil {
		return Access{}, fmt.Errorf("expected the size as a number of bytes, got %q", fields[c.Size-1])
	}
	return Access{At: int64(seconds * float64(time.Second)), Key: sdk.KeyOf(fields[c.ID-1]), Size: size}, nil
}
