package conformance

import (
	"encoding/xml"
	"fmt"
	"io"
)

// The elements of JUnit's XML that all its readers understand.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"` // cases that failed
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name     string         `xml:"name,attr"`
		Class    string         `xml:"classname,attr"`
		Time     float64        `xml:"time,attr"` // seconds
		Failures []junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"` // the broken sentence of the contract
		Text    string `xml:",chardata"`    // what was seen
	}
)

// WriteJUnit writes the result of a check in the XML of JUnit: a suite named after
// the plugin, with a test for each case. The error is that of w.
func WriteJUnit(w io.Writer, plugin string, cases []Case) error {
	suite := junitSuite{Name: plugin, Tests: len(cases)}
	for _, c := range cases {
		one := junitCase{Name: c.Name, Class: plugin, Time: c.Took.Seconds()}
		for _, f := range c.Failures {
			one.Failures = append(one.Failures, junitFailure{c.Sentence, f})
		}
		if len(c.Failures) > 0 {
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, one)
	}
	text, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		return fmt.Errorf("encode JUnit's XML: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	return err
}
