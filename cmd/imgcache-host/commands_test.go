package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands returns each command that does something by its words, without the
// name of the program.
func commands(cmd *cobra.Command) map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	for _, sub := range cmd.Commands() {
		if sub.Hidden {
			continue
		}
		maps.Copy(all, commands(sub))
		if groups := sub.HasSubCommands() && sub.Use == sub.Name(); !groups {
			_, words, _ := strings.Cut(sub.CommandPath(), " ")
			all[words] = sub
		}
	}
	return all
}

// operating returns the document for operators.
func operating(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var span = regexp.MustCompile("`([^`]+)`")

// listed returns the commands that stand behind some words of the document, up
// to the end of the sentence.
func listed(t *testing.T, text, behind string) (list []string) {
	t.Helper()
	_, rest, ok := strings.Cut(text, behind)
	sentence, _, ends := strings.Cut(rest, "`.")
	if !ok || !ends {
		t.Fatalf("operating.md has no list of commands behind %q", behind)
	}
	for _, m := range span.FindAllStringSubmatch(sentence+"`", -1) {
		list = append(list, m[1])
	}
	return slices.Sorted(slices.Values(list))
}

// TestCommandsAreDocumented compares the commands with the table in
// operating.md: each has a line, no line has another one, or a flag that its
// command does not know.
func TestCommandsAreDocumented(t *testing.T) {
	_, table, ok := strings.Cut(operating(t), "| command | what it does |\n|---|---|\n")
	if !ok {
		t.Fatal("operating.md has no table of commands")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	all := commands((&app{}).root())
	flag := regexp.MustCompile(`--([a-z-]+)`)
	argument := regexp.MustCompile(` (\[?--|\[?[A-Z]).*`)
	documented := map[string]bool{}
	for line := range strings.Lines(table) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		for _, m := range span.FindAllStringSubmatch(cell, -1) {
			words := argument.ReplaceAllString(m[1], "")
			cmd := all[words]
			if cmd == nil {
				t.Errorf("operating.md has the command %q, which there is not", m[1])
				continue
			}
			documented[words] = true
			for _, f := range flag.FindAllStringSubmatch(m[1], -1) {
				if cmd.Flag(f[1]) == nil {
					t.Errorf("operating.md gives %s the flag %s, which it does not have", words, f[0])
				}
			}
		}
	}
	for words := range all {
		if !documented[words] {
			t.Errorf("the table in operating.md lacks %q", words)
		}
	}
}

// arguments returns what a command is called with at least.
func arguments(cmd *cobra.Command) []string {
	optional := regexp.MustCompile(`\[[^]]*\]`)
	value := regexp.MustCompile(`^[A-Z]`)
	var args []string
	for _, word := range strings.Fields(optional.ReplaceAllString(cmd.Use, ""))[1:] {
		switch {
		case strings.HasPrefix(word, "DRIVER"):
			args = append(args, "glance-xattr")
		case value.MatchString(word):
			args = append(args, "x")
		case strings.HasPrefix(word, "--"):
			args = append(args, word)
		}
	}
	return args
}

// away is a place where no service runs.
type away struct {
	t      *testing.T
	dir    string
	config string // names a cache directory that is not there
	absent string // that directory
}

func goAway(t *testing.T) away {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	w := away{t: t, dir: dir, config: filepath.Join(dir, "config.hcl"), absent: filepath.Join(dir, "absent")}
	writeFile(t, w.config, fmt.Sprintf("node {\n  data_dir = %q\n  run_dir = %[1]q\n}\n", dir)+
		"listener \"tcp\" \"public\" {\n  address = \"127.0.0.1:0\"\n}\n"+directoryOrigin(dir)+
		fmt.Sprintf("cache \"default\" {\n  dir = %q\n  max_size = \"1GiB\"\n}\n", w.absent))
	return w
}

func (w away) run(args ...string) (code int, complaint string) {
	var out, errs strings.Builder
	a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs}
	return a.run(w.t.Context(), append(args, "--yes")), errs.String()
}

// needsService reports whether a command misses the service at a socket.
func (w away) needsService(line []string) bool {
	code, _ := w.run(append(line, "--socket", filepath.Join(w.dir, "none.sock"), "--config", w.config+" is not there")...)
	return code == exitUnreachable
}

// worksOnDirectory reports whether a command that misses the service looks for
// the cache directory instead.
func (w away) worksOnDirectory(line []string) bool {
	code, complaint := w.run(append(line, "--config", w.config)...)
	if code != exitUnreachable {
		w.t.Errorf("%v: exit code %d, %s", line, code, complaint)
	}
	return strings.Contains(complaint, w.absent)
}

// TestCommandsWithoutService calls each command where no service runs, and
// compares what it misses with what operating.md says.
func TestCommandsWithoutService(t *testing.T) {
	text, w := operating(t), goAway(t)
	var free, helpless []string
	for words, cmd := range commands((&app{}).root()) {
		line := slices.Concat(strings.Fields(words), arguments(cmd))
		if !w.needsService(slices.Clone(line)) {
			free = append(free, words)
		} else if !w.worksOnDirectory(line) {
			helpless = append(helpless, words)
		}
	}
	slices.Sort(free)
	slices.Sort(helpless)
	if want := listed(t, text, "These need no\nservice: "); !slices.Equal(free, want) {
		t.Errorf("these need no service: %q; operating.md says %q", free, want)
	}
	if want := listed(t, text, "These cannot: "); !slices.Equal(helpless, want) {
		t.Errorf("these cannot work on the directory: %q; operating.md says %q", helpless, want)
	}
}
