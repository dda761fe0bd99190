package origin_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// relation is how two answers compare in one kind of validator.
type relation string

const (
	absent   relation = "absent"
	equal    relation = "equal"
	changed  relation = "changed"
	vanished relation = "vanished"
	appeared relation = "appeared"
	foreign  relation = "of another algorithm" // both have one, and they cannot be compared
)

// pair is a kind of validator in two answers.
type pair struct {
	what string
	rel  relation
	set  func(stored, now *origin.Validators)
}

func sum(text string) origin.Digest {
	s := sha256.Sum256([]byte(text))
	return origin.Digest{Algorithm: "sha256", Sum: s[:]}
}

func md5Of(b byte) origin.Digest {
	return origin.Digest{Algorithm: "md5", Sum: slices.Repeat([]byte{b}, 16)}
}

// both makes a pair of two values, which may be the same.
func both[T any](what string, rel relation, a, b T, into func(*origin.Validators, T)) pair {
	return pair{what, rel, func(stored, now *origin.Validators) { into(stored, a); into(now, b) }}
}

func etagPairs() []pair {
	into := func(v *origin.Validators, tag string) { v.ETag = tag }
	list := []pair{both("no ETag", absent, "", "", into)}
	forms := map[string]func(string) string{
		"strong":   func(s string) string { return `"` + s + `"` },
		"weak":     func(s string) string { return `W/"` + s + `"` },
		"unquoted": func(s string) string { return s },
		"hashed":   func(s string) string { return "sha256:" + strings.Repeat(s, 32) },
	}
	for name, form := range forms {
		list = append(list,
			both(name+" ETag stays", equal, form("1"), form("1"), into),
			both(name+" ETag changes", changed, form("1"), form("2"), into),
			both(name+" ETag vanishes", vanished, form("1"), "", into),
			both(name+" ETag appears", appeared, "", form("1"), into))
	}
	return append(list,
		both("ETag becomes weak", equal, `"1"`, `W/"1"`, into),
		both("ETag becomes strong", equal, `W/"1"`, `"1"`, into),
		both("ETag becomes another weak one", changed, `"1"`, `W/"2"`, into))
}

func timePairs() []pair {
	into := func(v *origin.Validators, t time.Time) { v.LastModified = t }
	none, at := time.Time{}, time.Unix(1e9, 0)
	return []pair{
		both("no time", absent, none, none, into),
		both("time stays", equal, at, at.UTC(), into),
		both("time goes on", changed, at, at.Add(time.Second), into),
		both("time goes back", changed, at, at.Add(-time.Second), into),
		both("time vanishes", vanished, at, none, into),
		both("time appears", appeared, none, at, into),
	}
}

func sizePairs() []pair {
	into := func(v *origin.Validators, n int64) { v.Size = n }
	return []pair{
		both("no size", absent, int64(-1), -1, into),
		both("size stays", equal, int64(10), 10, into),
		both("no bytes", equal, int64(0), 0, into),
		both("size changes", changed, int64(10), 11, into),
		both("image becomes empty", changed, int64(10), 0, into),
		both("size vanishes", vanished, int64(10), -1, into),
		both("size appears", appeared, int64(-1), 10, into),
	}
}

func digestPairs() []pair {
	into := func(v *origin.Validators, list []origin.Digest) { v.Digests = list }
	one := func(list ...origin.Digest) []origin.Digest { return list }
	return []pair{
		both("no digest", absent, nil, nil, into),
		both("digest stays", equal, one(sum("a")), one(sum("a")), into),
		both("digest changes", changed, one(sum("a")), one(sum("b")), into),
		both("digest vanishes", vanished, one(sum("a")), nil, into),
		both("digest appears", appeared, nil, one(sum("a")), into),
		both("another algorithm", foreign, one(sum("a")), one(md5Of(1)), into),
		both("one of two stays", equal, one(sum("a"), md5Of(1)), one(md5Of(1)), into),
		both("one of two changes", changed, one(sum("a"), md5Of(1)), one(sum("a"), md5Of(2)), into),
	}
}

func filePairs() []pair {
	into := func(v *origin.Validators, id string) { v.File = id }
	return []pair{
		both("no file", absent, "", "", into),
		both("file stays", equal, "f1", "f1", into),
		both("file changes", changed, "f1", "f2", into),
		both("file vanishes", vanished, "f1", "", into),
		both("file appears", appeared, "", "f1", into),
	}
}

// relations are those of all kinds of validators.
type relations struct{ digest, file, etag, time, size relation }

