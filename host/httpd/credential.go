package httpd

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"runtime"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// Credentials are what a client may show to get images: one of the tokens, or
// one of the users with the password. Without any, nobody gets in.
type Credentials struct {
	Tokens    []string
	Passwords map[string]string // bcrypt hashes, by user
}

// doorkeeper lets requests through that show one of some credentials.
type doorkeeper struct {
	tokens tokens
	hashes map[string][]byte // of passwords, by user
	any    []byte            // one of the hashes: who is no user costs as much time as who is
	trying chan struct{}     // a slot for each password that is being checked

	// A password that was right is known again by a sum under a key that nobody
	// has, since a check takes a tenth of a second and a client asks often.
	key   []byte
	mu    sync.Mutex
	right map[string][]byte // sums of passwords that were right, by user
}

func newDoorkeeper(c Credentials) *doorkeeper {
	// Half of the processors go on with what is for those who are let in.
	k := &doorkeeper{
		tokens: newTokens(c.Tokens), hashes: map[string][]byte{}, right: map[string][]byte{},
		trying: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), key: make([]byte, sha256.Size),
	}
	_, _ = rand.Read(k.key) // which never fails
	for user, hash := range c.Passwords {
		k.hashes[user], k.any = []byte(hash), []byte(hash)
	}
	return k
}

// guard serves h to those who are let through.
func (k *doorkeeper) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k.lets(r) {
			h.ServeHTTP(w, r)
			return
		}
		if len(k.tokens) > 0 {
			w.Header().Add("WWW-Authenticate", `Bearer realm="imgcache"`)
		}
		if len(k.hashes) > 0 {
			w.Header().Add("WWW-Authenticate", `Basic realm="imgcache", charset="UTF-8"`)
		}
		told := "a credential is required"
		if r.Header.Get("Authorization") != "" {
			told = "the credential is not known"
		}
		writeError(w, http.StatusUnauthorized, told)
	})
}

func (k *doorkeeper) lets(r *http.Request) bool {
	if token, ok := bearer(r.Header.Get("Authorization")); ok {
		return k.tokens.has(token)
	}
	user, password, ok := r.BasicAuth()
	return ok && len(k.hashes) > 0 && k.knows(r.Context(), user, password)
}

// knows reports whether the password is that of the user.
func (k *doorkeeper) knows(ctx context.Context, user, password string) bool {
	sum := k.sum(user, password)
	k.mu.Lock()
	right, known := k.right[user]
	k.mu.Unlock()
	if known && subtle.ConstantTimeCompare(sum, right) == 1 {
		return true
	}
	select {
	case k.trying <- struct{}{}:
		defer func() { <-k.trying }()
	case <-ctx.Done():
		return false
	}
	hash, isUser := k.hashes[user]
	if !isUser {
		hash = k.any
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !isUser {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.right[user] = sum
	return true
}

func (k *doorkeeper) sum(user, password string) []byte {
	m := hmac.New(sha256.New, k.key)
	m.Write([]byte(user + "\x00" + password)) // a user has no zero in it
	return m.Sum(nil)
}
