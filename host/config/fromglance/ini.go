package fromglance

import (
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFileSize is far larger than a configuration file with all its comments.
const maxFileSize = 8 << 20

// setting is one assignment of a value to an option.
type setting struct {
	section, option string
	value           string // as it is written, with its lines joined by newlines
	file            string
	line            int // of the option's name
}

// at says where the assignment stands.
func (s setting) at() string { return fmt.Sprintf("%s:%d", s.file, s.line) }

// settings are the assignments in files, in their order.
type settings []setting

// readFiles reads files as oslo.config does, in their order.
func readFiles(files []string) (settings, error) {
	var all settings
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read options of Glance: %w", err)
		}
		found, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// parse reads one file. No error quotes a line of it, which may hold a
// password.
func parse(file, text string) (settings, error) {
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("%s is larger than 8 MiB, so it is hardly a configuration", file)
	}
	p := parser{file: file}
	for line := range strings.Lines(newlines.Replace(text)) {
		p.line++
		if err := p.take(strings.TrimRightFunc(line, isSpace)); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, p.line, err)
		}
	}
	return p.found, nil
}

// newlines turns all three kinds of line ending into one.
var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// parser goes through the lines of a file.
type parser struct {
	file    string
	line    int
	section string
	open    bool // the last setting may be continued
	found   settings
}

// take reads one line without the space at its end.
func (p *parser) take(line string) error {
	switch {
	case !utf8.ValidString(line):
		return fmt.Errorf("this is not UTF-8 text")
	case line == "":
		p.open = false
		return nil
	case line[0] == ' ' || line[0] == '\t':
		return p.continuation(line)
	}
	p.open = false
	switch line[0] {
	case '[':
		return p.header(line)
	case '#', ';':
		return nil
	default:
		return p.assignment(line)
	}
}

func (p *parser) continuation(line string) error {
	if !p.open {
		return fmt.Errorf("a line that begins with a space continues the value above it, and there is none; remove the space")
	}
	last := &p.found[len(p.found)-1]
	last.value += "\n" + strings.TrimLeftFunc(line, isSpace)
	return nil
}

func (p *parser) header(line string) error {
	switch {
	case !strings.HasSuffix(line, "]"):
		return fmt.Errorf("a section must end with ]")
	case len(line) <= 2:
		return fmt.Errorf("a section must have a name, such as [DEFAULT]")
	}
	p.section = groupName(line[1 : len(line)-1])
	return nil
}

func (p *parser) assignment(line string) error {
	i := strings.IndexAny(line, ":=")
	if i < 0 {
		return fmt.Errorf("there is no = or : in this line")
	}
	option := strings.TrimFunc(line[:i], isSpace)
	switch {
	case option == "":
		return fmt.Errorf("there is no name in front of the %c", line[i])
	case p.section == "":
		return fmt.Errorf("the option %s stands in no section; write [DEFAULT] above it", option)
	}
	p.found = append(p.found, setting{
		section: p.section, option: option, value: unquote(strings.TrimFunc(line[i+1:], isSpace)),
		file: p.file, line: p.line,
	})
	p.open = true
	return nil
}

// unquote removes the quotes around a value that begins and ends with the same.
func unquote(s string) string {
	if s == "" || s[0] != '"' && s[0] != '\'' || s[0] != s[len(s)-1] {
		return s
	}
	return s[1:max(1, len(s)-1)]
}

// groupName is the name of a section: its case does not matter, but for
// DEFAULT.
func groupName(section string) string {
	if section == defaultSection {
		return section
	}
	return strings.ToLower(section)
}

// isSpace tells what Python takes for space.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }
