package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// value is an option bound to the variable that holds it, as flag.Value is.
type value interface {
	// set stores v, which is known and not null. Relative paths are taken
	// from dir. The error is a sentence for people that says what was expected.
	set(v cty.Value, dir string) error
	// expected says what set takes, for when its error cannot be shown.
	expected() string
	// String returns what the variable holds in the notation of a
	// configuration file.
	String() string
}

// stringOf returns the text in v. It converts nothing: a number where a text
// belongs is more likely a mistake than a name.
func stringOf(v cty.Value) (string, error) {
	if v.Type() != cty.String {
		return "", fmt.Errorf("expected a text in double quotes, got a %s", v.Type().FriendlyName())
	}
	return v.AsString(), nil
}

// textValue is any text that is not empty.
type textValue struct{ target *string }

func text(target *string) value { return textValue{target} }

func (t textValue) String() string { return strconv.Quote(*t.target) }

func (textValue) expected() string { return "a text that is not empty" }

func (t textValue) set(v cty.Value, _ string) error {
	s, err := stringOf(v)
	if err == nil && s == "" {
		err = errors.New("the text is empty")
	}
	if err == nil {
		*t.target = s
	}
	return err
}

// webAddressValue is the URL of a server, to which paths are appended.
type webAddressValue struct{ target *string }

func webAddress(target *string) value { return webAddressValue{target} }

func (w webAddressValue) String() string { return strconv.Quote(*w.target) }

func (webAddressValue) expected() string {
	return `a URL of a host, a port and perhaps a path, such as "http://cache-1.example:9292"`
}

func (w webAddressValue) set(v cty.Value, _ string) error {
	s, err := stringOf(v)
	if err != nil {
		return err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q is not a URL such as \"http://cache-1.example:9292\"", s)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("%q has more than a host, a port and perhaps a path", u.Redacted())
	}
	*w.target = strings.TrimRight(s, "/")
	return nil
}

// pathValue is a path in the file system.
type pathValue struct{ target *string }

func path(target *string) value { return pathValue{target} }

func (p pathValue) String() string { return strconv.Quote(*p.target) }

func (pathValue) expected() string { return "a path" }

func (p pathValue) set(v cty.Value, dir string) error {
	s, err := stringOf(v)
	switch {
	case err != nil:
		return err
	case s == "":
		return errors.New("the path is empty")
	case strings.ContainsRune(s, 0):
		return errors.New("the path contains a zero byte")
	case !filepath.IsAbs(s):
		s = filepath.Join(dir, s)
	}
	*p.target = filepath.Clean(s)
	return nil
}

// pathsValue is a list of paths.
type pathsValue struct{ target *[]string }

func paths(target *[]string) value { return pathsValue{target} }

func (p pathsValue) String() string { return texts(p.target).String() }

func (pathsValue) expected() string { return "a list of paths" }

func (p pathsValue) set(v cty.Value, dir string) error {
	list, err := listOf(v)
	for i := range list {
		if err == nil {
			err = path(&list[i]).set(cty.StringVal(list[i]), dir)
		}
	}
	if err == nil {
		*p.target = list
	}
	return err
}

// choiceValue is one of a few words.
type choiceValue[T ~string] struct {
	target *T
	words  []T
}

func choice[T ~string](target *T, words ...T) value { return choiceValue[T]{target, words} }

func (c choiceValue[T]) String() string { return strconv.Quote(string(*c.target)) }

func (c choiceValue[T]) expected() string { return alternatives(asTexts(c.words)) }

func (c choiceValue[T]) set(v cty.Value, _ string) error {
	s, err := stringOf(v)
	if err == nil {
		err = oneOf(s, c.words)
	}
	if err == nil {
		*c.target = T(s)
	}
	return err
}

func asTexts[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}

func oneOf[T ~string](given string, words []T) error {
	known := asTexts(words)
	if slices.Contains(known, given) {
		return nil
	}
	return fmt.Errorf("expected %s, got %q.%s", alternatives(known), given, didYouMean(given, known))
}

