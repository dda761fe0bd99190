package origin

import (
	"bytes"
	"encoding/hex"
	"path"
	"slices"
	"strings"
)

// checksumList holds what a list of checksums says, as sha256sum and its
// siblings write it:
//
//	HEX  NAME            text
//	HEX *NAME            binary
//	\HEX  NA\nME         with escapes in the name
//	SHA256 (NAME) = HEX  BSD, and --tag; SHA2-256(NAME)= HEX of OpenSSL too
//	HEX                  the one line of a file.sha256
//
// Without a tag the length tells the algorithm: SHA-512, SHA-256 or MD5. Lines
// of any other form or algorithm, as comments and armor, say nothing.
type checksumList struct {
	sums map[string][]Digest // strongest first, by the name that stands there; "": of a sum alone
	// disputed are the names with two sums of one algorithm. They count as not
	// listed: nobody knows which of them is right.
	disputed map[string]bool
}

// parseChecksums reads a list. Text without any checksum makes an empty one.
func parseChecksums(text []byte) checksumList {
	l := checksumList{sums: map[string][]Digest{}, disputed: map[string]bool{}}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // Windows begins texts with it
	for line := range bytes.Lines(text) {
		name, d, ok := parseChecksum(strings.TrimRight(string(line), "\r\n"))
		if ok {
			l.add(cleanListed(name), d)
		}
	}
	for _, sums := range l.sums {
		slices.SortFunc(sums, func(a, b Digest) int { return len(b.Sum) - len(a.Sum) })
	}
	return l
}

// empty reports whether the text held no checksum at all.
func (l checksumList) empty() bool { return len(l.sums) == 0 }

// of returns the sums of a name, strongest first; none when it is not listed,
// or disputed.
func (l checksumList) of(name string) []Digest {
	if l.disputed[name] {
		return nil
	}
	return l.sums[name]
}

// ofOne returns the sums in the list of one image, called base there: those of
// its name, in whatever directory it was when the list was made, else one that
// stands alone or was made of a pipe.
func (l checksumList) ofOne(base string) []Digest {
	found := checksumList{sums: map[string][]Digest{}, disputed: map[string]bool{}}
	for name, sums := range l.sums {
		if name != "" && path.Base(name) == base {
			found.disputed[base] = found.disputed[base] || l.disputed[name]
			for _, d := range sums {
				found.add(base, d)
			}
		}
	}
	switch {
	case !found.empty():
		return found.of(base)
	case l.sums[""] != nil:
		return l.of("")
	}
	return l.of("-")
}

// add notes a sum. One that stands there twice is as good as once.
func (l checksumList) add(name string, d Digest) {
	for _, have := range l.sums[name] {
		if have.Algorithm == d.Algorithm {
			if !bytes.Equal(have.Sum, d.Sum) {
				l.disputed[name] = true
			}
			return
		}
	}
	l.sums[name] = append(l.sums[name], d)
}

// cleanListed takes the ./ away that find puts before names.
func cleanListed(name string) string {
	if name == "" {
		return ""
	}
	return path.Clean(name)
}

// parseChecksum reads one line. The name of a sum that stands alone is "".
func parseChecksum(line string) (name string, d Digest, ok bool) {
	line, escaped := strings.CutPrefix(line, `\`)
	name, d, ok = taggedChecksum(line)
	if !ok {
		name, d, ok = plainChecksum(line)
	}
	if ok && escaped {
		name, ok = unescapeListed(name)
	}
	return name, d, ok
}

// checksumTags are the algorithms by the tags of BSD and OpenSSL.
var checksumTags = map[string]string{
	"SHA512": algSHA512, "SHA2-512": algSHA512,
	"SHA256": algSHA256, "SHA2-256": algSHA256,
	"MD5": algMD5,
}

// taggedChecksum reads "SHA256 (NAME) = HEX". Names may hold parentheses.
func taggedChecksum(line string) (name string, d Digest, ok bool) {
	tag, rest, ok := strings.Cut(line, "(")
	end := strings.LastIndexByte(rest, ')')
	algorithm := checksumTags[strings.ToUpper(strings.TrimSpace(tag))]
	if !ok || end <= 0 || algorithm == "" {
		return "", Digest{}, false
	}
	digits, ok := strings.CutPrefix(strings.TrimSpace(rest[end+1:]), "=")
	if !ok {
		return "", Digest{}, false
	}
	sum, err := hex.DecodeString(strings.TrimSpace(digits))
	if err != nil || len(sum) != digestBytes[algorithm] {
		return "", Digest{}, false
	}
	return rest[:end], Digest{Algorithm: algorithm, Sum: sum}, true
}

// plainChecksum reads "HEX  NAME", "HEX *NAME", "HEX NAME" and "HEX". Of a name
// that begins with a blank or an asterisk the usual form has two characters
// before it.
func plainChecksum(line string) (name string, d Digest, ok bool) {
	digits, name := line, ""
	if end := strings.IndexAny(line, " \t"); end >= 0 {
		digits, name = line[:end], line[end+1:]
		if name != "" && strings.ContainsRune(" *\t", rune(name[0])) {
			name = name[1:]
		}
		if strings.TrimSpace(name) == "" {
			name = ""
		}
	}
	sum, err := hex.DecodeString(digits)
	if err != nil {
		return "", Digest{}, false
	}
	for _, algorithm := range []string{algSHA512, algSHA256, algMD5} {
		if len(sum) == digestBytes[algorithm] {
			return name, Digest{Algorithm: algorithm, Sum: sum}, true
		}
	}
	return "", Digest{}, false
}

// unescapeListed undoes the escapes of coreutils.
func unescapeListed(name string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '\\' {
			i++
			if i == len(name) {
				return "", false
			}
			plain := strings.IndexByte(`\nr`, name[i])
			if plain < 0 {
				return "", false
			}
			c = "\\\n\r"[plain]
		}
		b.WriteByte(c)
	}
	return b.String(), true
}
