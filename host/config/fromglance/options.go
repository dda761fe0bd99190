package fromglance

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// defaultSection holds the options that belong to no other.
const defaultSection = "DEFAULT"

// last returns the assignment that counts, and whether there is one.
func (s settings) last(section, option string) (setting, bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i].section == section && s[i].option == option {
			return s[i], true
		}
	}
	return setting{}, false
}

// get returns the value of an option with the references in it resolved. An
// option that is not set has the value otherwise and no position in a file.
func (s settings) get(section, option, otherwise string) (setting, error) {
	found, ok := s.last(section, option)
	if !ok {
		return setting{section: section, option: option, value: otherwise}, nil
	}
	return s.resolved(found)
}

// all returns every assignment to an option that may be given several times.
func (s settings) all(section, option string) ([]setting, error) {
	var list []setting
	for _, found := range s {
		if found.section != section || found.option != option {
			continue
		}
		found, err := s.resolved(found)
		if err != nil {
			return nil, err
		}
		list = append(list, found)
	}
	return list, nil
}

// isSet reports whether the setting stands in a file.
func (s setting) isSet() bool { return s.file != "" }

// name is the option as people write it.
func (s setting) name() string {
	if s.section == defaultSection {
		return s.option
	}
	return "[" + s.section + "] " + s.option
}

// number reads a value that is a whole number and not negative.
func (s setting) number() (int64, error) {
	n, err := strconv.ParseInt(strings.TrimFunc(s.value, isSpace), 10, 64)
	if err != nil || n < 0 {
		return 0, s.errorf("expected a whole number from 0 to 2^63-1")
	}
	return n, nil
}

// errorf is an error with the place and the option that it is about.
func (s setting) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", s.at(), s.name(), fmt.Errorf(format, args...))
}

// resolved replaces the references to other options. One to an option that no
// file sets is an error, though Glance might know its default.
func (s settings) resolved(found setting) (setting, error) {
	e := expander{settings: s}
	value := e.expand(found)
	if e.err == nil && len(e.unknown) > 0 {
		e.err = found.errorf("it refers to %s, which is not set; set it, or write $$ for a dollar sign", e.unknown[0])
	}
	found.value = value
	return found, e.err
}

// expander resolves the references in one value.
type expander struct {
	settings
	within  []setting // whose values are being expanded, the outermost first
	steps   int
	unknown []string // references to what is not set; they stay as they are
	err     error
}

// maxSteps bounds the references in one value, counting those in the values
// they refer to. A few lines that refer to each other twice make billions.
const maxSteps = 1000

// reference is a dollar sign with what follows it: $name, ${name}, or another
// dollar sign.
var reference = regexp.MustCompile(`\$(?:\$|([_A-Za-z][._A-Za-z0-9]*)|\{([_A-Za-z][._A-Za-z0-9]*)\})`)

// expand returns the value of a setting with its references resolved.
func (e *expander) expand(found setting) string {
	if e.steps++; e.steps > maxSteps || slices.Contains(e.within, found) {
		e.err = found.errorf("it refers to itself, or to too many others")
	}
	if e.err != nil {
		return ""
	}
	e.within = append(e.within, found)
	defer func() { e.within = e.within[:len(e.within)-1] }()
	text := strings.ReplaceAll(found.value, `\$`, "$$")
	return reference.ReplaceAllStringFunc(text, func(match string) string {
		if match == "$$" {
			return "$"
		}
		target, ok := e.target(found.section, strings.Trim(match, "${}"))
		if !ok {
			e.unknown = append(e.unknown, match)
			return match
		}
		return e.expand(target)
	})
}

// target finds the option that a reference in a section means.
func (s settings) target(section, name string) (setting, bool) {
	group, option := section, name
	if before, after, dotted := strings.Cut(name, "."); dotted {
		group, option = before, after
	}
	if found, ok := s.last(group, option); ok {
		return found, true
	}
	return s.last(defaultSection, name)
}
