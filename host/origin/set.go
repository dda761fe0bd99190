package origin

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Mount is an origin and the part of the URL space on which it is offered.
type Mount struct {
	Prefix string // of the URL path; begins and ends with a slash
	Origin Origin
	Query  Query // zero: QueryRefuse
}

// Query says what the query of a URL means to an origin.
type Query string

// The meanings of a query. An empty one is none.
const (
	QueryRefuse   Query = "refuse"   // a request with one fails with ErrQuery
	QueryIgnore   Query = "ignore"   // nothing
	QueryIdentity Query = "identity" // it is part of the name, and is sent to the origin
)

// ErrQuery says that an origin takes no query.
var ErrQuery = errors.New("origin: a query is no part of an image's name here")

// name returns the name of what was sent behind the prefix, with a query.
func (m Mount) name(path, query string) (string, error) {
	name, err := parseName(path)
	switch {
	case err != nil || query == "" || m.Query == QueryIgnore:
		return name, err
	case m.Query == QueryIdentity:
		return withQuery(name, query)
	}
	return "", fmt.Errorf("%w: ask for %.64s without ?%.64s, or write %%3F for a question mark that belongs to the path; query in the block of the origin %s allows another meaning",
		ErrQuery, path, query, m.Origin.Name())
}

// Set gives the images of several origins ids, and finds them by id.
//
// With one origin the id is the name of the image. With several it is
// ORIGIN.NAME. Where that makes no id, as with a slash in the name, it is ORIGIN.
// and 32 hexadecimal digits of the SHA-256 of the name, however many origins
// there are.
type Set struct {
	mounts []Mount
	names  *recent[string] // by id, of hashed ids
}

// remembered is how many names of hashed ids are kept, at least: a hash has
// no way back. At some 100 bytes each that is below 4 MiB.
const remembered = 1 << 14

// New returns the set of the mounts. Their prefixes must differ, and so must
// the origins' names, which consist of letters, digits, '_' and '-'.
func New(mounts ...Mount) (*Set, error) {
	if len(mounts) == 0 {
		return nil, errors.New("no origin")
	}
	prefixes, names := map[string]bool{}, map[string]bool{}
	for _, m := range mounts {
		name := m.Origin.Name()
		switch {
		case !strings.HasPrefix(m.Prefix, "/") || !strings.HasSuffix(m.Prefix, "/"):
			return nil, fmt.Errorf("origin %s: prefix %q does not begin and end with a slash", name, m.Prefix)
		case prefixes[m.Prefix]:
			return nil, fmt.Errorf("origin %s: prefix %s is that of another origin", name, m.Prefix)
		case names[name], strings.Contains(name, "."), !sdk.ValidID(name + "." + strings.Repeat("0", hashDigits)):
			return nil, fmt.Errorf("origin %s: the name cannot begin ids, or is taken", name)
		}
		prefixes[m.Prefix], names[name] = true, true
	}
	s := &Set{mounts: slices.Clone(mounts), names: newRecent[string](remembered)}
	slices.SortFunc(s.mounts, func(a, b Mount) int { return len(b.Prefix) - len(a.Prefix) })
	return s, nil
}

// ByPath resolves the path of a request, as it was sent, with its escapes and
// without a query. Errors are [ErrNotFound] for a path on which no origin is
// offered, and [store.ErrBadID] for one that can be no image's.
func (s *Set) ByPath(path string) (id string, o Origin, name string, err error) {
	return s.ByURL(path, "")
}

// ByURL is [Set.ByPath] for a request with a query. The error is [ErrQuery]
// where the origin takes none.
func (s *Set) ByURL(path, query string) (id string, o Origin, name string, err error) {
	i := slices.IndexFunc(s.mounts, func(m Mount) bool { return strings.HasPrefix(path, m.Prefix) })
	if i < 0 {
		return "", nil, "", fmt.Errorf("%w: no origin is offered on this path", ErrNotFound)
	}
	m := s.mounts[i]
	if name, err = m.name(path[len(m.Prefix):], query); err != nil {
		return "", nil, "", err
	}
	return s.ID(m.Origin.Name(), name), m.Origin, name, nil
}

