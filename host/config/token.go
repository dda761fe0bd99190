package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
)

// minToken is the shortest token in characters: one of 16 that a computer has
// chosen cannot be guessed over a network, and one that a person has chosen is
// at least noticed.
const minToken = 16

// Tokens reads the bearer tokens of the listener's token file, one a line.
// Empty lines and lines that begin with # are skipped. Without a token file
// there are no tokens; a token file without tokens is an error, as is one that
// everybody may read, and a token of fewer than 16 characters.
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
	lines, err := readSecrets(file)
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		if err := checkToken(l.text); err != nil {
			return nil, fmt.Errorf("line %d of %s: %w", l.number, file, err)
		}
		tokens = append(tokens, l.text)
	}
	return tokens, nil
}

// checkToken says what is wrong with a token, without telling it.
func checkToken(token string) error {
	if n := len([]rune(token)); n < minToken {
		return fmt.Errorf("a token has at least %d characters, and this one %d; openssl rand -hex 32 makes a good one", minToken, n)
	}
	return nil
}

// secretLine is a line of a file of secrets.
type secretLine struct {
	number int // from 1
	text   string
}

// readSecrets reads a file of which each line is a secret, but for empty lines
// and those that begin with #. There must be one. The errors tell none of them.
func readSecrets(file string) ([]secretLine, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); perm&0o006 != 0 {
		return nil, fmt.Errorf("everybody may read or write %s (its mode is %04o); take that away with chmod o-rw", file, perm)
	}
	content, err := readFile(file)
	if err != nil {
		return nil, err
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")) // the byte order mark of some editors
	var lines []secretLine
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
			return nil, fmt.Errorf("line %d of %s has characters that no header can carry; the file must be text in ASCII or UTF-8", number, file)
		}
		lines = append(lines, secretLine{number, line})
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s holds nothing but empty lines and comments", file)
	}
	return lines, nil
}

// cannotRead reports whether a file of secrets cannot be read here and now, as by
// who checks the configuration of another machine; whether it is wrong is not
// known then.
func cannotRead(err error) bool {
	var path *os.PathError
	return errors.As(err, &path)
}
