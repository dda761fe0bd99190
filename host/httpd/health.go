package httpd

import (
	"io"
	"net/http"
)

// health says that the process lives and can answer.
func (s *Service) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// readiness says whether the service does all that it is meant to.
func (s *Service) readiness(w http.ResponseWriter, _ *http.Request) {
	ready, reasons := s.ready()
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}{ready, list(reasons)})
}
