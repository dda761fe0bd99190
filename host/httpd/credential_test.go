package httpd

import (
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func hashOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestCredentialsOfClients: images are for those who show a credential, and the
// rest of the listener is as before.
func TestCredentialsOfClients(t *testing.T) {
	const token = "0123456789abcdef"
	both := &Credentials{Tokens: []string{"", token}, Passwords: map[string]string{"alice": hashOf(t, "secret: with colon"), "bob": hashOf(t, "pässwörd")}}
	for _, c := range []struct {
		name          string
		clients       *Credentials
		authorization string
		want          int
		challenges    string
	}{
		{"nothing is asked for", nil, "", 200, ""},
		{"nothing is shown", both, "", 401, "Bearer Basic"},
		{"the token", both, "Bearer " + token, 200, ""},
		{"the token, oddly written", both, "bearer   " + token + " ", 200, ""},
		{"another token", both, "Bearer " + token + "0", 401, "Bearer Basic"},
		{"an empty token", both, "Bearer ", 401, "Bearer Basic"},
		{"the password", both, basic("alice", "secret: with colon"), 200, ""},
		{"a password of other scripts", both, basic("bob", "pässwörd"), 200, ""},
		{"another's password", both, basic("bob", "secret: with colon"), 401, "Bearer Basic"},
		{"no password", both, basic("alice", ""), 401, "Bearer Basic"},
		{"no user", both, basic("", "secret: with colon"), 401, "Bearer Basic"},
		{"the hash", both, basic("alice", both.Passwords["alice"]), 401, "Bearer Basic"},
		{"a token as a password", both, basic("token", token), 401, "Bearer Basic"},
		{"no base64", both, "Basic ???", 401, "Bearer Basic"},
		{"another scheme", both, "Digest " + token, 401, "Bearer Basic"},
		{"tokens alone", &Credentials{Tokens: []string{token}}, basic("alice", "x"), 401, "Bearer"},
		{"passwords alone", &Credentials{Passwords: both.Passwords}, "Bearer " + token, 401, "Basic"},
		{"nobody", &Credentials{}, "Bearer ", 401, ""},
	} {
		e := newEngine()
		e.images["img"] = newContent("abc")
		h := newService(e).Handler(Faces{Images: true, Metrics: true, Clients: c.clients})
		for range 2 { // the second time a password is known
			for _, method := range []string{"GET", "HEAD"} {
				for _, path := range []string{"/images/img", "/images/none", "/nowhere"} {
					want := c.want
					if want == 200 && path != "/images/img" {
						want = 404
					}
					w := do(h, method, path, "Authorization", c.authorization)
					if w.Code != want {
						t.Errorf("%s: %s %s: %d, want %d", c.name, method, path, w.Code, want)
					}
					var schemes []string
					for _, challenge := range w.Header().Values("WWW-Authenticate") {
						scheme, _, _ := strings.Cut(challenge, " ")
						schemes = append(schemes, scheme)
					}
					if got := strings.Join(schemes, " "); got != c.challenges {
						t.Errorf("%s: %s %s: challenges %q, want %q", c.name, method, path, got, c.challenges)
					}
				}
			}
		}
		if c.want == http.StatusUnauthorized && len(e.calls) > 0 {
			t.Errorf("%s: the cache was asked: %q", c.name, e.calls)
		}
		for _, path := range []string{"/healthz", "/metrics", "/readyz"} {
			if w := do(h, "GET", path); w.Code != 200 {
				t.Errorf("%s: %s: %d", c.name, path, w.Code)
			}
		}
	}
}

// TestPasswordsAreRemembered: a password is checked once, and a wrong one is not
// taken for it afterwards.
func TestPasswordsAreRemembered(t *testing.T) {
	k := newDoorkeeper(Credentials{Passwords: map[string]string{"alice": hashOf(t, "right"), "bob": hashOf(t, "also right")}})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for password, want := range map[string]bool{"right": true, "wrong": false, "also right": false} {
				if got := k.knows(t.Context(), "alice", password); got != want {
					t.Errorf("%q is right: %v", password, got)
				}
			}
		})
	}
	all.Wait()
	k.hashes["alice"] = []byte("no hash any more")
	if !k.knows(t.Context(), "alice", "right") {
		t.Error("the password was checked again")
	}
	for user, password := range map[string]string{"alice": "wrong", "bob": "right", "carol": "right"} {
		if k.knows(t.Context(), user, password) {
			t.Errorf("%s gets in with %q", user, password)
		}
	}
}