// model says the same as [origin.Judge], slowly and in other words: of what
// counts it makes a list of witnesses, the most credible one in front, and
// believes the first; but nobody is believed against a changed length.
func model(r relations, storedDigest bool, t origin.Terms) (origin.Verdict, string) {
	if t.Immutable && storedDigest {
		return origin.Same, "immutable"
	}
	counted := func(v origin.Validator) bool { return t.Validators == nil || slices.Contains(t.Validators, v) }
	type witness struct {
		name string
		says relation
	}
	var witnesses []witness
	if counted("digest") {
		witnesses = append(witnesses, witness{"digest", r.digest})
	}
	witnesses = append(witnesses, witness{"file", r.file})
	if counted("etag") {
		witnesses = append(witnesses, witness{"etag", r.etag})
	}
	if counted("last_modified") {
		witnesses = append(witnesses, witness{"last_modified", r.time})
	}
	if counted("size") && r.size == changed {
		return origin.Changed, "size"
	}
	for _, w := range witnesses {
		switch w.says {
		case equal:
			return origin.Same, w.name
		case changed:
			return origin.Changed, w.name
		}
	}
	switch {
	case !counted("size") || r.size != equal:
		return origin.Unknown, "no_validator"
	case len(t.Validators) == 1:
		return origin.Same, "size"
	}
	return origin.Unknown, "size_alone"
}

// someTerms are all that the configuration can say about validators.
func someTerms() []origin.Terms {
	var list []origin.Terms
	for bits := range 16 {
		var v []origin.Validator
		for i, kind := range origin.AllValidators() {
			if bits&(1<<i) != 0 {
				v = append(v, kind)
			}
		}
		list = append(list, origin.Terms{Validators: v}, origin.Terms{Validators: v, Immutable: true})
	}
	return list
}

// TestJudgeEveryCombination compares Judge with the model for each kind of
// validator in each relation, under each configuration.
func TestJudgeEveryCombination(t *testing.T) {
	terms := someTerms()
	n := 0
	for _, d := range digestPairs() {
		for _, f := range filePairs() {
			for _, e := range etagPairs() {
				for _, m := range timePairs() {
					for _, s := range sizePairs() {
						var stored, now origin.Validators
						for _, p := range []pair{d, f, e, m, s} {
							p.set(&stored, &now)
						}
						r := relations{d.rel, f.rel, e.rel, m.rel, s.rel}
						for _, tm := range terms {
							n++
							want, why := model(r, len(stored.Digests) > 0, tm)
							got, reason := origin.Judge(stored, now, tm)
							if got != want || string(reason) != why {
								t.Fatalf("%s, %s, %s, %s, %s; validators %v, immutable %v: %v by %s, want %v by %s",
									d.what, f.what, e.what, m.what, s.what, tm.Validators, tm.Immutable, got, reason, want, why)
							}
						}
					}
				}
			}
		}
	}
	if n < 500_000 {
		t.Errorf("only %d combinations were tried", n)
	}
}

// TestJudgeSentences says in single cases what the table is for.
func TestJudgeSentences(t *testing.T) {
	at := time.Unix(1e9, 0)
	a := origin.Validators{ETag: `"1"`, LastModified: at, Size: 10}
	with := func(edit func(*origin.Validators)) origin.Validators { v := a; edit(&v); return v }
	withDigest := func(d origin.Digest, tag string) origin.Validators {
		return with(func(v *origin.Validators) { v.Digests, v.ETag = []origin.Digest{d}, tag })
	}
	none := origin.NoValidators()
	for _, c := range []struct {
		what        string
		stored, now origin.Validators
		terms       origin.Terms
		want        origin.Verdict
	}{
		{"two answers that say nothing", none, none, origin.Terms{}, origin.Unknown},
		{"equal lengths alone", origin.Validators{Size: 10}, origin.Validators{Size: 10}, origin.Terms{}, origin.Unknown},
		{"another length alone", origin.Validators{Size: 10}, origin.Validators{Size: 11}, origin.Terms{}, origin.Changed},
		{"another length with the same ETag", a, with(func(v *origin.Validators) { v.Size = 11 }), origin.Terms{}, origin.Changed},
		{"a mirror with another ETag", withDigest(sum("x"), `"1"`), withDigest(sum("x"), `"2"`), origin.Terms{}, origin.Same},
		{"a mirror with another ETag and no digest", a, with(func(v *origin.Validators) { v.ETag = `"2"` }), origin.Terms{}, origin.Changed},
		{
			"the same where ETags do not count", a, with(func(v *origin.Validators) { v.ETag = `"2"` }),
			origin.Terms{Validators: []origin.Validator{origin.ByLastModified, origin.BySize}},
			origin.Same,
		},
		{"the ETag vanishes and the time stays", a, with(func(v *origin.Validators) { v.ETag = "" }), origin.Terms{}, origin.Same},
		{"a digest of another image", withDigest(sum("x"), `"1"`), withDigest(sum("y"), `"1"`), origin.Terms{}, origin.Changed},
		{"the same where names keep their image", withDigest(sum("x"), `"1"`), withDigest(sum("y"), `"1"`), origin.Terms{Immutable: true}, origin.Same},
		{"another ETag where names keep their image, without a digest", a, with(func(v *origin.Validators) { v.ETag = `"2"` }), origin.Terms{Immutable: true}, origin.Changed},
	} {
		if got, reason := origin.Judge(c.stored, c.now, c.terms); got != c.want {
			t.Errorf("%s: %v by %s, want %v", c.what, got, reason, c.want)
		}
	}
}

