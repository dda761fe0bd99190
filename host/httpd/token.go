package httpd

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// requireToken lets only requests through that bear one of tokens. Sums of
// equal length are compared, all of them and in constant time, so that the
// time of the answer tells nothing about a token.
func requireToken(tokens []string, h http.Handler) http.Handler {
	var sums [][sha256.Size]byte
	for _, t := range tokens {
		if t != "" {
			sums = append(sums, sha256.Sum256([]byte(t)))
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearer(r.Header.Get("Authorization"))
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="imgcache"`)
			writeError(w, http.StatusUnauthorized, "a bearer token is required")
			return
		}
		sum, known := sha256.Sum256([]byte(token)), 0
		for _, s := range sums {
			known |= subtle.ConstantTimeCompare(sum[:], s[:])
		}
		if known != 1 {
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
