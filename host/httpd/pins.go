package httpd

import (
	"fmt"
	"net/http"
	"time"
)

func (s *Service) listPins(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"pins": list(s.engine.Pins())})
}

func (s *Service) pinImage(w http.ResponseWriter, r *http.Request) {
	var o struct {
		Until *string `json:"until"` // RFC 3339; absent: for ever
	}
	err := decode(w, r, &o)
	var until time.Time
	if err == nil && o.Until != nil {
		until, err = pinEnd(*o.Until)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	pin, err := s.engine.Pin(r.PathValue("id"), until)
	s.answer(w, r, pin, err)
}

// pinEnd reads a time. The engine's word for no end is no time of a request.
func pinEnd(text string) (time.Time, error) {
	until, err := time.Parse(time.RFC3339, text)
	if err != nil || until.IsZero() {
		return time.Time{}, fmt.Errorf("%w: until is %.40q, want a time such as 2027-01-31T18:00:00Z", errBadRequest, text)
	}
	return until, nil
}

func (s *Service) unpinImage(w http.ResponseWriter, r *http.Request) {
	s.answerNothing(w, r, s.engine.Unpin(r.PathValue("id")))
}
