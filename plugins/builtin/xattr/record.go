package xattr

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// record is what the attribute of a file says: one line of text, which an
// operator reads with getfattr.
//
//	v1 size=5000 hits=3 accessed=2026-11-23T01:02:03.4Z modified=… version="sha256:…" batch=<source>/17 crc32c=1a2b3c4d
//
// All of it is written at once. Text that is not exactly what encode writes is
// no record.
type record struct {
	entry   sdk.Entry // without id; without version when that lies in a file of its own
	long    string    // SHA-256 of such a version in hex; "": it is in entry
	batches []batch   // those that touched the file, newest last
}

// batch is the place of a batch in the log of its source.
type batch struct {
	source string // see sourceKey
	seq    uint64
}

// sourceKey returns the random id of a record log as it stands, and something
// as short for a source that is no such id.
func sourceKey(source string) string {
	if raw, err := hex.DecodeString(source); err == nil && len(raw) == 16 && strings.ToLower(source) == source {
		return source
	}
	sum := sha256.Sum256([]byte(source))
	return hex.EncodeToString(sum[:16])
}

func (b batch) String() string { return fmt.Sprintf("%s/%d", b.source, b.seq) }

// errDamaged says that an attribute is none of those that this driver writes.
var errDamaged = errors.New("damaged")

func (r record) encode() string {
	e := r.entry
	var b strings.Builder
	fmt.Fprintf(&b, "size=%d hits=%d accessed=%s modified=%s", e.Size, e.Hits, encodeTime(e.LastAccessed), encodeTime(e.LastModified))
	if r.long == "" {
		fmt.Fprintf(&b, " version=%s", strconv.QuoteToASCII(e.Version))
	} else {
		fmt.Fprintf(&b, " version-sha256=%s", r.long)
	}
	for _, t := range r.batches {
		fmt.Fprintf(&b, " batch=%s", t)
	}
	return seal(b.String())
}

func parseRecord(text string) (record, error) {
	p := parser{rest: unseal(text)}
	var r record
	r.entry.Size = int64(p.number("size="))
	r.entry.Hits = p.number("hits=")
	r.entry.LastAccessed = p.time("accessed=")
	r.entry.LastModified = p.time("modified=")
	if p.has("version-sha256=") {
		r.long = p.word("version-sha256=")
	} else {
		r.entry.Version = p.quoted("version=")
	}
	for p.has("batch=") {
		r.batches = append(r.batches, p.batch("batch="))
	}
	if r.encode() != text || r.entry.Size < 0 {
		return record{}, errDamaged
	}
	return r, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal puts the version of the format before a line and its checksum behind
// it.
func seal(line string) string {
	line = "v1 " + line
	return fmt.Sprintf("%s crc32c=%08x", line, crc32.Checksum([]byte(line), castagnoli))
}

// unseal returns the line in a text. Whether the text is whole shows when the
// line is sealed again.
func unseal(text string) string {
	line, _ := strings.CutPrefix(text, "v1 ")
	if i := strings.LastIndex(line, " crc32c="); i >= 0 {
		line = line[:i]
	}
	return line
}

// encodeTime returns "-" for a time that is not known, and for one that has no
// text.
func encodeTime(t time.Time) string {
	t = t.UTC()
	if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return "-"
	}
	return t.Format(time.RFC3339Nano)
}

// parser takes a line apart, field by field. It is content with anything: who
// uses it writes what was read again, and compares.
type parser struct{ rest string }

// has reports whether the next field has this name.
func (p *parser) has(name string) bool { return strings.HasPrefix(p.rest, name) }

// word returns the value of the next field up to a space.
func (p *parser) word(name string) string {
	value, rest, _ := strings.Cut(strings.TrimPrefix(p.rest, name), " ")
	p.rest = rest
	return value
}

func (p *parser) number(name string) uint64 {
	n, _ := strconv.ParseUint(p.word(name), 10, 64)
	return n
}

func (p *parser) time(name string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, p.word(name))
	return t.UTC()
}

func (p *parser) quoted(name string) string {
	value := strings.TrimPrefix(p.rest, name)
	prefix, _ := strconv.QuotedPrefix(value)
	p.rest = strings.TrimPrefix(value[len(prefix):], " ")
	text, _ := strconv.Unquote(prefix)
	return text
}

func (p *parser) batch(name string) batch {
	source, seq, _ := strings.Cut(p.word(name), "/")
	n, _ := strconv.ParseUint(seq, 10, 64)
	return batch{source, n}
}
