package conformance

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWorkshopInRelativeDirectory: a plugin, which works in /, is given absolute
// paths whatever the check was called with.
func TestWorkshopInRelativeDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	w, err := Check{Path: os.Args[0], Dir: "."}.workshop()
	if err != nil {
		t.Fatal(err)
	}
	defer w.clear()
	here, err := os.Getwd()
	if err != nil || filepath.Dir(w.dir) != here {
		t.Errorf("%v; it works in %s, want a directory in %s", err, w.dir, here)
	}
}
