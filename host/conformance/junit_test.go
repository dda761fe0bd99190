package conformance

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// failing is a writer that does.
type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

// TestWriteJUnit: one case fails twice and one holds; what a plugin says cannot
// break the XML.
func TestWriteJUnit(t *testing.T) {
	cases := []Case{
		{Name: "delete removes the record", Sentence: "OpDelete removes the record.", Took: 1500 * time.Millisecond},
		{
			Name: "an absent id is no error", Sentence: `An "absent" id is no error.`, Took: time.Millisecond,
			Failures: []string{"Apply() = <nil>\x00 & more", "it hangs"},
		},
	}
	const want = `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="./mine" tests="2" failures="1">
  <testcase name="delete removes the record" classname="./mine" time="1.5"></testcase>
  <testcase name="an absent id is no error" classname="./mine" time="0.001">
    <failure message="An &#34;absent&#34; id is no error.">Apply() = &lt;nil&gt;` + "\uFFFD" + ` &amp; more</failure>
    <failure message="An &#34;absent&#34; id is no error.">it hangs</failure>
  </testcase>
</testsuite>
`
	var got strings.Builder
	if err := WriteJUnit(&got, "./mine", cases); err != nil || got.String() != want {
		t.Errorf("%v; it writes\n%s\nwant\n%s", err, &got, want)
	}
	full := errors.New("no space")
	if err := WriteJUnit(failing{full}, "./mine", cases); !errors.Is(err, full) {
		t.Errorf("WriteJUnit() = %v, want %v", err, full)
	}
}
