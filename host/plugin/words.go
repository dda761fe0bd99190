package plugin

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"unicode"

	"github.com/imgcache/imgcache-host/sdk"
)

// The bounds of what the host keeps of what a plugin says. Messages have a bound too.
const (
	// maxManifestText bounds the version of a plugin in bytes, which is shown in
	// a cell of a table.
	maxManifestText = 64
	// maxOptions and maxCapabilities bound the lists in a manifest. No plugin has
	// more than 10 and 2 so far.
	maxOptions, maxCapabilities = 256, 64
	// maxNotes and maxNote bound the number of a plugin's notes and the bytes of
	// each, since every `status` shows them.
	maxNotes, maxNote = 16, 1000

	// maxListed and maxListedText bound the number of records in one list and the
	// bytes of their texts, since they may have to be kept in memory. No known
	// cache has ten million images.
	maxListed, maxListedText = 10_000_000, 2 << 30
	// maxEntryVersion bounds the version of an image, which may become an entity
	// tag and part of the image's block table: 4 KiB are enough for any digest or
	// tag.
	maxEntryVersion = 4 << 10
	// maxHits is the largest number that drivers must be able to keep by the
	// contract, 63 bits. It leaves room to count on.
	maxHits = math.MaxInt64

	// maxNodes bounds how many nodes are kept for an image; two of them are asked.
	maxNodes = 256
	// maxNodeName and maxNodeURL bound their names and addresses in bytes.
	maxNodeName, maxNodeURL = 255, 2 << 10
)

// plain reports whether a text can be shown without escapes.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })
}

// checkManifest returns an error for a manifest that sdk.Manifest.Validate refuses or
// that is beyond the bounds of the host. Errors wrap sdk.ErrInvalid.
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

// fewNotes returns the notes within their bounds.
func fewNotes(notes []string) []string {
	var kept []string
	for _, n := range notes[:min(len(notes), maxNotes)] {
		kept = append(kept, cut(n, maxNote))
	}
	return kept
}

// tally counts the records of a list.
type tally struct{ entries, text int }

// take counts a record and brings its fields within their bounds. It returns an error
// if the list is too long.
func (t *tally) take(e *sdk.Entry) error {
	t.entries++
	t.text += len(e.ID) + len(e.Version)
	if t.entries > maxListed || t.text > maxListedText {
		return fmt.Errorf("its list has %d records and %d bytes of text, expected at most %d and %d", t.entries, t.text, maxListed, maxListedText)
	}
	e.Hits = min(e.Hits, maxHits)
	if len(e.Version) > maxEntryVersion {
		e.Version = "" // as with a driver that keeps none
	}
	return nil
}

// reachable reports whether a node has an address that may be asked.
func reachable(n sdk.Node) bool {
	if len(n.Name) > maxNodeName || len(n.URL) > maxNodeURL {
		return false
	}
	u, err := url.Parse(n.URL)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}
