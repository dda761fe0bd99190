package abi_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// clang runs the compiler for C policies, which the set-up script installs.
func clang(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "clang", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("clang %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHeaderConstants lets a C compiler compare the constants and sizes of
// imgcache_policy.h with those of this package.
func TestHeaderConstants(t *testing.T) {
	var c strings.Builder
	c.WriteString("#include \"imgcache_policy.h\"\n")
	for name, want := range map[string]uint32{
		"IMGCACHE_ABI_VERSION":                     abi.Version,
		"IMGCACHE_OK":                              uint32(abi.StatusOK),
		"IMGCACHE_NOT_FOUND":                       uint32(abi.StatusNotFound),
		"IMGCACHE_INVALID":                         uint32(abi.StatusInvalid),
		"IMGCACHE_UNSUPPORTED":                     uint32(abi.StatusUnsupported),
		"IMGCACHE_UNAVAILABLE":                     uint32(abi.StatusUnavailable),
		"IMGCACHE_PINNED":                          uint32(sdk.FlagPinned),
		"IMGCACHE_IN_USE":                          uint32(sdk.FlagInUse),
		"IMGCACHE_ADMITTED":                        uint32(sdk.EventAdmitted),
		"IMGCACHE_ACCESSED":                        uint32(sdk.EventAccessed),
		"IMGCACHE_REMOVED":                         uint32(sdk.EventRemoved),
		"IMGCACHE_REFUSED":                         uint32(sdk.EventRefused),
		"IMGCACHE_CAPACITY":                        uint32(sdk.EventCapacity),
		"IMGCACHE_EVICTED":                         uint32(sdk.ReasonEvicted),
		"IMGCACHE_DELETED":                         uint32(sdk.ReasonDeleted),
		"IMGCACHE_REPLACED":                        uint32(sdk.ReasonReplaced),
		"IMGCACHE_CORRUPT":                         uint32(sdk.ReasonCorrupt),
		"(uint32_t)sizeof(struct imgcache_frame)":  abi.HeaderSize,
		"(uint32_t)sizeof(struct imgcache_record)": abi.RecordSize,
		"(uint32_t)sizeof(struct imgcache_event)":  abi.EventSize,
	} {
		fmt.Fprintf(&c, "_Static_assert(%s == %du, \"differs\");\n", name, want)
	}
	clang(t, "--target=wasm32-wasi", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", ".", write(t, "constants.c", c.String()))
}

// TestHeaderNames: what the header exports and imports is what this package
// calls and offers.
func TestHeaderNames(t *testing.T) {
	b, err := os.ReadFile("imgcache_policy.h")
	if err != nil {
		t.Fatal(err)
	}
	header := string(b)
	exports := []string{
		abi.FuncVersion, abi.FuncAlloc, abi.FuncFree, abi.FuncConfigure, abi.FuncManifest,
		abi.FuncScore, abi.FuncObserve, abi.FuncSelect, abi.FuncSnapshot, abi.FuncRestore,
	}
	for _, name := range exports {
		if !strings.Contains(header, "IMGCACHE_EXPORT("+name+")\n") {
			t.Errorf("the header does not export %s", name)
		}
	}
	if got := strings.Count(header, "\nIMGCACHE_EXPORT("); got != len(exports) {
		t.Errorf("the header exports %d functions, want %d", got, len(exports))
	}
	for _, want := range []string{
		`import_module("` + abi.Module + `")`, "IMGCACHE_IMPORT(" + abi.ImportLog + ")",
		".custom_section." + abi.ManifestSection + ",",
	} {
		if !strings.Contains(header, want) {
			t.Errorf("the header has no %s", want)
		}
	}
}

// printer is a C program that prints frames as Go prints the structs.
const printer = `
#include <stdio.h>
#include <stdlib.h>
#include "imgcache_policy.h"

static _Alignas(8) char buf[1 << 16];

int main(int argc, char **argv)
{
	FILE *in = fopen(argv[1], "rb");
	if (argc != 3 || in == NULL || fread(buf, 1, sizeof buf, in) == 0)
		return 1;
	const struct imgcache_frame *f = (const void *)buf;
	printf("%lld\n", (long long)f->now_ns);
	for (uint32_t i = 0; i < f->count; i++) {
		if (argv[2][0] == 'r') {
			const struct imgcache_record *r = imgcache_record(f, i);
			printf("%llu %llu %llu %lld %lld %u %u\n", (unsigned long long)r->key, (unsigned long long)r->size,
			       (unsigned long long)r->hits, (long long)r->admitted_ns, (long long)r->accessed_ns, r->fetch_ms, r->flags);
		} else {
			const struct imgcache_event *e = imgcache_event(f, i);
			printf("%llu %llu %lld %u %u\n", (unsigned long long)e->key, (unsigned long long)e->size,
			       (long long)e->at_ns, e->kind, e->arg);
		}
	}
	return 0;
}
`

// TestHeaderReadsGoldenFrames runs C code on the golden frames.
func TestHeaderReadsGoldenFrames(t *testing.T) {
	program := filepath.Join(t.TempDir(), "printer")
	clang(t, "-Wall", "-Wextra", "-Werror", "-I", ".", "-o", program, write(t, "printer.c", printer))

	wantRecords := fmt.Sprintln(int64(now))
	for _, r := range records {
		wantRecords += fmt.Sprintln(uint64(r.Key), r.Size, r.Hits, r.Admitted, r.Accessed, r.FetchMS, uint32(r.Flags))
	}
	wantEvents := fmt.Sprintln(int64(now))
	for _, e := range events {
		wantEvents += fmt.Sprintln(uint64(e.Key), e.Size, e.At, uint32(e.Kind), e.Count+uint32(e.Reason))
	}
	for name, want := range map[string]string{
		"records.bin": wantRecords, "records-later.bin": wantRecords,
		"events.bin": wantEvents, "events-later.bin": wantEvents,
	} {
		got, err := exec.CommandContext(t.Context(), program, goldenPath(name), name).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s: C reads\n%s%v\nwant\n%s", name, got, err, want)
		}
	}
}
