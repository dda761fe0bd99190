package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/imgcache/imgcache-host/host/plugin"
)

// Guard decides which plugins may run. Its files are read each time, so a new
// lock file applies from the next start of a plugin on.
type Guard struct {
	Lock    string   // lock file; empty: none
	Keys    []string // files with trusted keys; none: signatures are not needed
	Shipped string   // directory of the plugins that come with the service, which need no signature
}

// The words for what is known about a signature. For a plugin that is signed,
// it is the name of the key's file instead.
const (
	Shipped  = "shipped with imgcache-host"
	Unsigned = "none"
)

// Admit returns who has signed a plugin, or an error that says why it may not
// run. Without trusted keys signatures are not looked at.
func (g Guard) Admit(c plugin.Candidate) (signature string, err error) {
	if err := g.checkLock(c); err != nil || len(g.Keys) == 0 {
		return "", err
	}
	keys, err := readKeys(g.Keys)
	if err != nil {
		return "", err
	}
	signature, err = g.signature(c, keys)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is not signed: there is no %s, and only plugins signed with a trusted key are started", c.Path, signatureOf(c.Path))
	}
	return signature, err
}

func (g Guard) checkLock(c plugin.Candidate) error {
	if g.Lock == "" {
		return nil
	}
	l, err := Read(g.Lock)
	if err != nil {
		return fmt.Errorf("%s is not started: %w", c.Path, err)
	}
	p, ok := l.Find(c.Kind, c.Name)
	if !ok {
		return fmt.Errorf("%s is not started: it is not in the lock file %s; imgcache-host plugin lock adds the plugins that the configuration names",
			c.Path, g.Lock)
	}
	if p.SHA256 != c.SHA256 {
		return fmt.Errorf("%s is not started: it has SHA-256 %s, and the lock file %s holds %s (version %s); "+
			"put that file back, or look at this one with imgcache-host plugin info and lock it with imgcache-host plugin lock",
			c.Path, c.SHA256, g.Lock, p.SHA256, p.Version)
	}
	return nil
}

// Look says what is known about a signature, and refuses nothing.
func (g Guard) Look(c plugin.Candidate) (signature string, err error) {
	keys, err := readKeys(g.Keys)
	if err != nil {
		return "", err
	}
	signature, err = g.signature(c, keys)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Unsigned, nil
	case err != nil && len(keys) == 0:
		return "there is one, and no trusted key to check it with", nil
	case err != nil:
		return err.Error(), nil
	}
	return signature, nil
}

// signature returns the name of the key that has signed a plugin. The error
// wraps fs.ErrNotExist when nobody has.
func (g Guard) signature(c plugin.Candidate, keys []key) (string, error) {
	if g.Shipped != "" && filepath.Dir(c.Path) == g.Shipped {
		return Shipped, nil
	}
	signature, err := readSignature(c.Path)
	if err != nil {
		return "", err
	}
	content, err := c.Content()
	if err != nil {
		return "", fmt.Errorf("check the signature of %s: %w", c.Path, err)
	}
	for _, k := range keys {
		if k.signed(content, signature) {
			return k.name, nil
		}
	}
	return "", fmt.Errorf("%s is not a signature of %s by a trusted key", signatureOf(c.Path), c.Path)
}
