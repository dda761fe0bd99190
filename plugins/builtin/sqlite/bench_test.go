package sqlite

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// filled returns a driver over n records.
func filled(b *testing.B, n int) *Driver {
	b.Helper()
	d := New(slog.New(slog.DiscardHandler))
	if err := d.Configure(b.Context(), sdk.Settings{CacheDir: b.TempDir()}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	ops := make([]sdk.Op, n)
	for i := range ops {
		ops[i] = sdk.Put(record(i))
	}
	if err := d.Apply(b.Context(), sdk.Batch{Source: "fill", Seq: 1, Ops: ops}); err != nil {
		b.Fatal(err)
	}
	return d
}

func record(i int) sdk.Entry {
	now := time.Now()
	return sdk.Entry{
		ID: fmt.Sprintf("%08x-7c8e-4f53-9c6d-1f2a3b4c5d6e", i*2654435761), Version: fmt.Sprintf("sha256:%064x", i),
		Size: 1 << 30, Hits: uint64(i), LastAccessed: now, LastModified: now,
	}
}

func BenchmarkApply(b *testing.B) {
	for _, kind := range []sdk.OpKind{sdk.OpTouch, sdk.OpPut} {
		for _, n := range []int{1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				d := filled(b, 100_000)
				ops := make([]sdk.Op, n)
				for i := range ops {
					ops[i] = sdk.Op{Kind: kind, Entry: record(i * 100_000 / n)}
					ops[i].Entry.Hits = 1
				}
				for seq := uint64(1); b.Loop(); seq++ {
					if err := d.Apply(b.Context(), sdk.Batch{Source: "bench", Seq: seq, Ops: ops}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkList(b *testing.B) {
	d := filled(b, 100_000)
	for b.Loop() {
		if err := d.List(b.Context(), func([]sdk.Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	d := filled(b, 100_000)
	var dir string
	_ = d.db.writer.QueryRow("SELECT file FROM pragma_database_list").Scan(&dir)
	for b.Loop() {
		db, err := openDatabase(b.Context(), dir, true, time.Second, ownFormat, nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = db.close()
	}
}
