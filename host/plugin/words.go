package plugin

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"unicode"

	"github.com/imgcache/imgcache-host/sdk"
)

// The bounds of what a plugin says and the host keeps, beside that of a message.
const (
	// maxManifestText bounds the version of a plugin in bytes: it is a cell of
	// a table.
	maxManifestText = 64
	// maxOptions and maxCapabilities bound its lists; the most that a plugin has
	// so far are 10 and 2.
	maxOptions, maxCapabilities = 256, 64
	// maxNotes and maxNote bound what it says of how it works as it is
	// configured, in sentences and bytes: they are shown at each `status`.
	maxNotes, maxNote = 16, 1000

	// maxListed and maxListedText bound the records of one list, and the bytes of
	// their texts: whoever compares lists keeps them. A cache of ten million
	// images is larger than any that is known.
	maxListed, maxListedText = 10_000_000, 2 << 30
	// maxEntryVersion bounds the version of an image, which may become an entity
	// tag and part of the image's block table: 4 KiB are enough for any digest or
	// tag.
	maxEntryVersion = 4 << 10
	// maxHits is what the contract has drivers keep, 63 bits, and leaves room to
	// count on.
	maxHits = math.MaxInt64

	// maxNodes bounds how many nodes hold an image; two of them are asked.
	maxNodes = 256
	// maxNodeName and maxNodeURL bound their names and addresses in bytes.
	maxNodeName, maxNodeURL = 255, 2 << 10
)

// plain reports whether a text can be shown to a person as it is.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })
}

// checkManifest says what is wrong with the manifest of a plugin, beside what
// sdk.Manifest.Validate finds. Errors wrap sdk.ErrInvalid.
func checkManifest(m sdk.Manifest) error {
	if err := m.Validate(); err != nil {
		return err
	}
	switch {
	case len(m.Version) > maxManifestText || !plain(m.Version):
		return fmt.Errorf("%w: version %s, expected at most %d bytes that can be shown", sdk.ErrInvalid, quoted(m.Version), maxManifestText)
	case len(m.Options) > maxOptions:
		return fmt.Errorf("%w: %d options, expected at most %d", sdk.ErrInvalid, len(m.Options), maxOptions)
	case len(m.Capabilities) > maxCapabilities || len(m.Requests) > maxCapabilities:
		return fmt.Errorf("%w: %d capabilities and %d requests, expected at most %d of each", sdk.ErrInvalid, len(m.Capabilities), len(m.Requests), maxCapabilities)
	}
	for _, o := range m.Options {
		if !plain(o.Default) {
			return fmt.Errorf("%w: option %q: its default %s cannot be shown", sdk.ErrInvalid, o.Name, quoted(o.Default))
		}
		if !plain(strings.ReplaceAll(o.Description, "\n", " ")) {
			return fmt.Errorf("%w: option %q: its description %s cannot be shown", sdk.ErrInvalid, o.Name, quoted(o.Description))
		}
	}
	return nil
}

// fewNotes returns what is kept of notes.
func fewNotes(notes []string) []string {
	var kept []string
	for _, n := range notes[:min(len(notes), maxNotes)] {
		kept = append(kept, cut(n, maxNote))
	}
	return kept
}

// tally bounds a list of records.
type tally struct{ entries, text int }

// take counts a record and makes its fields such as a record may have.
func (t *tally) take(e *sdk.Entry) error {
	t.entries++
	t.text += len(e.ID) + len(e.Version)
	if t.entries > maxListed || t.text > maxListedText {
		return fmt.Errorf("its list has %d records and %d bytes of text, expected at most %d and %d", t.entries, t.text, maxListed, maxListedText)
	}
	e.Hits = min(e.Hits, maxHits)
	if len(e.Version) > maxEntryVersion {
		e.Version = "" // as of a driver that keeps none
	}
	return nil
}

// reachable reports whether a node may be asked, should it be one.
func reachable(n sdk.Node) bool {
	if len(n.Name) > maxNodeName || len(n.URL) > maxNodeURL {
		return false
	}
	u, err := url.Parse(n.URL)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}
