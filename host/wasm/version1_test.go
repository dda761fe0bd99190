package wasm

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// forever reads a file that never changes.
func forever(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// later returns a frame as a host sends it that knows more of everything: with
// fields appended to the header and to each element.
func later(frame []byte) []byte {
	le := binary.LittleEndian
	stride, count := le.Uint32(frame[4:]), le.Uint32(frame[8:])
	out := append(slices.Clone(frame[:abi.HeaderSize]), "of the next version, and after."...)
	out = append(out, 0) // to a multiple of 8
	le.PutUint32(out[0:], uint32(len(out)))
	le.PutUint32(out[4:], stride+16)
	for element := range slices.Chunk(frame[abi.HeaderSize:], int(stride)) {
		out = append(append(out, element...), "\xff\xfe a later field"[:16]...)
	}
	le.PutUint32(out[8:], count)
	return out
}

// asIs is the frame of today.
func asIs(frame []byte) []byte { return frame }

// framedScorer sends frames of some version to a module.
type framedScorer struct {
	scorer
	frame func([]byte) []byte
}

func (p framedScorer) Score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	return p.ScoreFrame(ctx, p.frame(abi.AppendRecords(nil, now.UnixNano(), records)), scores)
}

// framedStateful is the same for a stateful policy.
type framedStateful struct {
	snapshotter
	frame func([]byte) []byte
}

func (p framedStateful) Observe(ctx context.Context, events []sdk.Event) error {
	return p.ObserveFrame(ctx, p.frame(abi.AppendEvents(nil, 0, events)))
}

// TestModulesOfVersion1 runs modules that were built for version 1, and are
// never built again, with frames of that version and of one to come: they do
// what their textbooks say.
func TestModulesOfVersion1(t *testing.T) {
	for name, frame := range map[string]func([]byte) []byte{"version 1": asIs, "appended fields": later} {
		t.Run(name, func(t *testing.T) {
			oldest := load(t, forever(t, "v1", "oldest.wasm"), Options{}).Plugin().(scorer)
			sdktest.Manifest(t, oldest.manifest)
			sdktest.Scorer(t, func(*testing.T) sdk.Scorer { return framedScorer{oldest, frame} })
			policytest.Agree(t, 10_000, func(*testing.T) sdk.Stateful {
				return policytest.Ranked(framedScorer{oldest, frame})
			}, policytest.LRU)

			code := forever(t, "v1", "sifting.wasm")
			policytest.Agree(t, 10_000, func(t *testing.T) sdk.Stateful {
				return framedStateful{load(t, code, Options{}).Plugin().(snapshotter), frame}
			}, policytest.SIEVE)
		})
	}
}

// TestModulesReadGoldenFrames gives the same modules the frames that are kept
// with them.
func TestModulesReadGoldenFrames(t *testing.T) {
	oldest := load(t, forever(t, "v1", "oldest.wasm"), Options{}).Plugin().(scorer)
	for _, name := range []string{"records.bin", "records-later.bin"} {
		frame := forever(t, "frames", name)
		_, records, err := abi.Records(nil, frame)
		if err != nil {
			t.Fatal(err)
		}
		scores := make([]float64, len(records))
		if err := oldest.ScoreFrame(t.Context(), frame, scores); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, r := range records {
			want := float64(r.Accessed)
			if r.Flags&sdk.FlagPinned != 0 {
				want += 1e18
			}
			if scores[i] != want {
				t.Errorf("%s: record %d has the score %v, want %v", name, i, scores[i], want)
			}
		}
	}
	for _, name := range []string{"events.bin", "events-later.bin"} {
		sifting := load(t, forever(t, "v1", "sifting.wasm"), Options{}).Plugin().(snapshotter)
		if err := sifting.ObserveFrame(t.Context(), forever(t, "frames", name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		keys, err := sifting.Select(t.Context(), time.Now(), 1, 10)
		if want := []sdk.Key{0x0102030405060708}; err != nil || !slices.Equal(keys, want) {
			t.Errorf("%s: Select() = %x, %v, want %x", name, keys, err, want)
		}
	}
}
