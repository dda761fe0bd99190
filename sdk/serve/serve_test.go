package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// actAs makes this binary a plugin.
const actAs = "IMGCACHE_TEST_ACT_AS"

var manifest = sdk.Manifest{
	Name: "actor", Version: "1.2.3", Kind: sdk.KindDriver,
	Options: []sdk.Option{{Name: "greeting", Type: sdk.TypeString, Default: "hello", Description: "what to say"}},
}

func TestMain(m *testing.M) {
	switch os.Getenv(actAs) {
	case "driver":
		Main(manifest, &sdktest.Memory{})
	case "misfit":
		Main(manifest, sdk.ScoreFunc(func(*sdk.Record, time.Time) float64 { return 0 }))
	}
	os.Exit(m.Run())
}

// run runs this binary as a plugin that nobody hosts.
func run(t *testing.T, role string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), actAs+"="+role)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestRunByHand(t *testing.T) {
	code, out, errs := run(t, "driver")
	if code != 1 || out != "" || !strings.Contains(errs, "actor is a plugin of imgcache-host") || !strings.Contains(errs, "driver block") {
		t.Errorf("exit code %d, standard output %q, standard error %q", code, out, errs)
	}
}

func TestDescribe(t *testing.T) {
	code, out, errs := run(t, "driver", "--describe")
	var got sdk.Manifest
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errs != "" {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if !reflect.DeepEqual(got, manifest) {
		t.Errorf("described as %+v", got)
	}
}

func TestMisfit(t *testing.T) {
	code, _, errs := run(t, "misfit", "--describe")
	if code != 1 || !strings.Contains(errs, "actor: the plugin is not what its manifest says") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// TestLoggerLines are what the host's side reads.
func TestLoggerLines(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warn", slog.LevelError: "error", slog.LevelError + 4: "error",
	} {
		var out bytes.Buffer
		log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: hclogNames}))
		log.Log(t.Context(), level, "a word", "n", 1, slog.Group("g", slog.String(slog.MessageKey, "stays")))
		var line struct {
			Level     string `json:"@level"`
			Message   string `json:"@message"`
			Timestamp string `json:"@timestamp"`
			N         int
			G         struct{ Msg string }
		}
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", line.Timestamp); err != nil {
			t.Error(err)
		}
		if line.Level != want || line.Message != "a word" || line.N != 1 || line.G.Msg != "stays" {
			t.Errorf("%v: %s", level, &out)
		}
	}
}

// TestAbsentAbilities asks servers for what their plugin has not declared.
func TestAbsentAbilities(t *testing.T) {
	ctx := t.Context()
	driver := &driverServer{driver: &sdktest.Memory{}}
	scorer := &policyServer{impl: sdk.ScoreFunc(func(*sdk.Record, time.Time) float64 { return 0 })}
	nothing := &policyServer{}
	for name, call := range map[string]func() error{
		"nodes":     func() error { _, err := driver.Nodes(ctx, &pluginv1.NodesRequest{}); return err },
		"heartbeat": func() error { _, err := driver.Heartbeat(ctx, &pluginv1.HeartbeatRequest{}); return err },
		"observe":   func() error { _, err := scorer.Observe(ctx, &pluginv1.ObserveRequest{}); return err },
		"select":    func() error { _, err := scorer.Select(ctx, &pluginv1.SelectRequest{}); return err },
		"snapshot":  func() error { _, err := scorer.Snapshot(ctx, &pluginv1.SnapshotRequest{}); return err },
		"restore":   func() error { _, err := scorer.Restore(ctx, &pluginv1.RestoreRequest{}); return err },
		"score":     func() error { _, err := nothing.Score(ctx, &pluginv1.ScoreRequest{}); return err },
	} {
		if err := call(); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "lacks the capability") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (&pluginServer{impl: &sdktest.Memory{}}).Configure(ctx, &pluginv1.ConfigureRequest{}); err != nil {
		t.Errorf("a plugin without options is configured: %v", err)
	}
}

// TestBadMessages are refused before they reach the plugin.
func TestBadMessages(t *testing.T) {
	ctx := t.Context()
	driver := &driverServer{driver: &sdktest.Memory{}}
	scorer := &policyServer{impl: sdk.ScoreFunc(func(*sdk.Record, time.Time) float64 { panic("called") })}
	stateful := &policyServer{impl: deaf{}}
	noFrame := []byte("no frame")
	for name, call := range map[string]func() error{
		"batch without source": func() error { _, err := driver.Apply(ctx, &pluginv1.ApplyRequest{Seq: 1}); return err },
		"operation of no kind": func() error {
			_, err := driver.Apply(ctx, &pluginv1.ApplyRequest{Source: strings.Repeat("0", 32), Seq: 1, Ops: []*pluginv1.Op{{Kind: 300}}})
			return err
		},
		"records": func() error { _, err := scorer.Score(ctx, &pluginv1.ScoreRequest{Records: noFrame}); return err },
		"events":  func() error { _, err := stateful.Observe(ctx, &pluginv1.ObserveRequest{Events: noFrame}); return err },
	} {
		if err := call(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// deaf is a policy that must not be called.
type deaf struct{}

func (deaf) Observe(context.Context, []sdk.Event) error { return errors.New("called") }

func (deaf) Select(context.Context, time.Time, uint64, int) ([]sdk.Key, error) {
	return nil, errors.New("called")
}
