package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/plugin"
)

// kills is how often TestKill kills the daemon.
const kills = 50

// offerMany adds n images of up to 3 MiB to the origin.
func offerMany(o *testOrigin, n int) []*offered {
	list := make([]*offered, n)
	for i := range list {
		list[i] = o.add(fmt.Sprintf("img%d", i), int64(1+i%3)*mib-int64(i*1000))
	}
	return list
}

// load downloads images at random, in some goroutines, until the returned
// function is called. Each takes every answer.
func (d *daemon) load(clients int, images []*offered, each func(*offered, answer)) (stop func()) {
	var wg sync.WaitGroup
	var stopped atomic.Bool
	for range clients {
		wg.Go(func() {
			for !stopped.Load() {
				img := images[rand.IntN(len(images))]
				each(img, d.try(img.id))
			}
		})
	}
	return func() {
		stopped.Store(true)
		wg.Wait()
	}
}

// try is get for a daemon that may be away.
func (d *daemon) try(id string) answer {
	resp, err := d.request(context.Background(), http.MethodGet, id)
	if err != nil {
		return answer{err: err}
	}
	return read(resp)
}

// TestKill kills the daemon again and again under a load of misses, hits,
// evictions, prunes and queue entries. After each start every image is whole
// and can be cached, and nobody is left of the former life.
func TestKill(t *testing.T) {
	origin := newOrigin(t)
	images := offerMany(origin, 12)
	d := start(t, setup{origin: origin.block(), cache: `max_size = "12MiB"`})
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 0))
	checked := 0
	for round := range kills {
		wrong := make(chan error, 1)
		stop := d.load(4, images, func(img *offered, a answer) {
			if a.err == nil && a.status == http.StatusOK {
				if err := img.check(a); err != nil {
					select {
					case wrong <- err:
					default:
					}
				}
			}
		})
		deadline := time.Now().Add(time.Duration(rng.IntN(400)) * time.Millisecond)
		for time.Now().Before(deadline) {
			_, _ = d.api.Queue(t.Context(), fmt.Sprintf("img%d", rng.IntN(len(images))))
			_, _ = d.admin.Post("http://d/v1/prune", "application/json", strings.NewReader(`{"max_size": 4000000}`))
		}
		pids := d.plugins()
		d.kill9()
		stop()
		for name, pid := range pids {
			eventually(t, fmt.Sprintf("plugin %s of the killed daemon is gone", name), func() bool { return gone(pid) })
		}
		d.restart()
		select {
		case err := <-wrong:
			t.Fatalf("seed %d, round %d: wrong bytes: %v", seed, round, err)
		default:
		}
		for _, img := range images[round%3 : round%3+4] {
			if err := img.check(d.get(img.id)); err != nil {
				t.Fatalf("seed %d, round %d: after the restart: %v", seed, round, err)
			}
			checked++
		}
	}
	for _, name := range d.files("incomplete") {
		if !strings.Contains(name, "~") {
			t.Errorf("incomplete/%s is not of our making", name)
		}
	}
	d.wantCacheable(images)
	t.Logf("%d kills; %d images were checked after them", kills, checked)
}

// wantCacheable wants nothing to block any image, and nothing without an owner
// to be left in incomplete/.
func (d *daemon) wantCacheable(images []*offered) {
	d.t.Helper()
	for _, img := range images {
		d.call(http.MethodDelete, "/v1/queue/"+img.id, "")
		if a := d.call(http.MethodDelete, "/v1/images/"+img.id, ""); a.status != http.StatusNoContent {
			d.t.Errorf("delete %s: status %d: %s", img.id, a.status, a.body)
		}
		if err := img.check(d.get(img.id)); err != nil {
			d.t.Error(err)
		}
		d.waitState(img.id, cache.StateCached)
	}
	d.eventually("incomplete/ is empty", func() bool { return len(d.files("incomplete")) == 0 })
}

// gone reports whether no process has the pid, or only its remains.
func gone(pid int) bool {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(status), ") ")
	return strings.HasPrefix(after, "Z")
}

