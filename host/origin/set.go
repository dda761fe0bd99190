package origin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Mount is an origin and the part of the URL space on which it is offered.
type Mount struct {
	Prefix string // of the URL path; begins and ends with a slash
	Origin Origin
}

// Set gives the images of several origins ids, and finds them by id.
//
// With one origin the id is the rest of the path behind the prefix, and is
// also the origin's name of the image. With several it is ORIGIN.NAME, or,
// where the name makes no id, as one with a slash, ORIGIN. and 32 hexadecimal
// digits of the SHA-256 of the name.
type Set struct {
	mounts []Mount
	names  *recent[string] // by id, of hashed ids
}

// remembered is how many names of hashed ids are kept, at least: a hash has
// no way back. At some 100 bytes each that is below 4 MiB.
const remembered = 1 << 14

// maxName bounds the name of an image. It is the bound of object stores, and
// keeps what a Set remembers small whatever clients ask for.
const maxName = 1024

// New returns the set of the mounts. Their prefixes must differ, and with
// several so must the origins' names, which then consist of letters, digits,
// '_' and '-'.
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
		case len(mounts) > 1 && (names[name] || strings.Contains(name, ".") || !sdk.ValidID(name+"."+strings.Repeat("0", 32))):
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
	i := slices.IndexFunc(s.mounts, func(m Mount) bool { return strings.HasPrefix(path, m.Prefix) })
	if i < 0 {
		return "", nil, "", fmt.Errorf("%w: no origin is offered on this path", ErrNotFound)
	}
	m := s.mounts[i]
	name, err = unescape(path[len(m.Prefix):])
	if err != nil {
		return "", nil, "", err
	}
	if len(s.mounts) > 1 {
		return s.id(m.Origin.Name(), name), m.Origin, name, nil
	}
	if !sdk.ValidID(name) {
		return "", nil, "", fmt.Errorf("%w: %.64q", store.ErrBadID, name)
	}
	return name, m.Origin, name, nil
}

// ByID returns the origin of an id and its name of the image. Errors are
// [store.ErrBadID] for what is no id, and [ErrNotFound] when no origin has the
// id, or when it is a hash whose path nobody has asked for of late.
func (s *Set) ByID(id string) (o Origin, name string, err error) {
	if !sdk.ValidID(id) {
		return nil, "", fmt.Errorf("%w: %.64q", store.ErrBadID, id)
	}
	if len(s.mounts) == 1 {
		return s.mounts[0].Origin, id, nil
	}
	label, name, _ := strings.Cut(id, ".")
	i := slices.IndexFunc(s.mounts, func(m Mount) bool { return m.Origin.Name() == label })
	if i < 0 || name == "" {
		return nil, "", fmt.Errorf("%w: no origin has the id %s", ErrNotFound, id)
	}
	if isHash(name) {
		if name = s.names.get(id); name == "" {
			return nil, "", fmt.Errorf("%w: %s stands for a path that was not asked for since the start", ErrNotFound, id)
		}
	}
	return s.mounts[i].Origin, name, nil
}

// Learn tells the set the name behind a hashed id, as ByPath returned it to an
// earlier run. What does not belong together has no effect.
func (s *Set) Learn(id, name string) {
	label, hash, _ := strings.Cut(id, ".")
	if len(s.mounts) > 1 && name != "" && len(name) <= maxName && hash == hashText(name) {
		s.names.put(label+"."+hash, name)
	}
}

// ID returns the id of the image that an origin of the set calls name.
func (s *Set) ID(label, name string) string {
	if len(s.mounts) == 1 {
		return name
	}
	return s.id(label, name)
}

// id makes the id of an image. A name that looks like a hash is hashed too:
// else it could be another image's id.
func (s *Set) id(label, name string) string {
	if id := label + "." + name; sdk.ValidID(id) && !isHash(name) {
		return id
	}
	id := label + "." + hashText(name)
	s.names.put(id, name)
	return id
}

// unescape turns the rest of a path into a name: segments that are neither
// empty nor dots, and that hide no slash, backslash or control character in
// an escape.
func unescape(rest string) (string, error) {
	segments := strings.Split(rest, "/")
	for i, raw := range segments {
		s, err := url.PathUnescape(raw)
		if err != nil || strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) }) {
			return "", fmt.Errorf("%w: %.64q", store.ErrBadID, rest)
		}
		segments[i] = s
	}
	name := strings.Join(segments, "/")
	if len(name) > maxName || name == "." || !fs.ValidPath(name) {
		return "", fmt.Errorf("%w: %.64q", store.ErrBadID, rest)
	}
	return name, nil
}
