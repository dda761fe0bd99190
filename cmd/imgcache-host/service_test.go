package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeService answers the native API from a few canned images.
func fakeService(t *testing.T) (socket string, requests func() []string) {
	t.Helper()
	var log []string
	polls := 0
	mux := http.NewServeMux()
	answer := func(pattern, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	}
	answer("GET /v1/usage", `{"bytes":1048576,"max_bytes":10737418240,"limit":"hard","images":2,"pinned":1,"pinned_bytes":1048576,"pins_full":true,"policy":"lru","records":"ready","disk":"ok"}`)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"ready":false,"reasons":["records: loading"]}`)
	})
	answer("GET /v1/images", `{"images":[{"id":"debian","state":"cached","size":1048576,"hits":3,"pinned":true},{"id":"fedora","state":"filling","size":-1}]}`)
	answer("GET /v1/images/debian", `{"id":"debian","state":"cached","size":1048576,"hits":3,"url":"file:///srv/debian","pinned":true,"history":[{"time":"2026-01-02T03:04:05Z","event":"not fetched","reason":"away","times":7},{"time":"2026-01-02T03:04:05Z","event":"cached"}]}`)
	answer("GET /v1/images/gone", `{"id":"gone","state":"absent","size":-1,"error":"evicted: oldest","history":[{"time":"2026-01-02T03:04:05Z","event":"evicted","reason":"oldest"}]}`)
	answer("GET /v1/images/broken", `{"id":"broken","state":"queued","size":-1,"error":"origin: image not found"}`)
	mux.HandleFunc("GET /v1/images/new", func(w http.ResponseWriter, _ *http.Request) {
		states := []string{`"absent"`, `"queued"`, `"filling","size":100,"written":50`, `"cached","size":100`}
		fmt.Fprintf(w, `{"id":"new","state":%s}`, states[min(polls, 3)])
		polls++
	})
	deep := `{"id":"web.0123","name":"noble/current/x.img","state":"cached","size":7,"last_modified":"2026-01-02T03:04:05Z"}`
	answer("GET /v1/images/{deep}", deep)
	mux.HandleFunc("POST /v1/images/{deep}/refresh", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("deep") {
		case "noble/current/x.img":
			_, _ = io.WriteString(w, deep)
		case "a+b %41":
			_, _ = io.WriteString(w, strings.Replace(deep, "2026", "2027", 1))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":"no such image"}`)
		}
	})
	mux.HandleFunc("DELETE /v1/images/{deep}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	answer("PUT /v1/queue/{deep}", `{"queued":true}`)
	answer("PUT /v1/queue/new", `{"queued":true}`)
	answer("PUT /v1/queue/debian", `{"queued":false}`)
	answer("GET /v1/queue", `{"queue":["broken","debian"],"entries":[{"id":"broken","tries":3,"error":"origin: image not found","next":"2100-01-01T00:00:00Z"},{"id":"debian","running":true}]}`)
	answer("DELETE /v1/queue", `{"deleted":1}`)
	answer("DELETE /v1/images", `{"deleted":2}`)
	answer("GET /v1/victims", `{"victims":[{"id":"debian","size":1048576,"why":"oldest"}]}`)
	answer("POST /v1/prune", `{"files":1,"bytes":1048576}`)
	mux.HandleFunc("POST /v1/verify", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, `{"progress":{"id":"debian","images":%d,"total":2,"bytes":%d,"total_bytes":2097152,"bad":%d}}`+"\n", i, i<<20, i/2)
		}
		_, _ = io.WriteString(w, `{"report":{"images":1,"adopted":1,"bytes":2097152,"bad":[{"id":"debian","reason":"block 7"}],"unread":[]}}`)
	})
	answer("POST /v1/clean", `{"files":2,"bytes":10}`)
	answer("GET /v1/pins", `{"pins":[{"id":"debian","from":"the configuration","cached":true},{"id":"new","until":"2027-01-31T18:00:00Z","from":"a request","cached":false},{"id":"web.0123","name":"noble/current/x.img","from":"a request","cached":true}]}`)
	answer("PUT /v1/pins/new", `{"id":"new","until":"2027-01-31T18:00:00Z","from":"a request","cached":false}`)
	mux.HandleFunc("DELETE /v1/pins/new", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("DELETE /v1/pins/debian", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"error":"conflict: it is in the configuration"}`)
	})
	watched := 0
	mux.HandleFunc("GET /v1/fills", func(w http.ResponseWriter, _ *http.Request) {
		lists := []string{
			`{"id":"new","phase":"streaming","size":1048576,"written":262144,"rate":262144,"clients":2},`,
			"",
		}
		fmt.Fprintf(w, `{"fills":[%s{"id":"old","phase":"interrupted","size":-1,"written":2097152,"resumed":2097152}]}`, lists[min(watched, 1)])
		watched++
	})
	answer("GET /v1/schedules", `{"schedules":[{"name":"nightly","when":"30 2 * * *","run":["clean","prefetch"],"running":false,"last_run":"2020-01-01T02:30:00Z",`+
		`"result":"clean: 2 files removed, 10 B","error":"prefetch: no origin\nprefetch: again","next_run":"2027-01-31T18:00:00Z"},`+
		`{"name":"often","when":"every 5m","run":["prune"],"running":true}]}`)
	answer("GET /v1/policies", `{"cache":{"requests":8,"hits":4,"hit_ratio":0.5},"policies":[{"name":"new","plugin":"sieve","state":"running","requests":8,"hits":2,`+
		`"hit_ratio":0.25,"evictions":3,"lost_events":7,"restarts":1,"last_error":"trap","would_have_evicted":{"images":1,"bytes":1024,"ids":["debian"]}}]}`)
	answer("POST /v1/plugins/sqlite/reload", `{"name":"sqlite","version":"1.2.3","pid":43}`)
	answer("GET /v1/plugins", `{"plugins":[{"name":"sqlite","kind":"driver","runtime":"process","state":"running","pid":42,"notes":["it is at-least-once"]}]}`)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":"no such path"}`)
	})

	dir, err := os.MkdirTemp("", "ic") // short: t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	logged := make(chan string, 100)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		logged <- strings.TrimSpace(r.Method + " " + r.RequestURI + " " + string(body))
		mux.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		_ = os.RemoveAll(dir)
	})
	return socket, func() []string {
		for len(logged) > 0 {
			log = append(log, <-logged)
		}
		return log
	}
}

