package plugin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestManifestBounds: a manifest that cannot be shown, or that is too long, is
// refused with what is wrong with it.
func TestManifestBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*sdk.Manifest)
		want   string
	}{
		"no name":               {func(m *sdk.Manifest) { m.Name = "../x" }, `name "../x" does not match`},
		"long name":             {func(m *sdk.Manifest) { m.Name = strings.Repeat("x", 65) }, "does not match"},
		"kind":                  {func(m *sdk.Manifest) { m.Kind = "root" }, `got "root"`},
		"two kinds of policy":   {func(m *sdk.Manifest) { m.Kind, m.Capabilities = sdk.KindPolicy, nil }, "must declare one of"},
		"version of a terminal": {func(m *sdk.Manifest) { m.Version = "1\x1b[2J" }, `version "1\x1b[2J"`},
		"version of two lines":  {func(m *sdk.Manifest) { m.Version = "1\nlevel=ERROR" }, `version "1\nlevel=ERROR"`},
		"long version":          {func(m *sdk.Manifest) { m.Version = strings.Repeat("1", maxManifestText+1) }, "at most 64 bytes"},
		"no UTF-8":              {func(m *sdk.Manifest) { m.Version = "\xff" }, `version "\xff"`},
		"options":               {func(m *sdk.Manifest) { m.Options = make([]sdk.Option, maxOptions+1) }, "option name"},
		"capabilities":          {func(m *sdk.Manifest) { m.Capabilities = make([]sdk.Capability, maxCapabilities+1) }, "65 capabilities"},
		"requests":              {func(m *sdk.Manifest) { m.Requests = make([]sdk.Grant, maxCapabilities+1) }, "65 requests"},
		"type":                  {func(m *sdk.Manifest) { m.Options = []sdk.Option{{Name: "a", Type: "path"}} }, `unknown type "path"`},
		"twice": {func(m *sdk.Manifest) {
			m.Options = slices.Repeat([]sdk.Option{{Name: "a", Type: sdk.TypeString}}, 2)
		}, `"a" is declared twice`},
		"description": {func(m *sdk.Manifest) {
			m.Options = []sdk.Option{{Name: "a", Type: sdk.TypeString, Description: "\u202e"}}
		}, `description "\u202e"`},
		"default": {func(m *sdk.Manifest) {
			m.Options = []sdk.Option{{Name: "a", Type: sdk.TypeString, Default: "\a"}}
		}, `default "\a"`},
		"default of another type": {func(m *sdk.Manifest) {
			m.Options = []sdk.Option{{Name: "a", Type: sdk.TypeSize, Default: "-1"}}
		}, `option "a"`},
	} {
		m := manifest
		tt.change(&m)
		wantPlain(t, name, checkManifest(m), tt.want)
	}
	many := manifest
	many.Options = nil
	for i := range maxOptions + 1 {
		many.Options = append(many.Options, sdk.Option{Name: fmt.Sprintf("o%d", i), Type: sdk.TypeString})
	}
	wantPlain(t, "many options", checkManifest(many), "257 options, expected at most 256")
	many.Options = many.Options[:maxOptions]
	if err := checkManifest(many); err != nil {
		t.Error(err)
	}
}

// TestManifestIsRefused: what is wrong with a manifest keeps the plugin from
// running.
func TestManifestIsRefused(t *testing.T) {
	s := newStage(t)
	_, err := s.Start(t.Context(), spec("ugly"))
	wantPlain(t, "ugly", err, `version "1\x1b[2J", expected at most 64 bytes`)
}

func TestFewNotes(t *testing.T) {
	notes := fewNotes(slices.Repeat([]string{strings.Repeat("x", maxNote+1)}, maxNotes+1))
	if len(notes) != maxNotes || len(notes[0]) > maxNote+10 {
		t.Errorf("%d notes of %d bytes", len(notes), len(notes[0]))
	}
}

// TestListedRecords: a list has an end, and its records have fields of a size
// with which the host can work.
func TestListedRecords(t *testing.T) {
	e := sdk.Entry{ID: "a", Version: strings.Repeat("v", maxEntryVersion), Hits: math.MaxUint64}
	var sum tally
	if err := sum.take(&e); err != nil || e.Hits != maxHits || len(e.Version) != maxEntryVersion {
		t.Errorf("the record is %d hits and a version of %d bytes, %v", e.Hits, len(e.Version), err)
	}
	e.Version += "v"
	if err := sum.take(&e); err != nil || e.Version != "" {
		t.Errorf("a long version has %d bytes, %v", len(e.Version), err)
	}
	for _, full := range []tally{{entries: maxListed}, {text: maxListedText}} {
		wantPlain(t, "a list without end", full.take(&e), "expected at most 10000000")
	}
}

// strangeNodes are nodes that are none, and more than are asked.
func strangeNodes() []sdk.Node {
	list := []sdk.Node{
		{},
		{URL: "near.example"},
		{URL: "ftp://near.example"},
		{URL: "file:///etc/passwd"},
		{URL: "unix:///run/socket"},
		{URL: "http:///x"},
		{URL: "http://user:password@near.example"},
		{URL: "http://near.example:port"},
		{URL: "http://near\x00.example"},
		{URL: "http://" + strings.Repeat("x", maxNodeURL)},
		{Name: strings.Repeat("x", maxNodeName+1), URL: "http://near.example"},
	}
	for i := range 2 * maxNodes {
		list = append(list, sdk.Node{URL: fmt.Sprintf("http://node-%d.example", i)})
	}
	return list
}

// overdone is a policy that answers more than it is asked.
type overdone struct {
	pluginv1.UnimplementedPolicyServiceServer
}

func (overdone) Score(context.Context, *pluginv1.ScoreRequest) (*pluginv1.ScoreResponse, error) {
	return &pluginv1.ScoreResponse{Scores: make([]float64, 4)}, nil
}

func (overdone) Select(context.Context, *pluginv1.SelectRequest) (*pluginv1.SelectResponse, error) {
	return &pluginv1.SelectResponse{Keys: make([]uint64, 100)}, nil
}

// TestCountsOfAnswers: there is a score for each record, or there are none, and
// of the keys that are chosen as many as were asked for.
func TestCountsOfAnswers(t *testing.T) {
	s := newStage(t)
	p, err := s.Start(t.Context(), spec("bare"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{3, 5} {
		if scores, err := score(t.Context(), p, n); !errors.Is(err, sdk.ErrUnavailable) || slices.Max(scores) != 0 ||
			!strings.Contains(err.Error(), fmt.Sprintf("expected %d scores, got 4", n)) {
			t.Errorf("%v, %v", scores, err)
		}
	}
	if keys, err := p.Stateful().Select(t.Context(), time.Now(), 1, 7); err != nil || len(keys) != 7 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
