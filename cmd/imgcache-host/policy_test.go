package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/simulate"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/plugins/builtin/fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/gdsf"
	"github.com/imgcache/imgcache-host/plugins/builtin/lfu"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/plugins/builtin/s3fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestSimulate: the modules that ship make the same of a trace as the same
// policies natively, request by request.
func TestSimulate(t *testing.T) {
	t.Parallel()
	native := map[string]func() any{
		"lru": func() any { return lru.New() }, "lfu": func() any { return lfu.New() }, "fifo": func() any { return fifo.New() },
		"gdsf": func() any { return gdsf.New() }, "sieve": func() any { return sieve.New() }, "s3fifo": func() any { return s3fifo.New() },
	}
	rnd := rand.New(rand.NewPCG(5, 5))
	z := rand.NewZipf(rnd, 1.1, 4, 300)
	file := trace.AppendHeader(nil)
	for i := range 4000 {
		key := z.Uint64()
		file = trace.Append(file, trace.Access{At: int64(i) * 1e9, Key: sdk.KeyOf(fmt.Sprint(key)), Size: 1 + key*613%900})
	}
	path := filepath.Join(t.TempDir(), "requests.trace")
	writeFile(t, path, string(file))
	requests, err := trace.ReadFile(path, "", trace.Columns{})
	if err != nil {
		t.Fatal(err)
	}

	var policies []simulate.Policy
	args := []string{"policy", "simulate", "--trace", path, "--size", "5KiB,40KiB", "--output", "json"}
	for name, open := range native {
		policies = append(policies, simulate.Policy{Name: name, Open: func(context.Context) (any, func(), error) { return open(), func() {}, nil }})
		args = append(args, "--policy", name)
	}
	want, err := simulate.Run(t.Context(), requests, policies, []uint64{5 << 10, 40 << 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := runBuilt(t, args...)
	var answer struct{ Results []simulate.Result }
	if err == nil {
		err = json.Unmarshal([]byte(out), &answer)
	}
	if err != nil || !slices.Equal(answer.Results, want) {
		t.Errorf("%v: the modules make of it\n%s\nnatively it is\n%+v", err, out, want)
	}
	misses := map[uint64]map[uint64]bool{5 << 10: {}, 40 << 10: {}}
	for _, r := range want {
		misses[r.Size][r.Misses] = true
	}
	if len(misses[5<<10]) < 5 || len(misses[40<<10]) < 5 {
		t.Errorf("the trace tells the policies hardly apart: %+v", want)
	}
}

// runBuilt runs the program as it was built, with its plugins beside it, and
// returns what it prints; the error has what it complains of.
func runBuilt(t *testing.T, args ...string) (string, error) {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "imgcache-host"), args...)
	cmd.Env = append(os.Environ(), quietRace)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, &errs)
	}
	return out.String(), nil
}

// TestSimulateShows: a table and a picture; what is wrong with the question is
// said.
func TestSimulateShows(t *testing.T) {
	t.Parallel()
	csv := filepath.Join(t.TempDir(), "requests.csv")
	writeFile(t, csv, "1,a,100\n2,b,100\n3,a,100\n4,c,100\n5,a,100\n6,b,100\n")
	common := []string{"policy", "simulate", "--trace", csv}
	out, err := runBuilt(t, append(common, "--policy", "lru", "--policy", "gdsf?cost=byte", "--size", "200B,1KiB")...)
	if err != nil || !strings.Contains(out, "lru             200 B    6         4       0.6667      0.6667") || !strings.Contains(out, "gdsf?cost=byte") ||
		!strings.Contains(out, "belady") {
		t.Errorf("%v:\n%s", err, out)
	}
	out, err = runBuilt(t, append(common, "--policy", "lru", "--size", "200B,1KiB", "--output", "svg")...)
	if err != nil || strings.Count(out, "<polyline") != 2 || wellFormed(out) != nil {
		t.Errorf("%v, %v:\n%s", err, wellFormed(out), out)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--trace, --policy and --size are required"},
		{[]string{"--policy", "lru", "--size", "much"}, exitUsage, `expected a size such as 10GiB, got "much"`},
		{[]string{"--policy", "lru", "--size", "1KiB", "--format", "xml"}, exitUsage, `expected own, csv or oraclegeneral, got "xml"`},
		{[]string{"--policy", "lru", "--size", "1KiB", "--columns", "time=1"}, exitUsage, "expected all of time, id and size"},
		{[]string{"--policy", "lur", "--size", "1KiB"}, exitNotFound, "no lur.wasm in "},
		{[]string{"--policy", "lru?speed=1", "--size", "1KiB"}, exitError, `it has no option "speed"`},
		{[]string{"--policy", "../../testdata/wasm/trap.wasm", "--size", "200B"}, exitError, "policy trap: request "},
		{[]string{"--policy", "../../testdata/wasm/calls.wasm", "--size", "200B", "--timeout", "2s"}, exitError, "a policy does not answer"},
		{[]string{"--policy", "../../testdata/wasm/spin.wasm", "--policy", "lru", "--size", "200B", "--timeout", "2s"}, exitError, "for 2s"},
		{[]string{"--policy", "lru", "--size", "1KiB", "--timeout", "0s"}, exitUsage, "--timeout: expected a duration above zero"},
		{[]string{"--policy", "lru", "--size", "1KiB", "--columns", "time=2,id=1,size=3"}, exitError, `line 2: expected the time as a number of seconds, got "b"`},
	} {
		_, err := runBuilt(t, append(common, test.args...)...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want exit code %d and %q", test.args, err, test.code, test.want)
		}
	}
}

func wellFormed(text string) error {
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
