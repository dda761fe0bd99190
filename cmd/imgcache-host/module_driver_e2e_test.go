package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// buildCabinet returns the path of the driver that is a module.
func buildCabinet(t *testing.T) string {
	t.Helper()
	return buildOnce(t, "imgcache-driver-cabinet.wasm", []string{"GOOS=wasip1", "GOARCH=wasm"},
		"-buildmode=c-shared", "-ldflags=-s -w", "../../plugins/examples/go-wasm-driver")
}

// TestDriverIsModule keeps the records with a driver that is a module, behind
// all walls that there are, and kills its runner again and again while images
// come, go and are served, and the daemon at last. No download fails, and each
// hit is recorded once.
func TestDriverIsModule(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	steady := &counted{img: origin.add("steady", 100_000)}
	d := prepare(t, setup{
		origin: origin.block(), cache: "driver = driver.records\n",
		more: fmt.Sprintf("driver \"cabinet\" \"records\" {}\nplugin \"cabinet\" {\n  kind = \"driver\"\n  wasm = %q\n}\n", buildCabinet(t)),
	})
	state := filepath.Join(d.bin, "data", "plugins", "cabinet") // the data directory is that of all daemons
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	d.launch()
	d.eventually("the records are there", func() bool { return d.usage().Records == "ready" })
	steady.judge(t, steady.img, d.get("steady"))
	p := d.plugin("cabinet")
	if p.Runtime != "wasm" || p.State != "running" || len(p.Walls) == 0 {
		t.Errorf("the driver is %+v", p)
	}
	stop := steady.begin(d, offerMany(origin, 5))
	for kill := range 5 {
		before := steady.hits.Load()
		d.eventually("hits are served", func() bool { return steady.hits.Load() > before+20 })
		p := d.plugin("cabinet")
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && p.PID != 0 {
			t.Error(err)
		}
		d.eventually(fmt.Sprintf("the driver is back after kill %d", kill), func() bool {
			now := d.plugin("cabinet")
			return now.State == "running" && now.PID != p.PID
		})
	}
	stop()
	d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })
	d.wantHits(steady.hits.Load())
	d.kill9()
	d.launch()
	d.eventually("the records are there again", func() bool { return d.usage().Records == "ready" })
	d.wantHits(steady.hits.Load())
	if files, err := os.ReadDir(state); err != nil || len(files) != 1 || files[0].Name() != "kv" {
		t.Errorf("%v; the driver's directory has %v", err, files)
	}
	t.Logf("%d hits, all recorded", steady.hits.Load())
}

// TestCheckModule holds it to a part of its contract as an author would; package
// sdktest has all of it.
func TestCheckModule(t *testing.T) {
	t.Parallel()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "imgcache-host"), "plugin", "check", "--dir", inMemory(t), "--only", "restart", buildCabinet(t))
	cmd.Env = append(os.Environ(), quietRace)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "ok  ") != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
}
