package httpd

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// tokens are the sums of some bearer tokens. Sums have equal length and are all
// compared in constant time, so that the time of an answer tells nothing about a
// token.
type tokens [][sha256.Size]byte

func newTokens(list []string) tokens {
	var sums tokens
	for _, t := range list {
		if t != "" {
			sums = append(sums, sha256.Sum256([]byte(t)))
		}
	}
	return sums
}

func (ts tokens) has(token string) bool {
	sum, known := sha256.Sum256([]byte(token)), 0
	for _, s := range ts {
		known |= subtle.ConstantTimeCompare(sum[:], s[:])
	}
	return known == 1
}

// requireToken lets only requests through that bear one of the tokens.
func requireToken(list []string, h http.Handler) http.Handler {
	known := newTokens(list)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearer(r.Header.Get("Authorization"))
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="imgcache"`)
			writeError(w, http.StatusUnauthorized, "a bearer token is required")
			return
		}
		if !known.has(token) {
			writeError(w, http.StatusForbidden, "the token is not known")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// bearer returns the token of an Authorization header.
func bearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}
