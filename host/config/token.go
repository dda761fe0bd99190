package config

import (
	"fmt"
	"strings"
)

// Tokens reads the bearer tokens of the listener's token file, one a line.
// Empty lines and lines that begin with # are none. Without a token file there
// are no tokens; a token file without tokens is an error.
func (l Listener) Tokens() ([]string, error) {
	if l.TokenFile == "" {
		return nil, nil
	}
	text, err := readFile(l.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("listener %s: read tokens: %w", l.Name, err)
	}
	var tokens []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			tokens = append(tokens, line)
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("listener %s: read tokens: %s holds none", l.Name, l.TokenFile)
	}
	return tokens, nil
}
