package origin

import (
	"bytes"
	"slices"
	"time"
)

// Validators are what an origin says of an image by which two of its answers
// can be compared. The zero value says that the image is empty; [NoValidators]
// says nothing.
type Validators struct {
	// ETag is the entity tag as it was sent: strong, weak (W/"…"), or
	// malformed, as one without quotes. One that is longer than 1 KiB, or no
	// UTF-8, counts by its SHA-256. "": none, or one that names nothing.
	ETag         string    `json:"etag,omitempty"`
	LastModified time.Time `json:"last_modified,omitzero"`
	Size         int64     `json:"size"` // bytes; -1: unknown
	Digests      []Digest  `json:"digests,omitempty"`
	// File is the identity of a file of a directory, made of its device,
	// inode, times and size; "": it is none.
	File string `json:"file,omitempty"`
}

// NoValidators returns validators that say nothing.
func NoValidators() Validators { return Validators{Size: -1} }

// Validator is a kind of validator that a configuration can name.
type Validator string

// The kinds of validators, the one that decides first in front.
const (
	ByDigest       Validator = "digest"
	ByETag         Validator = "etag"
	ByLastModified Validator = "last_modified"
	BySize         Validator = "size"
)

// AllValidators is what counts unless a configuration says otherwise.
func AllValidators() []Validator { return []Validator{ByDigest, ByETag, ByLastModified, BySize} }

// Verdict is what an answer of the origin says of what is stored.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota // nothing that counts can be compared
	Same
	Changed
)

// String returns the verdict as a word.
func (v Verdict) String() string { return [...]string{"unknown", "same", "changed"}[v] }

// Reason is why [Judge] decided as it did: one of the kinds of validators, or
// one of these words.
type Reason string

// The reasons that are no kinds of validators.
const (
	// ReasonImmutable: the configuration says that the name never gets other
	// bytes.
	ReasonImmutable Reason = "immutable"
	// ReasonFile: the file of a directory is the same one, or another.
	ReasonFile Reason = "file"
	// ReasonSizeAlone: the lengths are equal, and nothing else is known of
	// both. Equal lengths prove nothing.
	ReasonSizeAlone Reason = "size_alone"
	// ReasonNoValidator: nothing is known of both.
	ReasonNoValidator Reason = "no_validator"
)

// Judge decides whether what is stored is still what the origin has: from what
// was stored, what the origin says now, and the configuration. It is the only
// place where that is decided. The first line of this table that holds decides;
// a validator that the terms do not count, or that one side alone has, decides
// nothing, so that one that vanishes or appears is never a change by itself.
//
//	what is compared                       | equal          | different
//	names are immutable, digest is stored  | Same           | Same
//	lengths                                | (go on)        | Changed: one of two equal digests would lie
//	digests, any algorithm that both have  | Same           | Changed, also where another algorithm agrees
//	files of a directory                   | Same           | Changed
//	entity tags of any form, less a W/     | Same           | Changed
//	times of the last change               | Same           | Changed, also to an earlier time
//	lengths, where they alone are counted  | Same           |
//	nothing of these                       | Unknown        |
//
// So a digest that agrees goes before an entity tag that does not, as mirrors
// have it, and an entity tag that agrees before a time that does not. Whoever
// gets Unknown knows no more than before: what is stored may be served as long
// as it is trusted, and has to be fetched again after that.
func Judge(stored, now Validators, t Terms) (Verdict, Reason) {
	if t.Frozen(stored) {
		return Same, ReasonImmutable
	}
	sizes := t.counts(BySize) && stored.Size >= 0 && now.Size >= 0
	if sizes && stored.Size != now.Size {
		return Changed, Reason(BySize)
	}
	for _, c := range []struct {
		reason Reason
		result Verdict
	}{
		{Reason(ByDigest), t.weigh(ByDigest, compareDigests(stored.Digests, now.Digests))},
		{ReasonFile, compareTexts(stored.File, now.File)},
		{Reason(ByETag), t.weigh(ByETag, compareTexts(tagKey(stored.ETag), tagKey(now.ETag)))},
		{Reason(ByLastModified), t.weigh(ByLastModified, compareTimes(stored.LastModified, now.LastModified))},
	} {
		if c.result != Unknown {
			return c.result, c.reason
		}
	}
	switch {
	case sizes && slices.Equal(t.Validators, []Validator{BySize}):
		return Same, Reason(BySize)
	case sizes:
		return Unknown, ReasonSizeAlone
	}
	return Unknown, ReasonNoValidator
}

// Frozen reports whether an image that is stored needs no question: its origin
// declared a digest, and the configuration says that the name keeps it.
func (t Terms) Frozen(stored Validators) bool { return t.Immutable && len(stored.Digests) > 0 }

// counts reports whether a kind of validator counts; all do where none is
// named.
func (t Terms) counts(v Validator) bool {
	return len(t.Validators) == 0 || slices.Contains(t.Validators, v)
}

// weigh makes a comparison void that does not count.
func (t Terms) weigh(v Validator, result Verdict) Verdict {
	if t.counts(v) {
		return result
	}
	return Unknown
}

// compareDigests compares the sums of the algorithms that both have.
func compareDigests(a, b []Digest) Verdict {
	result := Unknown
	for _, x := range a {
		for _, y := range b {
			switch {
			case x.Algorithm != y.Algorithm:
			case !bytes.Equal(x.Sum, y.Sum):
				return Changed
			default:
				result = Same
			}
		}
	}
	return result
}

func compareTexts(a, b string) Verdict {
	switch {
	case a == "" || b == "":
		return Unknown
	case a == b:
		return Same
	}
	return Changed
}

func compareTimes(a, b time.Time) Verdict {
	switch {
	case a.IsZero() || b.IsZero():
		return Unknown
	case a.Equal(b):
		return Same
	}
	return Changed
}
