package store

import (
	"fmt"
	"strings"

	"github.com/imgcache/imgcache-host/sdk"
)

// checkID is called before every use of an id as a file name.
func checkID(id string) error {
	if !sdk.ValidID(id) {
		if len(id) > sdk.MaxIDLen {
			id = id[:sdk.MaxIDLen] + "..."
		}
		return fmt.Errorf("%w: %q", ErrBadID, id)
	}
	return nil
}

// splitName splits <id>~<suffix>. No id contains '~', and no suffix is empty.
func splitName(name string) (id, suffix string, ok bool) {
	id, suffix, ok = strings.Cut(name, "~")
	return id, suffix, ok && sdk.ValidID(id) && suffix != ""
}
