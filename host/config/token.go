package config

import (
	"fmt"
	"strings"
)

// Tokens reads the bearer tokens of the listener's token file, one a line.
// Empty lines and lines that begin with # are skipped. Without a token file
// there are no tokens; a token file without tokens is an error.
func (l Listener) Tokens() ([]string, error) {
	tokens, err := readTokens(l.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("listener %s: read tokens: %w", l.Name, err)
	}
	return tokens, nil
}

// Token reads the token that other nodes accept: the first of the file, in the
// form of [Listener.Tokens]; "" without a file.
func (p Peers) Token() (string, error) {
	tokens, err := readTokens(p.TokenFile)
	if err != nil {
		return "", fmt.Errorf("origin %s: read token: %w", p.Name, err)
	}
	if len(tokens) == 0 {
		return "", nil
	}
	return tokens[0], nil
}

func readTokens(file string) (tokens []string, err error) {
	if file == "" {
		return nil, nil
	}
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			tokens = append(tokens, line)
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s holds no token", file)
	}
	return tokens, nil
}
