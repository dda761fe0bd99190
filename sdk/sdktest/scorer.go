package sdktest

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// The names of the cases of [Manifest].
const (
	manifestValid   = "the manifest is valid"
	manifestGreased = "the manifest stays valid with a capability of the future"
)

// Manifest holds a manifest to [sdk.Manifest].
func Manifest[S Runner[S]](t S, m sdk.Manifest) {
	t.Helper()
	t.Run(manifestValid, func(t S) {
		if err := m.Validate(); err != nil {
			t.Errorf("%v", err)
		}
	})
	t.Run(manifestGreased, func(t S) {
		if err := Grease(m).Validate(); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// Grease returns the manifest with a capability that nobody knows. Every
// layer must carry it or drop it, and work as before.
func Grease(m sdk.Manifest) sdk.Manifest {
	m.Capabilities = append([]sdk.Capability{"sdktest-grease"}, m.Capabilities...)
	return m
}

// Scorer holds a policy to [sdk.Scorer]. open returns it configured.
func Scorer[S Runner[S]](t S, open func(S) sdk.Scorer) {
	t.Helper()
	for _, c := range scorerCases {
		t.Run(c.name, func(t S) {
			t.Helper()
			c.run(&scorer{T: t, Scorer: open(t)})
		})
	}
}

type scorerCase struct {
	name     string
	sentence string // of the contract
	run      func(*scorer)
}

var scorerCases = []scorerCase{
	{"no records have no scores", scoreEach, func(s *scorer) { s.score(nil) }},
	{"equal records have equal scores at any time and place", scorePure, testScoreDeterminism},
	{"records are scored one by one", scorePure, testScoreSplit},
	{"the largest batch is scored", maxBatch, func(s *scorer) { s.score(randomRecords(sdk.MaxBatch)) }},
	{"no score is NaN, whatever the record", anyRecord, testScoreHostile},
	{"flags of the future are ignored", ignoreFlags, testScoreFlags},
}

// scorer is a policy in a test.
type scorer struct {
	T
	sdk.Scorer
}

// score returns the scores of records, having checked that each was written,
// is a number, and left its record alone.
func (s *scorer) score(records []sdk.Record) []float64 {
	s.Helper()
	return s.scoreAt(at, records)
}

func (s *scorer) scoreAt(now time.Time, records []sdk.Record) []float64 {
	s.Helper()
	before := append([]sdk.Record(nil), records...)
	scores := make([]float64, len(records))
	for i := range scores {
		scores[i] = math.NaN() // stays where nothing is written
	}
	if err := s.Score(s.Context(), now, records, scores); err != nil {
		s.Fatalf("Score(%d records) = %v, want nil", len(records), err)
	}
	for i := range records {
		if math.IsNaN(scores[i]) {
			s.Fatalf("record %d, %+v, has no score, or NaN", i, records[i])
		}
		if records[i] != before[i] {
			s.Fatalf("Score changed record %d", i)
		}
	}
	return scores
}

func (s *scorer) same(got, want []float64, what string) {
	s.Helper()
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			s.Fatalf("%s: record %d has the score %v, had %v", what, i, got[i], want[i])
		}
	}
}

func testScoreDeterminism(s *scorer) {
	records := randomRecords(1000)
	want := s.score(records)
	s.scoreAt(at.Add(time.Hour), randomRecords(100))
	s.same(s.score(records), want, "scored again")
	n := len(records)
	reversed := make([]sdk.Record, n)
	for i := range records {
		reversed[n-1-i] = records[i]
	}
	got := s.score(reversed)
	for i := range n / 2 {
		got[i], got[n-1-i] = got[n-1-i], got[i]
	}
	s.same(got, want, "scored in reverse")
}

func testScoreSplit(s *scorer) {
	records := randomRecords(500)
	want := s.score(records)
	var got []float64
	for size, rest := 1, records; len(rest) > 0; size += 13 {
		n := min(size, len(rest))
		got = append(got, s.score(rest[:n])...)
		rest = rest[n:]
	}
	s.same(got, want, "scored in parts")
}

func testScoreHostile(s *scorer) {
	sizes := []uint64{0, 1, 1 << 40, math.MaxInt64, math.MaxUint64}
	hits := []uint64{0, 1, math.MaxUint32, math.MaxUint64}
	times := []int64{math.MinInt64, -1, 0, at.UnixNano(), math.MaxInt64}
	var records []sdk.Record
	for _, size := range sizes {
		for _, h := range hits {
			for _, admitted := range times {
				for _, accessed := range times {
					records = append(records, sdk.Record{
						Key: sdk.Key(len(records)), Size: size, Hits: h, Admitted: admitted, Accessed: accessed,
						FetchMS: uint32(len(records)%2) * math.MaxUint32,
					})
				}
			}
		}
	}
	for _, now := range []time.Time{at, time.Unix(0, 0), time.Unix(0, math.MaxInt64), time.Unix(0, math.MinInt64)} {
		s.scoreAt(now, records)
	}
}

func testScoreFlags(s *scorer) {
	records := randomRecords(100)
	want := s.score(records)
	for i := range records {
		records[i].Flags |= 1<<31 | 1<<17 | 1<<8
	}
	s.same(s.score(records), want, "with unknown flags")
}

// randomRecords returns n records like those of a host, the same at each
// call.
func randomRecords(n int) []sdk.Record {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	list := make([]sdk.Record, n)
	for i := range list {
		admitted := at.Add(-time.Duration(rnd.Int64N(int64(90 * 24 * time.Hour))))
		list[i] = sdk.Record{
			Key:      sdk.Key(rnd.Uint64()),
			Size:     1 + rnd.Uint64N(1<<36),
			Hits:     rnd.Uint64N(1000),
			Admitted: admitted.UnixNano(),
			Accessed: admitted.UnixNano() + rnd.Int64N(int64(at.Sub(admitted))+1),
			FetchMS:  rnd.Uint32N(600_000),
			Flags:    sdk.Flags(rnd.Uint32N(4)),
		}
	}
	return list
}
