package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// TestEndOfTheHost: a plugin says where it listens, and ends when the host's
// end of the lifeline closes.
func TestEndOfTheHost(t *testing.T) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Stderr = &errs
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), actAs+"=driver", LifelineEnv+"=1",
		Handshake.MagicCookieKey+"="+Handshake.MagicCookieValue, "PLUGIN_PROTOCOL_VERSIONS=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "1|1|unix|") {
		t.Errorf("the handshake is %q, %v", line[:n], err)
	}
	_ = ours.Close()
	if err := cmd.Wait(); err != nil || errs.Len() > 0 { // the deadline of the test bounds it
		t.Errorf("ended with %v: %s", err, &errs)
	}
}

// crowd is a driver of 2500 records, which it yields at once.
type crowd struct{ sdktest.Memory }

func (*crowd) List(_ context.Context, yield func([]sdk.Entry) error) error {
	return yield(make([]sdk.Entry, 2500))
}

// stream collects the sizes of the messages that are sent.
type stream struct {
	grpc.ServerStreamingServer[pluginv1.ListResponse]
	ctx   context.Context
	sizes []int
	err   error
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Send(m *pluginv1.ListResponse) error {
	s.sizes = append(s.sizes, len(m.GetEntries()))
	return s.err
}

// TestListInBatches: however much a driver yields, a message stays small.
func TestListInBatches(t *testing.T) {
	server := &driverServer{driver: &crowd{}}
	whole := &stream{ctx: t.Context()}
	if err := server.List(nil, whole); err != nil || !slices.Equal(whole.sizes, []int{1000, 1000, 500}) {
		t.Errorf("sent messages of %v entries, %v", whole.sizes, err)
	}
	gone := &stream{ctx: t.Context(), err: errors.New("the host has gone")}
	if err := server.List(nil, gone); err == nil || len(gone.sizes) != 1 {
		t.Errorf("sent %v to a host that has gone, %v", gone.sizes, err)
	}
}

// TestNamesOfTheAuthor: attributes may be called as the fixed ones are.
func TestNamesOfTheAuthor(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: hclogNames}))
	log.Warn("a word", "level", 7, "time", "noon")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["@level"] != "warn" || line["@message"] != "a word" || line["level"] != 7.0 || line["time"] != "noon" {
		t.Error(&out)
	}
}