// choicesValue is a list of a few words, none of them twice.
type choicesValue[T ~string] struct {
	target *[]T
	words  []T
}

func choices[T ~string](target *[]T, words ...T) value { return choicesValue[T]{target, words} }

func (c choicesValue[T]) String() string {
	quoted := make([]string, len(*c.target))
	for i, w := range *c.target {
		quoted[i] = strconv.Quote(string(w))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func (c choicesValue[T]) expected() string {
	return "a list, not empty and without repetition, of " + alternatives(asTexts(c.words))
}

func (c choicesValue[T]) set(v cty.Value, _ string) error {
	list, err := listOf(v)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("the list is empty")
	}
	var out []T
	for _, s := range list {
		if err := oneOf(s, c.words); err != nil {
			return err
		}
		if slices.Contains(out, T(s)) {
			return fmt.Errorf("%q is listed twice", s)
		}
		out = append(out, T(s))
	}
	*c.target = out
	return nil
}

// textsValue is a list of texts.
type textsValue struct{ target *[]string }

func texts(target *[]string) value { return textsValue{target} }

func (t textsValue) String() string { return choicesValue[string]{target: t.target}.String() }

func (textsValue) expected() string { return "a list of texts" }

func (t textsValue) set(v cty.Value, _ string) error {
	list, err := listOf(v)
	if err == nil {
		*t.target = list
	}
	return err
}

// imagesValue is a list of images, none of them twice.
type imagesValue struct{ target *[]string }

func images(target *[]string) value { return imagesValue{target} }

func (i imagesValue) String() string { return texts(i.target).String() }

func (imagesValue) expected() string { return "a list, not empty and without repetition, of images" }

func (i imagesValue) set(v cty.Value, _ string) error {
	list, err := listOf(v)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("the list is empty")
	}
	for n, name := range list {
		if !isImage(name) {
			return fmt.Errorf("%.64q is not an image; expected an id, or a name of at most %d bytes as it stands in a URL, such as \"noble/current/x.img\"", name, maxImageName)
		}
		if slices.Contains(list[:n], name) {
			return fmt.Errorf("%q is listed twice", name)
		}
	}
	*i.target = list
	return nil
}

// maxImageName is the longest name that origins take, with as much again for
// escapes and a prefix.
const maxImageName = 2048

// isImage reports whether a text can be meant for an image. Which one, the
// origins know.
func isImage(text string) bool {
	path, _, _ := strings.Cut(strings.TrimPrefix(text, "/"), "?")
	return len(text) <= maxImageName && path != "." && fs.ValidPath(path) &&
		!strings.ContainsFunc(text, func(r rune) bool { return r == '\\' || unicode.IsControl(r) })
}

// maxListed bounds lists: several checks compare each element with all others.
const maxListed = 10_000

func listOf(v cty.Value) ([]string, error) {
	if !v.Type().IsTupleType() && !v.Type().IsListType() {
		return nil, fmt.Errorf(`expected a list such as ["a", "b"], got a %s`, v.Type().FriendlyName())
	}
	if n := v.LengthInt(); n > maxListed {
		return nil, fmt.Errorf("expected at most %d elements, got %d", maxListed, n)
	}
	var list []string
	for _, e := range v.AsValueSlice() {
		if e.IsNull() {
			return nil, errors.New("an element of the list is null")
		}
		s, err := stringOf(e)
		if err != nil {
			return nil, fmt.Errorf("in the list: %w", err)
		}
		list = append(list, s)
	}
	return list, nil
}

// textMapValue is a map from names to texts.
type textMapValue struct{ target *map[string]string }

func textMap(target *map[string]string) value { return textMapValue{target} }

func (t textMapValue) String() string {
	var pairs []string
	for k, v := range *t.target {
		pairs = append(pairs, fmt.Sprintf("%s = %q", k, v))
	}
	sort.Strings(pairs)
	if len(pairs) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(pairs, ", ") + " }"
}

