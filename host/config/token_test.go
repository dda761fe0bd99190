package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := Listener{Name: "admin", TokenFile: file}
	if _, err := l.Tokens(); err == nil {
		t.Error("no error without the file")
	}
	a, b := strings.Repeat("a", 16), "correct horse battery staple"
	write("\xef\xbb\xbf" + a + " \n# the operators\n\r\n  " + b)
	got, err := l.Tokens()
	if err != nil || !slices.Equal(got, []string{a, b}) {
		t.Errorf("tokens %q, %v", got, err)
	}
	write("# nobody\n")
	if _, err := l.Tokens(); err == nil {
		t.Error("no error for a file without tokens")
	}
	for text, want := range map[string]string{
		"a\n":                               "line 1", // shorter than 16 characters
		"# x\n" + a + "\n15-characters--\n": "line 3",
		"ööööööööööööööö":                   "this one 15",
		"\xff\xfea\x00b\x00c\x00":           "line 1 of " + file + " has characters", // UTF-16
		a + "\x00" + a:                      "has characters",
	} {
		write(text)
		if _, err := l.Tokens(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "characters--") || cannotRead(err) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if _, err := (Peers{Name: "nodes", TokenFile: file}).Token(); err == nil {
			t.Errorf("%q: no error for other nodes", text)
		}
	}
	if got, err := (Listener{}).Tokens(); got != nil || err != nil {
		t.Errorf("without a token file: %q, %v", got, err)
	}
}

// TestSecretsThatEverybodyReads are refused, whatever is in them.
func TestSecretsThatEverybodyReads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(file, []byte(strings.Repeat("a", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, right := range map[os.FileMode]bool{
		0o400: true, 0o600: true, 0o640: true, 0o660: true, 0o644: false, 0o604: false, 0o602: false, 0o666: false, 0o444: false,
	} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		l := Listener{Name: "x", TokenFile: file, AuthFile: file}
		_, tokens := l.Tokens()
		_, clients := l.Credentials()
		for _, err := range []error{tokens, clients} {
			if (err == nil) != right || err != nil && !strings.Contains(err.Error(), "chmod o-rw") {
				t.Errorf("mode %v: %v", mode, err)
			}
		}
	}
}

// TestCredentials checks what an auth file may hold, and that what is wrong is
// said without telling it.
func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clients")
	l := Listener{Name: "public", AuthFile: file}
	const (
		token = "0123456789abcdef0123"
		hash  = "$2y$05$" + "abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"
	)
	for _, c := range []struct{ text, want string }{
		{token + "\nalice:" + hash + "\n# a remark: of somebody\n\nbob:" + strings.Replace(hash, "2y", "2b", 1), ""},
		{"\xef\xbb\xbfalice:" + hash + "\r\n", ""},
		{"", "holds nothing"},
		{"# nobody\n", "holds nothing"},
		{"short\n", "at least 16 characters"},
		{"alice:$apr1$abcdefgh$SECRETSECRETSECRETSEC/", "is an MD5 sum; expected is a hash of bcrypt, which htpasswd -B makes"},
		{"alice:$1$abcdefgh$SECRETSECRETSECRETSEC/", "is an MD5 sum"},
		{"alice:{SHA}SECRETSECRETSECRETSECRETSEC=", "is a bare SHA-1 sum"},
		{"alice:SECRETSECRETS", "plain text, or a hash of crypt"},
		{"alice:$6$SECRET$SECRET", "SHA-512"},
		{"alice:$2y$05$SECRET", "no whole hash"},
		{"alice:$2y$xx$" + hash[7:], "no whole hash"},
		{"alice:" + strings.Replace(hash, "$05$", "$31$", 1), "has the cost 31"},
		{":" + hash, "name of a user is missing"},
		{token + "\nalice:" + hash + "\nalice:" + hash, "line 3"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := l.Credentials()
		switch {
		case c.want == "" && (err != nil || got.Passwords["alice"] != hash):
			t.Errorf("%q: %+v, %v", c.text, got, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET")):
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		case err != nil && (got.Tokens != nil || got.Passwords != nil):
			t.Errorf("%q: there are credentials beside the error", c.text)
		}
	}
	if got, err := (Listener{}).Credentials(); got.Tokens != nil || got.Passwords != nil || err != nil {
		t.Errorf("without a file: %+v, %v", got, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Credentials(); !cannotRead(err) {
		t.Errorf("no file: %v", err)
	}
}

// TestSecretsAreChecked reads the files with the configuration, if they are there.
func TestSecretsAreChecked(t *testing.T) {
	dir := t.TempDir()
	check := func(want string) {
		t.Helper()
		_, err := load([]source{{"test.hcl", dir, []byte(smallest + `
listener "tcp" "guarded" {
  address    = "127.0.0.1:1"
  serve      = ["images", "admin"]
  token_file = "tokens"
  auth_file  = "clients"
}
`)}})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	check("")
	for _, c := range []struct{ tokens, clients, want string }{
		{"short", strings.Repeat("a", 16), "test.hcl:15,16: error: Bad file of tokens"},
		{strings.Repeat("a", 16), "alice:{SHA}x", "test.hcl:16,16: error: Bad file of credentials"},
		{strings.Repeat("a", 16), strings.Repeat("b", 16), ""},
	} {
		for name, text := range map[string]string{"tokens": c.tokens, "clients": c.clients} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		check(c.want)
	}
}
