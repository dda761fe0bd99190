package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// hostKills is how often the daemon is killed.
func hostKills() int {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return 100
	}
	return 10
}

// TestNoPluginOutlivesTheHost kills the daemon again and again, while its
// plugins are being started and while they work. They end with it, and the next
// start removes the sockets that they left.
func TestNoPluginOutlivesTheHost(t *testing.T) {
	t.Parallel()
	_, block := newUnderstudy(t, "driver", "sqlite", "sleep 0.1") // a script, which has a child
	d := prepare(t, setup{more: block})
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	var longest time.Duration
	var left []string // by earlier lives
	seen := 0
	wantRemoved := func(round int) {
		for _, name := range left {
			if exists(name) {
				t.Errorf("seed %d, round %d: %s is left of an earlier life", seed, round, name)
			}
		}
	}
	for round := range hostKills() {
		if round%2 == 0 {
			d.launch()
			wantRemoved(round)
		} else {
			d.spawn()
			moment := time.Duration(rng.IntN(1000)) * time.Millisecond
			for until := time.Now().Add(moment); time.Now().Before(until); {
				_ = d.offspring()
			}
		}
		seen += len(d.offspring())
		left = d.pluginFiles()
		d.kill9()
		killed := time.Now()
		eventually(t, "no plugin of the killed daemon runs", func() bool { return len(d.offspring()) == 0 })
		longest = max(longest, time.Since(killed))
	}
	d.launch()
	wantRemoved(hostKills())
	d.stop()
	if left := d.pluginFiles(); len(left) > 0 {
		t.Errorf("after a good end there is %v", left)
	}
	t.Logf("%d processes of plugins in %d daemons; the last was gone %v after its daemon", seen, hostKills(), longest)
}

// pluginFiles returns what the daemon keeps for its plugins in the run
// directory.
func (d *daemon) pluginFiles() []string {
	d.t.Helper()
	names, err := filepath.Glob(filepath.Join(d.runDir, "plugins", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	return names
}

// offspring returns the processes, except the daemon itself, that were told of
// its run directory, as each of its plugins is, or that have its command line,
// as what it forks at first.
func (d *daemon) offspring() (pids []int) {
	d.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || d.p != nil && pid == d.pid() {
			continue
		}
		environment, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ")) // of one that has gone, nothing
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if (bytes.Contains(environment, []byte(d.runDir)) || bytes.Contains(command, []byte(d.runDir))) && !gone(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