func (textMapValue) expected() string { return `a map such as { NAME = "text" }` }

func (t textMapValue) set(v cty.Value, _ string) error {
	if !v.Type().IsObjectType() && !v.Type().IsMapType() {
		return fmt.Errorf(`expected a map such as { NAME = "text" }, got a %s`, v.Type().FriendlyName())
	}
	out := map[string]string{}
	for k, e := range v.AsValueMap() {
		if e.IsNull() {
			return fmt.Errorf("the value of %q is null", k)
		}
		s, err := stringOf(e)
		if err != nil {
			return fmt.Errorf("for %q: %w", k, err)
		}
		out[k] = s
	}
	*t.target = out
	return nil
}

// booleanValue is true or false.
type booleanValue struct{ target *bool }

func boolean(target *bool) value { return booleanValue{target} }

func (b booleanValue) String() string { return strconv.FormatBool(*b.target) }

func (booleanValue) expected() string { return "true or false" }

func (b booleanValue) set(v cty.Value, _ string) error {
	truth, err := convert.Convert(v, cty.Bool)
	if err != nil || truth.IsNull() {
		return fmt.Errorf("expected true or false, got %s", describe(v))
	}
	*b.target = truth.True()
	return nil
}

// optionalBooleanValue is true or false, or nothing.
type optionalBooleanValue struct{ target **bool }

func optionalBoolean(target **bool) value { return optionalBooleanValue{target} }

func (o optionalBooleanValue) String() string {
	if *o.target == nil {
		return "null"
	}
	return strconv.FormatBool(**o.target)
}

func (optionalBooleanValue) expected() string { return "true or false" }

func (o optionalBooleanValue) set(v cty.Value, dir string) error {
	var b bool
	if err := boolean(&b).set(v, dir); err != nil {
		return err
	}
	*o.target = &b
	return nil
}

// countValue is a whole number of at least min.
type countValue struct {
	target *int
	min    int
}

func count(target *int, least int) value { return countValue{target, least} }

func (c countValue) String() string { return strconv.Itoa(*c.target) }

// maxCount bounds counts: far above anything useful, and safe as an int on
// every platform.
const maxCount = 1 << 20

func (c countValue) expected() string {
	return fmt.Sprintf("a whole number from %d to %d", c.min, maxCount)
}

func (c countValue) set(v cty.Value, _ string) error {
	f, err := numberOf(v)
	if err != nil {
		return fmt.Errorf("expected a whole number, got %s", describe(v))
	}
	if f != float64(int(f)) || f < float64(c.min) || f > maxCount {
		return fmt.Errorf("expected a whole number from %d to %d, got %s", c.min, maxCount, describe(v))
	}
	*c.target = int(f)
	return nil
}

// fractionValue is a number above 0 and at most 1.
type fractionValue struct{ target *float64 }

func fraction(target *float64) value { return fractionValue{target} }

func (f fractionValue) String() string { return strconv.FormatFloat(*f.target, 'f', -1, 64) }

func (fractionValue) expected() string { return "a number above 0 and at most 1" }

func (f fractionValue) set(v cty.Value, _ string) error {
	n, err := numberOf(v)
	if err != nil || n <= 0 || n > 1 {
		return fmt.Errorf("expected a number above 0 and at most 1 (0.9 is 90%%), got %s", describe(v))
	}
	*f.target = n
	return nil
}

func numberOf(v cty.Value) (float64, error) {
	n, err := convert.Convert(v, cty.Number)
	if err != nil {
		return 0, err
	}
	if n.IsNull() {
		return 0, errors.New("null")
	}
	f, _ := n.AsBigFloat().Float64()
	return f, nil
}

// sizeValue is a number of bytes.
type sizeValue struct {
	target *int64
	min    int64
}

func size(target *int64, least int64) value { return sizeValue{target, least} }

