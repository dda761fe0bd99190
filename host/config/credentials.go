package config

import (
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Credentials are what a client may show to get images: a bearer token, or the
// name of a user with the password.
type Credentials struct {
	Tokens    []string
	Passwords map[string]string // bcrypt hashes, by user
}

// maxCost bounds the work that a password costs: at 14 it is about a second, and
// each wrong one costs it too.
const maxCost = 14

// Credentials reads the listener's auth file: one credential a line, a bearer
// token or USER:HASH as htpasswd -B writes it. Empty lines and lines that begin
// with # are none. Without such a file there are none, and nobody needs one; a
// file without any is an error, as is one that everybody may read. The errors tell
// no credential.
func (l Listener) Credentials() (c Credentials, err error) {
	if l.AuthFile == "" {
		return c, nil
	}
	lines, err := readSecrets(l.AuthFile)
	if err != nil {
		return c, fmt.Errorf("listener %s: read credentials: %w", l.Name, err)
	}
	c.Passwords = map[string]string{}
	for _, line := range lines {
		user, hash, password := strings.Cut(line.text, ":")
		if !password {
			c.Tokens, err = append(c.Tokens, line.text), checkToken(line.text)
		} else if err = checkPassword(user, hash); err == nil && c.Passwords[user] != "" {
			err = fmt.Errorf("the user %.32q stands there already", user)
		}
		if err != nil {
			return Credentials{}, fmt.Errorf("listener %s: line %d of %s: %w", l.Name, line.number, l.AuthFile, err)
		}
		if password {
			c.Passwords[user] = hash
		}
	}
	return c, nil
}

// weakHashes are the beginnings of hashes that htpasswd and others make besides,
// and what they are.
var weakHashes = []struct{ prefix, what string }{
	{"$apr1$", "an MD5 sum"},
	{"$1$", "an MD5 sum"},
	{"{SHA}", "a bare SHA-1 sum"},
	{"{SSHA}", "a SHA-1 sum"},
	{"$5$", "a SHA-256 sum of crypt"},
	{"$6$", "a SHA-512 sum of crypt"},
	{"$y$", "a hash of yescrypt"},
	{"$argon2", "a hash of Argon2"},
}

// checkPassword says what is wrong with a user and the hash of a password.
func checkPassword(user, hash string) error {
	if user == "" {
		return fmt.Errorf("the name of a user is missing before the colon")
	}
	if !strings.HasPrefix(hash, "$2") {
		what := "plain text, or a hash of crypt that is easily guessed"
		for _, weak := range weakHashes {
			if strings.HasPrefix(hash, weak.prefix) {
				what = weak.what
			}
		}
		return fmt.Errorf("the password of %.32q is %s; expected is a hash of bcrypt, which htpasswd -B makes", user, what)
	}
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60: // the form has no other length
		return fmt.Errorf("the password of %.32q is no whole hash of bcrypt, which has 60 characters, and this one %d", user, len(hash))
	case cost > maxCost:
		return fmt.Errorf("the hash of the password of %.32q has the cost %d; each request with a wrong one would cost more than a second of the processor, so at most %d is taken", user, cost, maxCost)
	}
	return nil
}