// FuzzJudge compares Judge with the model for validators of any content.
func FuzzJudge(f *testing.F) {
	f.Add(`"a"`, `W/"a"`, int64(1), int64(2), int64(-1), int64(5), byte(0), byte(1), "", "f", uint8(3))
	f.Add(`a`, ``, int64(0), int64(0), int64(7), int64(7), byte(9), byte(9), "f", "f", uint8(31))
	f.Fuzz(func(t *testing.T, tagA, tagB string, timeA, timeB, sizeA, sizeB int64, digestA, digestB byte, fileA, fileB string, config uint8) {
		make := func(tag string, seconds, size int64, digest byte, file string) origin.Validators {
			v := origin.Validators{ETag: tag, Size: max(size, -1), File: file}
			if seconds != 0 {
				v.LastModified = time.Unix(seconds%1e9, 0)
			}
			if digest != 0 {
				v.Digests = []origin.Digest{md5Of(digest)}
			}
			return v
		}
		a, b := make(tagA, timeA, sizeA, digestA, fileA), make(tagB, timeB, sizeB, digestB, fileB)
		if strings.HasPrefix(strings.TrimPrefix(tagA, "W/"), "sha256:") || strings.HasPrefix(strings.TrimPrefix(tagB, "W/"), "sha256:") {
			t.Skip("a tag that stands for another one")
		}
		terms := someTerms()[config%32]
		r := relations{
			digest: relate(digestA == 0, digestB == 0, digestA == digestB),
			file:   relate(fileA == "", fileB == "", fileA == fileB),
			etag:   relate(tagA == "", tagB == "", strings.TrimPrefix(tagA, "W/") == strings.TrimPrefix(tagB, "W/")),
			time:   relate(timeA == 0, timeB == 0, timeA%1e9 == timeB%1e9),
			size:   relate(a.Size < 0, b.Size < 0, a.Size == b.Size),
		}
		want, why := model(r, digestA != 0, terms)
		if got, reason := origin.Judge(a, b, terms); got != want || string(reason) != why {
			t.Errorf("%+v, %+v, %v: %v by %s, want %v by %s", a, b, terms.Validators, got, reason, want, why)
		}
		terms.Immutable = false
		there, _ := origin.Judge(a, b, terms)
		if back, _ := origin.Judge(b, a, terms); back != there {
			t.Errorf("%+v and %+v: %v there and %v back", a, b, there, back)
		}
	})
}

func relate(noA, noB, same bool) relation {
	switch {
	case noA && noB:
		return absent
	case noA:
		return appeared
	case noB:
		return vanished
	case same:
		return equal
	}
	return changed
}

// TestValidatorsAreKept checks that what is written down is the same when it is
// read again.
func TestValidatorsAreKept(t *testing.T) {
	for _, v := range []origin.Validators{
		origin.NoValidators(),
		{},
		{ETag: `W/"ä<&>"`, LastModified: time.Unix(1e9, 5), Size: 10, Digests: []origin.Digest{sum("x")}, File: "f1"},
		{ETag: "\tv 1", Size: -1},
	} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var again origin.Validators
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%+v", v) != fmt.Sprintf("%+v", again) && !v.LastModified.Equal(again.LastModified) {
			t.Errorf("%s is %+v, want %+v", text, again, v)
		}
		if got, why := origin.Judge(v, again, origin.Terms{}); got == origin.Changed {
			t.Errorf("%s has changed by %s", text, why)
		}
	}
}
