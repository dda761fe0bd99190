package xattr

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

// BenchmarkRecords works on 10000 images, in the directory for tests.
func BenchmarkRecords(b *testing.B) {
	const images = 10_000
	dir := b.TempDir()
	d := New(slog.New(slog.DiscardHandler))
	if err := d.Configure(b.Context(), sdk.Settings{CacheDir: dir}); err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	var puts, touches []sdk.Op
	for i := range images {
		id := fmt.Sprint("image", i)
		if err := os.WriteFile(filepath.Join(dir, id), nil, 0o640); err != nil {
			b.Fatal(err)
		}
		puts, touches = append(puts, sdk.Put(entry(id, 0))), append(touches, sdk.Touch(id, 1, moment))
	}
	batch := next(logA)
	if err := d.Apply(b.Context(), batch(puts...)); err != nil {
		b.Fatal(err)
	}
	b.Run("touch", func(b *testing.B) {
		for b.Loop() {
			if err := d.Apply(b.Context(), batch(touches...)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*images), "µs/record")
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if err := d.List(b.Context(), func([]sdk.Entry) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*images), "µs/record")
	})
}