// TestPluginsDie kills and stops driver and policy in turn while clients
// download. No download fails, and the hits that are recorded in the end are
// those that were served.
func TestPluginsDie(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	// The eight clients hold at most half of the cache, so that there is always
	// somebody less recently used than the image that is read all the time.
	images := make([]*offered, 30)
	for i := range images {
		images[i] = origin.add(fmt.Sprintf("img%d", i), mib-int64(i*1000))
	}
	steady := origin.add("steady", 100_000)
	d := start(t, setup{origin: origin.block(), cache: `max_size = "16MiB"`})
	if err := steady.check(d.get("steady")); err != nil {
		t.Fatal(err)
	}
	d.waitState("steady", cache.StateCached)
	var hits, downloads, failed atomic.Int64
	judge := func(img *offered, a answer) {
		downloads.Add(1)
		if err := img.check(a); err != nil {
			failed.Add(1)
			t.Error(err)
		}
	}
	stopSteady := d.load(1, []*offered{steady}, func(img *offered, a answer) {
		judge(img, a)
		if strings.Contains(a.cacheStatus(), "; hit") {
			hits.Add(1)
		}
	})
	stop := d.load(8, images, judge)
	for i := range 6 {
		name, signal := []string{"sqlite", "lru"}[i%2], []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGSTOP}[i%3]
		pid := d.plugins()[name]
		if err := syscall.Kill(pid, signal); err != nil {
			t.Errorf("%v %s: %v", signal, name, err)
		}
		d.eventually("plugin "+name+" runs again", func() bool {
			now := d.plugins()[name]
			return now != 0 && now != pid
		})
	}
	stop()
	stopSteady()
	d.eventually("all records are sent", func() bool { u := d.usage(); return u.Unsent == 0 && u.Records == "ready" })
	code, out, _ := command(t, "plugin", "list", "--socket", d.socket, "--output", "json")
	var list struct{ Plugins []plugin.Status }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Plugins) != 2 {
		t.Fatalf("plugin list: exit code %d, %v: %s", code, err, out)
	}
	for _, p := range list.Plugins {
		if p.Restarts < 3 || p.LastError == "" {
			t.Errorf("plugin %s shows %d restarts and the last error %q; want 3 and a reason", p.Name, p.Restarts, p.LastError)
		}
	}
	t.Logf("%d downloads, %d failed, %d hits counted", downloads.Load(), failed.Load(), hits.Load())
	d.wantHits(hits.Load())
	d.stop()
	d.restart()
	d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
	d.wantHits(hits.Load())
}

// wantHits compares the record of the image steady with what its client
// counted. A download may be recorded a moment after its last byte.
func (d *daemon) wantHits(want int64) {
	d.t.Helper()
	var got int64
	defer func() {
		if got != want {
			d.t.Logf("%d hits are recorded, %d were served", got, want)
		}
	}()
	d.eventually("the hits recorded are those served", func() bool {
		got = int64(d.state("steady").Hits)
		return got == want
	})
}

// TestPolicyMisbehaves configures policies that loop, trap, answer nonsense
// and name strangers: a prune ends all the same, says why, and downloads do
// not notice.
func TestPolicyMisbehaves(t *testing.T) {
	t.Parallel()
	for name, why := range map[string]string{
		"spin":    "no answer within",
		"trap":    "unreachable",
		"nan":     "NaN",
		"foreign": "not in the cache",
	} {
		t.Run(name, func(t *testing.T) {
			origin := newOrigin(t)
			images := offerMany(origin, 6)
			module, err := filepath.Abs(filepath.Join("../../testdata/wasm", name+".wasm"))
			if err != nil {
				t.Fatal(err)
			}
			d := start(t, setup{origin: origin.block(), cache: `policy = policy.bad`, more: fmt.Sprintf(`
plugin %q {
  kind = "policy"
  wasm = %q
  limits {
    timeout = "2s"
  }
}
policy %q "bad" {
}
`, name, module, name)})
			for _, img := range images {
				if err := img.check(d.get(img.id)); err != nil {
					t.Fatal(err)
				}
				d.waitState(img.id, cache.StateCached)
			}
			if err := images[0].check(d.get(images[0].id)); err != nil {
				t.Fatal(err)
			}
			stop := d.load(2, images[:1], func(img *offered, a answer) {
				if err := img.check(a); err != nil {
					t.Error(err)
				}
			})
			a := d.call(http.MethodPost, "/v1/prune", fmt.Sprintf(`{"max_size": %d}`, images[0].size+images[5].size))
			stop()
			var result cache.Result
			a.decode(t, &result)
			if result.Files != 4 {
				t.Errorf("the prune removed %d files, want 4", result.Files)
			}
			for i, want := range []cache.State{"cached", "absent", "absent", "absent", "absent", "cached"} {
				if got := d.state(images[i].id).State; got != want {
					t.Errorf("%s is %s, want %s", images[i].id, got, want)
				}
			}
			if p := d.usage().Policy; !strings.HasPrefix(p, "lru (fallback)") || !strings.Contains(p, why) {
				t.Errorf("the policy in charge is %q, want the fallback because of %q", p, why)
			}
		})
	}
}

// TestDrain lets a running download end, and refuses a second daemon.
func TestDrain(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("image", 4*mib).gateAt(2 * mib)
	d := start(t, setup{origin: origin.block()})

	code, _, stderr := command(t, "serve", "--config", d.config)
	if code != 1 || !strings.Contains(stderr, strconv.Itoa(d.pid())) {
		t.Errorf("a second daemon ends with %d and says %q, want 1 and the pid %d", code, stderr, d.pid())
	}

	got := make(chan answer, 1)
	go func() { got <- d.get("image") }()
	d.waitState("image", cache.StateFilling)
	if err := d.p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.eventually("the listener is closed", func() bool {
		return strings.Contains(d.logs[len(d.logs)-1].String(), "draining") || refused("http://"+d.public+"/healthz")
	})
	img.release()
	if err := img.check(<-got); err != nil {
		t.Errorf("the download that ran: %v", err)
	}
	if err := d.wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

func refused(url string) bool {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return true
	}
	resp.Body.Close()
	return false
}
