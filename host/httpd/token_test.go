package httpd

import (
	"net/http"
	"testing"
)

// adminPaths are all that must not be open to everybody, existing or not.
var adminPaths = []string{
	"/v1/", "/v1/images", "/v1/images/img", "/v1/images/img/data", "/v1/queue", "/v1/queue/img", "/v1/usage", "/v1/fills",
	"/v1/victims", "/v1/prune", "/v1/clean", "/v1/verify", "/v1/writes", "/v1/writes/w", "/v1/writes/w/data", "/v1/writes/w/commit",
	"/v1/writes/w/abort", "/v1/plugins", "/v1/no/such/path", "/debug/pprof/", "/debug/pprof/heap", "/metrics", "/readyz",
}

func TestAdminNeedsAToken(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	s := newService(e)
	methods := []string{"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "BREW"}
	for _, role := range []struct {
		name, authorization string
		faces               Faces
		want                int // 0: let through
	}{
		{"nobody", "", Faces{Admin: true, Tokens: []string{"secret"}}, 401},
		{"other scheme", "Basic c2VjcmV0", Faces{Admin: true, Tokens: []string{"secret"}}, 401},
		{"no token", "Bearer ", Faces{Admin: true, Tokens: []string{"secret"}}, 401},
		{"wrong", "Bearer secreT", Faces{Admin: true, Tokens: []string{"secret"}}, 403},
		{"prefix", "Bearer secre", Faces{Admin: true, Tokens: []string{"secret"}}, 403},
		{"no tokens configured", "Bearer secret", Faces{Admin: true}, 403},
		{"empty token configured", "Bearer ", Faces{Admin: true, Tokens: []string{""}}, 401},
		{"good", "Bearer secret", Faces{Admin: true, Tokens: []string{"old", "secret"}}, 0},
		{"good, lower case", "bearer secret", Faces{Admin: true, Tokens: []string{"secret"}}, 0},
		{"trusted", "", Faces{Admin: true, Trusted: true, Tokens: []string{"secret"}}, 0},
	} {
		h := s.Handler(role.faces)
		for _, path := range adminPaths {
			for _, method := range methods {
				e.calls = nil
				w := do(h, method, path, "Authorization", role.authorization)
				denied := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden
				if role.want == 0 && denied || role.want != 0 && w.Code != role.want {
					t.Errorf("%s: %s %s: %d, want %d", role.name, method, path, w.Code, role.want)
				}
				if denied && len(e.calls) > 0 {
					t.Errorf("%s: %s %s reached the engine: %v", role.name, method, path, e.calls)
				}
				if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (w.Code == 401) {
					t.Errorf("%s: %s %s: %d with challenge %q", role.name, method, path, w.Code, challenge)
				}
			}
		}
		if w := do(h, "GET", "/healthz"); w.Code != 200 {
			t.Errorf("%s: /healthz: %d", role.name, w.Code)
		}
	}
}

// TestFacesBesideAdmin: images and metrics that a listener serves by name need
// no token, whatever else it serves.
func TestFacesBesideAdmin(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	s := newService(e)
	h := s.Handler(Faces{Images: true, Metrics: true, Admin: true, Tokens: []string{"secret"}})
	for path, want := range map[string]int{
		"/images/img": 200, "/metrics": 200, "/readyz": 200, "/v1/usage": 401,
		"//v1/usage": 400, "/images/../v1/usage": 400, "/%76%31/usage": 401, "/V1/usage": 404, "/v1%2fusage": 404,
	} {
		if w := do(h, "GET", path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
