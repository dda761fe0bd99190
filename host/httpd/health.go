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

// Lack is something that the service is configured to do and does not do.
type Lack struct {
	What string // a word or two that may be told to anybody, such as "disk"
	Why  string // at length; may name files and addresses
}

// readinessFor says whether the service does all that it is meant to. Who has no
// right to administer it is not told why not.
func (s *Service) readinessFor(f Faces) http.HandlerFunc {
	public := f.Metrics && !f.Trusted // the path is open to everybody who can connect
	return func(w http.ResponseWriter, _ *http.Request) {
		lacks, reasons := s.ready(), []string{}
		for _, l := range lacks {
			reason := l.What
			if !public {
				reason += ": " + l.Why
			}
			reasons = append(reasons, reason)
		}
		status := http.StatusOK
		if len(lacks) > 0 {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, struct {
			Ready   bool     `json:"ready"`
			Reasons []string `json:"reasons"`
		}{len(lacks) == 0, reasons})
	}
}
