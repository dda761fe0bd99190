package lock

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

const content = "the bytes of a plugin"

// shop is a directory with a plugin and what belongs to it.
type shop struct {
	dir string
	plugin.Candidate
}

func newShop(t *testing.T) *shop {
	dir := t.TempDir()
	return &shop{dir, plugin.Candidate{
		Name: "x", Kind: sdk.KindPolicy, Path: filepath.Join(dir, "x.wasm"), SHA256: "aa",
		Content: func() ([]byte, error) { return []byte(content), nil },
	}}
}

// key makes a key and puts its public half into a file.
func (s *shop) key(t *testing.T, name string) (ed25519.PrivateKey, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private, s.publish(t, name, public)
}

func (s *shop) publish(t *testing.T, name string, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, name)
	write(t, path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return path
}

func (s *shop) sign(t *testing.T, key ed25519.PrivateKey, content string) {
	write(t, s.Path+".sig", ed25519.Sign(key, []byte(content)))
}

// expect compares what a guard says with an error that contains want or, if it
// begins with =, with a signature.
func expect(t *testing.T, what, want, signature string, err error) {
	t.Helper()
	if known, ok := strings.CutPrefix(want, "="); ok {
		if err != nil || signature != known {
			t.Errorf("%s: %q, %v; want %q", what, signature, err, known)
		}
	} else if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %q, %v; want an error with %q", what, signature, err, want)
	}
}

func TestSignatures(t *testing.T) {
	s := newShop(t)
	acme, acmeFile := s.key(t, "acme.pem")
	other, otherFile := s.key(t, "other.pem")
	both := Guard{Keys: []string{otherFile, acmeFile}}
	check := func(what string, g Guard, admit, look string) {
		t.Helper()
		signature, err := g.Admit(s.Candidate)
		expect(t, what, admit, signature, err)
		signature, err = g.Look(s.Candidate)
		expect(t, what+", looked at", look, signature, err)
	}
	check("no signature, no key", Guard{}, "=", "=none")
	check("no signature", both, "x.wasm is not signed", "=none")
	check("shipped", Guard{Keys: both.Keys, Shipped: s.dir}, "=shipped with imgcache-host", "=shipped with imgcache-host")
	s.sign(t, acme, content)
	check("signed", both, "=acme.pem", "=acme.pem")
	check("signed, no key", Guard{}, "=", "=there is one, and no trusted key to check it with")
	s.sign(t, acme, content+"x")
	wrong := "x.wasm.sig is not a signature of " + s.Path + " by a trusted key"
	check("of other bytes", both, wrong, "="+s.Path+".sig is not a signature of "+s.Path+" by a trusted key")
	s.sign(t, other, content)
	check("by a stranger", Guard{Keys: []string{acmeFile}}, wrong, "="+s.Path+".sig is not a signature of "+s.Path+" by a trusted key")
	write(t, s.Path+".sig", []byte("short"))
	check("cut", both, "has 5 bytes; expected an ed25519 signature of 64 bytes", "=invalid: "+s.Path+".sig has 5 bytes; expected an ed25519 signature of 64 bytes")
}

func TestBadKeys(t *testing.T) {
	s := newShop(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.dir, "text.pem"), []byte("hello"))
	write(t, filepath.Join(s.dir, "der.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("hello")}))
	for file, want := range map[string]string{
		filepath.Join(s.dir, "none.pem"):    "read the trusted key: open",
		filepath.Join(s.dir, "text.pem"):    "text.pem is not PEM; expected a public ed25519 key",
		filepath.Join(s.dir, "der.pem"):     "expected a public ed25519 key",
		s.publish(t, "ec.pem", ec.Public()): "ec.pem is a *ecdsa.PublicKey; expected",
	} {
		_, err := Guard{Keys: []string{file}}.Admit(s.Candidate)
		expect(t, file, want, "", err)
		_, err = Guard{Keys: []string{file}}.Look(s.Candidate)
		expect(t, file, want, "", err)
	}
}

func TestLocked(t *testing.T) {
	s := newShop(t)
	g := Guard{Lock: filepath.Join(s.dir, "plugins.lock.json")}
	admit := func(what, want string) {
		t.Helper()
		signature, err := g.Admit(s.Candidate)
		expect(t, what, want, signature, err)
	}
	admit("no lock file", "there is no lock file "+g.Lock)
	locked := Plugin{Name: "x", Kind: sdk.KindPolicy, Version: "1.2.3", SHA256: "aa"}
	put := func(p Plugin) {
		t.Helper()
		if err := (Lock{Plugins: []Plugin{p}}).Write(g.Lock); err != nil {
			t.Fatal(err)
		}
	}
	put(locked)
	admit("locked", "=")
	other := locked
	other.SHA256 = "bb"
	put(other)
	admit("another sum", s.Path+" is not started: it has SHA-256 aa, and the lock file "+g.Lock+" holds bb (version 1.2.3)")
	other = locked
	other.Name = "y"
	put(other)
	admit("another name", "it is not in the lock file "+g.Lock)
	other = locked
	other.Kind = sdk.KindDriver
	put(other)
	admit("another kind", "it is not in the lock file")
	put(locked)
	_, acme := s.key(t, "acme.pem")
	g.Keys = []string{acme}
	admit("locked, not signed", "is not signed")
	if err := os.Remove(g.Lock); err != nil {
		t.Fatal(err)
	}
	admit("the lock file is gone", "there is no lock file")
}