func (s sizeValue) String() string { return strconv.Quote(FormatSize(*s.target)) }

func (s sizeValue) expected() string {
	return fmt.Sprintf("a size such as \"10GiB\", of at least %s", FormatSize(s.min))
}

func (s sizeValue) set(v cty.Value, _ string) error {
	n, err := sizeOf(v)
	if err == nil && n < s.min {
		err = fmt.Errorf("expected at least %s, got %s", FormatSize(s.min), FormatSize(n))
	}
	if err == nil {
		*s.target = n
	}
	return err
}

// positive is the least duration of options that cannot be zero.
const positive = time.Nanosecond

// durationValue is a time span of at least min.
type durationValue struct {
	target *time.Duration
	min    time.Duration
}

func duration(target *time.Duration, least time.Duration) value { return durationValue{target, least} }

func (d durationValue) String() string { return strconv.Quote(FormatDuration(*d.target)) }

func (d durationValue) expected() string {
	return fmt.Sprintf("a duration such as \"1m30s\", of at least %s", FormatDuration(d.min))
}

func (d durationValue) set(v cty.Value, _ string) error {
	n, err := durationOf(v)
	switch {
	case err != nil:
		return err
	case n <= 0 && d.min == positive:
		return errors.New("expected a duration above zero, got zero")
	case n < d.min:
		return fmt.Errorf("expected at least %q, got %q", FormatDuration(d.min), FormatDuration(n))
	}
	*d.target = n
	return nil
}

// timestampValue is a moment.
type timestampValue struct{ target *time.Time }

func timestamp(target *time.Time) value { return timestampValue{target} }

func (t timestampValue) String() string { return strconv.Quote(t.target.Format(time.RFC3339)) }

func (timestampValue) expected() string { return `a time such as "2027-01-31T08:00:00Z"` }

func (t timestampValue) set(v cty.Value, _ string) error {
	s, err := stringOf(v)
	if err != nil {
		return err
	}
	moment, err := time.Parse(time.RFC3339, s)
	if err != nil || moment.IsZero() {
		return fmt.Errorf(`%q is not a time; write date, time and zone, such as "2027-01-31T08:00:00Z" or "2027-01-31T08:00:00+01:00"`, s)
	}
	*t.target = moment
	return nil
}

// crontabValue is the five fields of a line of a crontab.
type crontabValue struct{ target *schedule.Timetable }

func crontab(target *schedule.Timetable) value { return crontabValue{target} }

func (c crontabValue) String() string {
	if *c.target == nil {
		return `""`
	}
	return strconv.Quote((*c.target).String())
}

func (crontabValue) expected() string { return "the five fields of a line of a crontab" }

func (c crontabValue) set(v cty.Value, _ string) error {
	s, err := stringOf(v)
	if err != nil {
		return err
	}
	when, err := schedule.Cron(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*c.target = when
	return nil
}

// modeValue is the permissions of a file in octal digits.
type modeValue struct{ target *os.FileMode }

func mode(target *os.FileMode) value { return modeValue{target} }

func (m modeValue) String() string { return fmt.Sprintf("%q", fmt.Sprintf("%04o", *m.target)) }

func (modeValue) expected() string { return `permissions as octal digits, such as "0660"` }

func (m modeValue) set(v cty.Value, _ string) error {
	s, err := stringOf(v)
	if err != nil {
		return fmt.Errorf(`expected permissions as octal digits in double quotes, such as "0660", got %s`, describe(v))
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf(`expected permissions as octal digits, such as "0660", got %q`, s)
	}
	*m.target = os.FileMode(n)
	return nil
}

// describe names a value in a message: texts and numbers as they are, the
// rest by type.
func describe(v cty.Value) string {
	switch {
	case v.IsNull():
		return "null"
	case v.Type() == cty.String:
		return strconv.Quote(v.AsString())
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('g', 10)
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True())
	default:
		return "a " + v.Type().FriendlyName()
	}
}
