package origin

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Mount is an origin and the URL paths on which it is offered.
type Mount struct {
	Prefix string // of the URL path; begins and ends with a slash
	Origin Origin
	Query  Query // zero: QueryRefuse
}

// Query says what the query of a URL means to an origin.
type Query string

// The meanings of a query. An empty query counts as none.
const (
	QueryRefuse   Query = "refuse"   // a request with a query fails with ErrQuery
	QueryIgnore   Query = "ignore"   // it means nothing
	QueryIdentity Query = "identity" // it is part of the name and is sent to the origin
)

// ErrQuery says that an origin does not accept a query.
var ErrQuery = errors.New("origin: a query cannot be part of an image's name here")

// name returns the name for the rest of a path after the prefix, and a query.
func (m Mount) name(path, query string) (string, error) {
	name, err := parseName(path)
	switch {
	case err != nil || query == "" || m.Query == QueryIgnore:
		return name, err
	case m.Query == QueryIdentity:
		return withQuery(name, query)
	}
	return "", fmt.Errorf("%w: request %.64s without ?%.64s, or write %%3F for a question mark in the path, or allow queries by the option query of the origin %s",
		ErrQuery, path, query, m.Origin.Name())
}

// Set gives ids to the images of one or several origins, and finds images by id.
//
// With one origin the id is the name of the image. With several it is ORIGIN.NAME.
// If that is not a valid id, for example because of a slash in the name, the id is
// "ORIGIN." and 32 hexadecimal digits of the SHA-256 of the name, even with one
// origin.
type Set struct {
	mounts []Mount
	names  *recent[string] // by id, of hashed ids
}

// remembered is how many names of hashed ids are remembered at least, since a name
// cannot be computed from its hash. With about 100 bytes each they take less than
// 4 MiB.
const remembered = 1 << 14

// New returns the set of the mounts. Their prefixes must differ, and so must
// the origins' names, which consist of letters, digits, '_' and '-'.
func New(mounts ...Mount) (*Set, error) {
	if len(mounts) == 0 {
		return nil, errors.New("no origin; expected at least one")
	}
	prefixes, names := map[string]bool{}, map[string]bool{}
	for _, m := range mounts {
		name := m.Origin.Name()
		switch {
		case !strings.HasPrefix(m.Prefix, "/") || !strings.HasSuffix(m.Prefix, "/"):
			return nil, fmt.Errorf("origin %s: prefix %q does not begin and end with a slash", name, m.Prefix)
		case prefixes[m.Prefix]:
			return nil, fmt.Errorf("origin %s: another origin has the prefix %s already", name, m.Prefix)
		case names[name], strings.Contains(name, "."), !sdk.ValidID(name + "." + strings.Repeat("0", hashDigits)):
			return nil, fmt.Errorf("origin %s: another origin has this name, or it cannot be the beginning of an id; expected letters, digits, '_' and '-'", name)
		}
		prefixes[m.Prefix], names[name] = true, true
	}
	s := &Set{mounts: slices.Clone(mounts), names: newRecent[string](remembered)}
	slices.SortFunc(s.mounts, func(a, b Mount) int { return len(b.Prefix) - len(a.Prefix) })
	return s, nil
}

// ByPath returns the image for the path of a request, which is given as it was sent,
// with its escapes and without a query. Errors are [ErrNotFound] for a path on which
// no origin is offered, and [store.ErrBadID] for one that no image can have.
func (s *Set) ByPath(path string) (id string, o Origin, name string, err error) {
	return s.ByURL(path, "")
}

// ByURL is [Set.ByPath] for a request with a query. The error is [ErrQuery] if the
// origin does not accept one.
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

// Find returns the image that a person means. The text may be an id; the path on
// which the image is served; or its name, after "ORIGIN/", "ORIGIN." or the prefix
// of the origin if there are several. Escapes are resolved, so that it may be copied
// from a URL. The image need not have been requested before. Errors are those of
// [Set.ByURL].
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

// NameOf returns the name by which people know an image, and by which [Set.Find]
// finds it: with several origins ORIGIN/NAME. "": the name of the id is not known.
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

// mount returns the origin that a person means, and the rest of the text.
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

// ByID returns the origin of an id, and the name that the image has there. Errors
// are [store.ErrBadID] for an invalid id, and [ErrNotFound] if no origin has the id,
// or if it is a hash whose name is not remembered.
func (s *Set) ByID(id string) (o Origin, name string, err error) {
	if !sdk.ValidID(id) {
		return nil, "", fmt.Errorf("%w: %.64q", store.ErrBadID, id)
	}
	label, name, _ := strings.Cut(id, ".")
	i := s.byLabel(label)
	switch {
	case i >= 0 && isHash(name):
		if name = s.names.get(id); name == "" {
			return nil, "", fmt.Errorf("%w: the name of the id %s is not known, because it was not requested since the start; use the name", ErrNotFound, id)
		}
		return s.mounts[i].Origin, name, nil
	case len(s.mounts) == 1:
		return s.mounts[0].Origin, id, nil
	case i < 0 || name == "":
		return nil, "", fmt.Errorf("%w: no origin has the id %s", ErrNotFound, id)
	}
	return s.mounts[i].Origin, name, nil
}

// byLabel returns the index of the origin with that name, or -1.
func (s *Set) byLabel(label string) int {
	return slices.IndexFunc(s.mounts, func(m Mount) bool { return m.Origin.Name() == label })
}

// Learn tells the set the name of a hashed id, which an earlier run has stored. If
// the id is not that of the name, it has no effect.
func (s *Set) Learn(id, name string) {
	label, hash, _ := strings.Cut(id, ".")
	if isName(name) && hash == hashText(name) {
		s.names.put(label+"."+hash, name)
	}
}

// ID returns the id of the image with that name at an origin of the set. If the id
// would look like a hashed one, the name is hashed too, since otherwise the id could
// be that of another image.
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
