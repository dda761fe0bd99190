package main

import (
	"errors"
	"strings"
	"testing"
)

// TestTerminalObeysNobody: what plugins, origins and nodes say is shown, and
// does nothing.
func TestTerminalObeysNobody(t *testing.T) {
	var out strings.Builder
	row(&out, "plain ü \"quoted\"", "\x1b[2Jgone", "a\nb\tc", "\u202etxt", "\xff", "")
	if got, want := out.String(), "plain ü \"quoted\"\t\\x1b[2Jgone\ta\\nb\\tc\t\\u202etxt\t\\xff\t-\n"; got != want {
		t.Errorf("the row is %q, want %q", got, want)
	}
	out.Reset()
	report(&out, errors.New("first\x1b[2J\n\tsecond\r"))
	if got, want := out.String(), "imgcache-host: first\\x1b[2J\n\tsecond\n"; got != want {
		t.Errorf("the report is %q, want %q", got, want)
	}
}
