package origin

import (
	"bytes"
	"slices"
	"time"
)

// Validators are the parts of an origin's answer by which it can be compared with
// another answer. The zero value says that the image is empty; [NoValidators] says
// nothing.
type Validators struct {
	// ETag is the entity tag as it was sent: strong, weak (W/"…"), or malformed,
	// for example without quotes. If it is longer than 1 KiB or not UTF-8, its
	// SHA-256 stands for it. "": there is none, or an empty one.
	ETag         string    `json:"etag,omitempty"`
	LastModified time.Time `json:"last_modified,omitzero"`
	Size         int64     `json:"size"` // bytes; -1: unknown
	Digests      []Digest  `json:"digests,omitempty"`
	// File is the identity of a file in a directory, made of its device, inode,
	// times and size; "": the image is not a file.
	File string `json:"file,omitempty"`
}

// NoValidators returns validators that say nothing.
func NoValidators() Validators { return Validators{Size: -1} }

// Validator is a kind of validator that a configuration can name.
type Validator string

// The kinds of validators, in the order in which they decide.
const (
	ByDigest       Validator = "digest"
	ByETag         Validator = "etag"
	ByLastModified Validator = "last_modified"
	BySize         Validator = "size"
)

// AllValidators returns the validators that count unless a configuration says
// otherwise.
func AllValidators() []Validator { return []Validator{ByDigest, ByETag, ByLastModified, BySize} }

// Verdict says whether an answer of the origin is about the image that is stored.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota // there is nothing to compare
	Same
	Changed
)

// String returns the verdict as a word.
func (v Verdict) String() string { return [...]string{"unknown", "same", "changed"}[v] }

// Reason is why [Judge] decided as it did: a kind of validator, or one of the
// following words.
type Reason string

// The reasons that are not kinds of validators.
const (
	// ReasonImmutable: the configuration says that the name never gets other
	// bytes.
	ReasonImmutable Reason = "immutable"
	// ReasonFile: the file in a directory is the same, or another one.
	ReasonFile Reason = "file"
	// ReasonSizeAlone: the lengths are equal, and nothing else can be compared.
	// Equal lengths prove nothing.
	ReasonSizeAlone Reason = "size_alone"
	// ReasonNoValidator: nothing can be compared.
	ReasonNoValidator Reason = "no_validator"
)

// Judge decides whether the stored image is still the one that the origin has, from
// what was stored, what the origin says now, and the configuration. This is decided
// nowhere else. The first line of this table that applies decides. A validator that
// does not count by the terms, or that only one side has, decides nothing: if one
// appears or vanishes, that alone is not a change.
//
//	what is compared                       | equal          | different
//	names are immutable, digest is stored  | Same           | Same
//	lengths                                | (go on)        | Changed, even if digests are equal: one must be wrong
//	digests, any algorithm that both have  | Same           | Changed, even if another algorithm agrees
//	files in a directory                   | Same           | Changed
//	entity tags of any form, without W/    | Same           | Changed
//	times of the last change               | Same           | Changed, also to an earlier time
//	lengths, if only they count            | Same           |
//	none of these                          | Unknown        |
//
// So an equal digest outweighs a different entity tag, which mirrors often have,
// and an equal entity tag outweighs a different time. After Unknown nothing more is
// known than before: the stored image may be served as long as it is trusted, and
// has to be fetched again after that.
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

// Frozen reports whether the origin need not be asked about a stored image: it has
// declared a digest, and the configuration says that the name never gets another.
func (t Terms) Frozen(stored Validators) bool { return t.Immutable && len(stored.Digests) > 0 }

// counts reports whether a kind of validator counts. If the terms name none, all
// count.
func (t Terms) counts(v Validator) bool {
	return len(t.Validators) == 0 || slices.Contains(t.Validators, v)
}

// weigh returns the result of a comparison if that kind counts, or else Unknown.
func (t Terms) weigh(v Validator, result Verdict) Verdict {
	if t.counts(v) {
		return result
	}
	return Unknown
}

// compareDigests compares the sums of the algorithms that both sides have.
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
