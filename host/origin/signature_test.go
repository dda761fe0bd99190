package origin

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// signedFile reads one of the files that GnuPG made.
func signedFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "signed", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func signedKeyring(t *testing.T, name string) *Keyring {
	t.Helper()
	k, err := ReadKeyring(filepath.Join("..", "..", "testdata", "signed", name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Signatures of GnuPG count when a key of the ring made them while it was valid,
// with a sum that is not known to be weak.
func TestDetachedSignatures(t *testing.T) {
	text := signedFile(t, "SHA256SUMS")
	for _, test := range []struct {
		signature string
		keyring   string
		good      bool
	}{
		{"SHA256SUMS.gpg", "keyring.gpg", true},
		{"SHA256SUMS.gpg", "keyring.asc", true},
		{"SHA256SUMS.asc", "keyring.gpg", true},
		{"SHA256SUMS.elliptic", "keyring.gpg", true},
		{"SHA256SUMS.elliptic", "keyring.asc", true}, // the second block of the file
		{"SHA256SUMS.expired", "keyring.gpg", true},  // it has expired since
		{"SHA256SUMS.both", "keyring.gpg", true},     // the first signer is unknown
		{"SHA256SUMS.clear", "keyring.gpg", true},    // a signed copy of the list
		{"SHA256SUMS.expired", "keyring.asc", false}, // which lacks the key
		{"SHA256SUMS.stranger", "keyring.gpg", false},
		{"SHA256SUMS.clear.stranger", "keyring.gpg", false},
		{"SHA256SUMS.sha1", "keyring.gpg", false},
		{"SHA256SUMS", "keyring.gpg", false},
		{"keyring.gpg", "keyring.gpg", false},
	} {
		t.Run(test.signature+" by "+test.keyring, func(t *testing.T) {
			k, signature := signedKeyring(t, test.keyring), signedFile(t, test.signature)
			got, err := k.verifyDetached(text, signature)
			if test.good != (err == nil) || test.good && !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(text)) {
				t.Errorf("got %q, %v, want good: %v", got, err, test.good)
			}
			other := bytes.Replace(text, []byte("x.img"), []byte("y.img"), 1)
			if got, err := k.verifyDetached(other, signature); err == nil && bytes.Contains(got, []byte("y.img")) {
				t.Error("the signature is good for another text")
			}
		})
	}
	if _, err := signedKeyring(t, "keyring.gpg").verifyDetached(text, nil); err == nil {
		t.Error("nothing is a good signature")
	}
}

// Of a list with its signature only what is signed counts.
func TestInlineSignatures(t *testing.T) {
	k, text := signedKeyring(t, "keyring.gpg"), signedFile(t, "SHA256SUMS")
	forged := []byte(strings.Repeat("0", 64) + "  forged.img\n")
	for name, good := range map[string]bool{
		"SHA256SUMS.clear":          true,
		"SHA256SUMS.message":        true,
		"SHA256SUMS.message.asc":    true,
		"SHA256SUMS":                false,
		"SHA256SUMS.clear.stranger": false,
		"SHA256SUMS.gpg":            false,
		"keyring.asc":               false,
	} {
		t.Run(name, func(t *testing.T) {
			signed := signedFile(t, name)
			for where, data := range map[string][]byte{
				"as it is": signed, "before it": append(bytes.Clone(forged), signed...), "behind it": append(bytes.Clone(signed), forged...),
			} {
				got, err := k.verifyInline(data)
				if err == nil && bytes.Contains(got, []byte("forged")) {
					t.Errorf("%s: a line that is not signed counts", where)
				}
				if where == "as it is" && (good != (err == nil) || good && !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(text))) {
					t.Errorf("got %q, %v, want good: %v", got, err, good)
				}
			}
			inside := bytes.Replace(signed, []byte("x.img"), []byte("y.img"), 1)
			if _, err := k.verifyInline(inside); err == nil && !bytes.Equal(inside, signed) {
				t.Error("a line that was changed counts")
			}
		})
	}
}

func TestReadKeyring(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"empty": "", "text": "no keys\n", "list": string(signedFile(t, "SHA256SUMS")),
		"keybox": "\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00\x00\x00", "signature": string(signedFile(t, "SHA256SUMS.asc")),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKeyring(path); err == nil || !strings.Contains(err.Error(), "gpg --export") {
			t.Errorf("%s: %v, want advice", name, err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "missing"), dir} {
		if _, err := ReadKeyring(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
}

// FuzzSignature holds that no text counts that was not signed.
func FuzzSignature(f *testing.F) {
	k, err := ReadKeyring(filepath.Join("..", "..", "testdata", "signed", "keyring.gpg"))
	if err != nil {
		f.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "signed", "SHA256SUMS*"))
	if err != nil || len(files) < 10 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	var text []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if filepath.Base(file) == "SHA256SUMS" {
			text = data
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := k.verifyInline(data); err == nil && !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(text)) {
			t.Errorf("inline: %q counts as signed", got)
		}
		if got, err := k.verifyDetached(text, data); err == nil && !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(text)) {
			t.Errorf("detached: %q counts as signed", got)
		}
	})
}