// Find returns the image that a person means: by its id; by the path on which
// it is served; by its name, with "ORIGIN/" or "ORIGIN." in front where there
// are several origins, or with the prefix of one. Escapes are taken for what
// they stand for, so that a URL may be given as it is. It need not have been
// asked for before. Errors are those of [Set.ByURL].
func (s *Set) Find(text string) (id string, o Origin, name string, err error) {
	label, hash, _ := strings.Cut(text, ".")
	o, name, err = s.ByID(text)
	if err == nil || isHash(hash) && s.byLabel(label) >= 0 {
		return text, o, name, err
	}
	m, rest, ok := s.mount(text)
	if !ok {
		return "", nil, "", fmt.Errorf("%w: no origin has %.64q; with several origins say which: %s/NAME, or the path %sNAME",
			ErrNotFound, text, s.mounts[0].Origin.Name(), s.mounts[0].Prefix)
	}
	path, query, _ := strings.Cut(escapeName(rest), "?")
	if name, err = m.name(path, query); err != nil {
		return "", nil, "", err
	}
	return s.ID(m.Origin.Name(), name), m.Origin, name, nil
}

// NameOf returns the name of an image for people, which [Set.Find] takes: with
// several origins ORIGIN/NAME. It is "" where the id tells none.
func (s *Set) NameOf(id string) string {
	o, name, err := s.ByID(id)
	switch {
	case err != nil:
		return ""
	case len(s.mounts) > 1:
		return o.Name() + "/" + name
	}
	return name
}

// mount returns the origin that a person means, and what is left of the text.
func (s *Set) mount(text string) (m Mount, rest string, ok bool) {
	for _, m := range s.mounts {
		if rest, ok := strings.CutPrefix(text, m.Prefix); ok {
			return m, rest, true
		}
	}
	if strings.HasPrefix(text, "/") {
		return Mount{}, "", false
	}
	if len(s.mounts) == 1 {
		return s.mounts[0], text, true
	}
	for _, sep := range []string{"/", "."} {
		for _, m := range s.mounts {
			if rest, ok := strings.CutPrefix(text, m.Origin.Name()+sep); ok {
				return m, rest, true
			}
		}
	}
	for _, m := range s.mounts {
		if rest, ok := strings.CutPrefix("/"+text, m.Prefix); ok {
			return m, rest, true
		}
	}
	return Mount{}, "", false
}

// ByID returns the origin of an id and its name of the image. Errors are
// [store.ErrBadID] for what is no id, and [ErrNotFound] when no origin has the
// id, or when it is a hash whose path nobody has asked for of late.
func (s *Set) ByID(id string) (o Origin, name string, err error) {
	if !sdk.ValidID(id) {
		return nil, "", fmt.Errorf("%w: %.64q", store.ErrBadID, id)
	}
	label, name, _ := strings.Cut(id, ".")
	i := s.byLabel(label)
	switch {
	case i >= 0 && isHash(name):
		if name = s.names.get(id); name == "" {
			return nil, "", fmt.Errorf("%w: %s stands for a path that was not asked for since the start", ErrNotFound, id)
		}
		return s.mounts[i].Origin, name, nil
	case len(s.mounts) == 1:
		return s.mounts[0].Origin, id, nil
	case i < 0 || name == "":
		return nil, "", fmt.Errorf("%w: no origin has the id %s", ErrNotFound, id)
	}
	return s.mounts[i].Origin, name, nil
}

// byLabel returns the index of the origin of that name, or -1.
func (s *Set) byLabel(label string) int {
	return slices.IndexFunc(s.mounts, func(m Mount) bool { return m.Origin.Name() == label })
}

// Learn tells the set the name behind a hashed id, as ByPath returned it to an
// earlier run. What does not belong together has no effect.
func (s *Set) Learn(id, name string) {
	label, hash, _ := strings.Cut(id, ".")
	if isName(name) && hash == hashText(name) {
		s.names.put(label+"."+hash, name)
	}
}

// ID returns the id of the image that an origin of the set calls name. A name
// that makes an id of the form of a hashed one is hashed too: else it could be
// another image's id.
func (s *Set) ID(label, name string) string {
	id := name
	if len(s.mounts) > 1 {
		id = label + "." + name
	}
	tail, labelled := strings.CutPrefix(id, label+".")
	if sdk.ValidID(id) && !(labelled && isHash(tail)) {
		return id
	}
	id = label + "." + hashText(name)
	s.names.put(id, name)
	return id
}