// runCommand runs a command line against a fake service, without a terminal.
func runCommand(t *testing.T, socket string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var out, errs bytes.Buffer
	a := &app{stdin: null, stdout: &out, stderr: &errs}
	code = a.run(t.Context(), append([]string{"--socket", socket}, args...))
	return code, out.String(), errs.String()
}

func TestCommands(t *testing.T) {
	// The command line speaks the time of its user.
	until := pinUntil(time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC))
	midnight, err := time.Date(2027, 1, 31, 0, 0, 0, 0, time.Local).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args     string
		code     int
		stdout   []string // parts, blanks reduced to one
		stderr   string   // a part
		requests string   // the last ones
	}{
		{"status", 0, []string{"used 1.0 MiB of 10 GiB (hard)", "policy lru", "pinned 1 image, 1.0 MiB: they fill the cache", "not ready records: loading", "note sqlite: it is at-least-once"}, "", "GET /v1/usage GET /readyz GET /v1/plugins"},
		{"list", 0, []string{"ID STATE SIZE HITS", "debian cached, pinned 1.0 MiB 3 - -", "fedora filling unknown 0"}, "", "GET /v1/images"},
		{"show debian", 0, []string{"size 1.0 MiB (1048576 bytes)", "url file:///srv/debian", "pinned for ever", "WHEN WHAT HAPPENED WHY OR HOW", "ago not fetched (7 times) away", "ago cached -"}, "", "GET /v1/images/debian"},
		{"show gone", 3, []string{"ago evicted oldest"}, "image gone is not found in the cache; the last thing that happened: evicted: oldest", ""},
		{"fills --watch", 0, []string{"new streaming 25 %", "CLIENTS\nold interrupted"}, "", "GET /v1/fills GET /v1/fills"},
		{"show noble/current/x.img", 0, []string{"id web.0123", "name noble/current/x.img"}, "", "GET /v1/images/noble%2Fcurrent%2Fx.img"},
		{"queue /m/a+b%2Bc ö?v=1", 0, []string{"/m/a+b%2Bc queued", "ö?v=1 queued"}, "", "PUT /v1/queue/%2Fm%2Fa+b%252Bc PUT /v1/queue/%C3%B6%3Fv=1"},
		{"prefetch m/noble/current/x.img", 0, []string{"ID NAME STATE", "web.0123 noble/current/x.img cached 7 B"}, "noble/current/x.img  cached\n", "GET /v1/images/web.0123"},
		{"delete /m/noble/current/x.img", 0, []string{"deleted /m/noble/current/x.img", "still pinned noble/current/x.img"}, "", "DELETE /v1/images/%2Fm%2Fnoble%2Fcurrent%2Fx.img GET /v1/pins"},
		{"refresh noble/current/x.img", 0, []string{"ID NAME STATE SIZE RESULT", "web.0123 noble/current/x.img cached 7 B the origin has no other version"}, "", "POST /v1/images/noble%2Fcurrent%2Fx.img/refresh"},
		{"refresh none other", 3, nil, "refresh none: no such image\nrefresh other: no such image", "POST /v1/images/other/refresh"},
		{"refresh none noble/current/x.img", 3, []string{"the origin has no other version"}, "refresh none: no such image", ""},
		{"refresh", 2, nil, "requires at least 1 arg", ""},
		{"queue new debian", 0, []string{"new queued", "debian not queued: it is already cached"}, "", "PUT /v1/queue/new PUT /v1/queue/debian"},
		{"queue", 0, []string{"ID FAILED NEXT TRY LAST ERROR", "broken 3", "from now origin: image not found", "debian 0 now -"}, "", "GET /v1/queue"},
		{"queue list", 0, []string{"broken 3"}, "", "GET /v1/queue"},
		{"prefetch new", 0, []string{"new cached 100 B"}, "new  filling 50% of 100 B\nnew  cached\n", ""},
		{"fills", 0, []string{"ID PHASE PROGRESS FETCHED", "new streaming 25 % 256 KiB 1.0 MiB 256 KiB/s 3s 2", "old interrupted - 2.0 MiB unknown - - 0"}, "", "GET /v1/fills"},
		{"prefetch", 1, []string{"broken queued unknown origin: image not found"}, "1 of 2 images could not be fetched", ""},
		{"delete debian", 0, []string{"deleted debian", "still pinned debian (to end that: imgcache-host unpin)"}, "", "DELETE /v1/images/debian GET /v1/pins"},
		{"pin list", 0, []string{"ID NAME UNTIL CACHED FROM", "debian - for ever yes the configuration", "new - " + until + " no a request", "web.0123 noble/current/x.img for ever yes a request"}, "", "GET /v1/pins"},
		{"pin new", 0, []string{"new " + until + " no a request"}, "", "PUT /v1/pins/new {}"},
		{"pin new --until 2027-01-31T18:00:00Z", 0, nil, "", `PUT /v1/pins/new {"until":"2027-01-31T18:00:00Z"}`},
		{"pin new --until 2027-01-31", 0, nil, "", `PUT /v1/pins/new {"until":` + string(midnight) + "}"},
		{"pin new --until tomorrow", 2, nil, "--until: expected a time such as", ""},
		{"pin new --for -1h", 2, nil, "--for: expected a duration above zero, got -1h0m0s", ""},
		{"pin new --for 1h --until 2027-01-31", 2, nil, "cannot be used together", ""},
		{"pin", 2, nil, "requires at least 1 arg", ""},
		{"unpin new", 0, []string{"unpinned new"}, "", "DELETE /v1/pins/new"},
		{"unpin debian", 1, nil, "unpin debian: conflict: it is in the configuration", "DELETE /v1/pins/debian"},
		{"clear", 0, []string{"images deleted 2", "queue entries deleted 1"}, "", "DELETE /v1/queue DELETE /v1/images"},
		{"clear --target queue", 0, []string{"images deleted 0"}, "", "DELETE /v1/queue"},
		{"clear --target cache", 0, []string{"queue entries deleted 0"}, "", "DELETE /v1/images"},
		{"prune", 0, []string{"removed 1 files, 1.0 MiB"}, "", "POST /v1/prune {}"},
		{"prune --max-size 0 --dry-run", 0, []string{"would remove 1 files"}, "", `POST /v1/prune {"max_size":0,"dry_run":true}`},
		{"prune --max-size 1KiB", 0, nil, "", `POST /v1/prune {"max_size":1024}`},
		{"clean", 0, []string{"removed 2 files, 10 B"}, "", "POST /v1/clean {}"},
		{"clean --stall-time 0s", 0, nil, "", `POST /v1/clean {"stall_time":0}`},
		{
			"verify debian new", 1,
			[]string{"right 1 image, 2.0 MiB", "verified on read from now on 1 image", "bad debian block 7"},
			"50 %  1 of 2 images, 1.0 MiB of 2.0 MiB\n100 %  2 of 2 images, 2.0 MiB of 2.0 MiB, 1 bad\nimgcache-host: 1 image was corrupt", `POST /v1/verify {"ids":["debian","new"]}`,
		},
		{"verify", 1, nil, "1 image was corrupt", "POST /v1/verify {}"},
		{"victims --limit 3", 0, []string{"debian 1.0 MiB oldest"}, "", "GET /v1/victims?limit=3"},
		{
			"schedules", 0, []string{
				"NAME WHEN RUN LAST RUN RESULT NEXT RUN",
				"nightly 30 2 * * * clean, prefetch",
				"ago failed: prefetch: no origin; prefetch: again (clean: 2 files removed, 10 B) " + until,
				"often every 5m prune - - running",
			}, "", "GET /v1/schedules",
		},
		{"plugin list", 0, []string{"sqlite driver process - running 42"}, "", "GET /v1/plugins"},
		{
			"policy shadow", 0, []string{
				"(the cache) - - 8 4 0.5000", "new sieve running 8 2 0.2500 0.0000 0 0 B 3 1 (1.0 KiB)",
				"new: lost events: 7; figures are no longer exact", "new: failed 1 times", "new: would have evicted debian",
			}, "", "GET /v1/policies",
		},
		{"plugin reload sqlite", 0, []string{"reloaded sqlite version 1.2.3 pid 43"}, "", "POST /v1/plugins/sqlite/reload"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			socket, requests := fakeService(t)
			code, stdout, stderr := runCommand(t, socket, strings.Fields(tc.args)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			var lines []string
			for line := range strings.Lines(stdout) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			for _, want := range tc.stdout {
				if !strings.Contains(strings.Join(lines, "\n"), want) {
					t.Errorf("stdout lacks %q:\n%s", want, stdout)
				}
			}
			if !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
				t.Errorf("stderr %q, want %q", stderr, tc.stderr)
			}
			if got := strings.Join(requests(), " "); !strings.HasSuffix(got, tc.requests) {
				t.Errorf("requests %s, want %s", got, tc.requests)
			}
		})
	}
}

// TestJSONOutput checks that every command that answers answers JSON too.
func TestJSONOutput(t *testing.T) {
	for _, args := range []string{
		"status", "list", "fills", "refresh noble/current/x.img", "show debian", "show gone", "queue", "queue list", "queue new", "prefetch debian", "delete debian", "pin list", "pin new", "unpin new",
		"clear", "prune", "clean", "verify", "victims", "schedules", "plugin list", "version",
	} {
		socket, _ := fakeService(t)
		_, stdout, _ := runCommand(t, socket, append(strings.Fields(args), "--output", "json")...)
		if !json.Valid([]byte(stdout)) {
			t.Errorf("%s: no JSON:\n%s", args, stdout)
		}
	}
}

// TestRefreshSaysWhatIsNew: a name may have blanks and escapes.
func TestRefreshSaysWhatIsNew(t *testing.T) {
	socket, requests := fakeService(t)
	code, stdout, stderr := runCommand(t, socket, "refresh", "a+b %41")
	if code != 0 || !strings.Contains(stdout, "fetched") || stderr != "" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if got := requests(); got[len(got)-1] != "POST /v1/images/a+b%20%2541/refresh" {
		t.Errorf("requests %q", got)
	}
}
