package config

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// repeat fills a quarter of the largest file that is read: enough for what grows
// with the square to show, and quick under the race detector.
func repeat(s string) string { return strings.Repeat(s, maxFileSize/4/len(s)) }

// bombs are files that want to take all of the stack, the memory or the time.
var bombs = map[string]struct {
	name string // test.hcl unless set
	text string
	want string // in what is said
}{
	"square brackets":         {text: "a = " + strings.Repeat("[", 200_000), want: "test.hcl:1,104: error: Nested too deeply"},
	"round brackets":          {text: "a = " + repeat("("), want: "Nested too deeply"},
	"braces":                  {text: "a = " + repeat("{a="), want: "Nested too deeply"},
	"blocks":                  {text: repeat("a {\n"), want: "test.hcl:100,3: error: Nested too deeply"},
	"templates":               {text: "a = " + repeat(`"${`), want: "Nested too deeply"},
	"heredocs":                {text: "a = " + repeat("<<E\n${"), want: "Nested too deeply"},
	"closed brackets":         {text: "a = " + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000), want: "Nested too deeply"},
	"brackets in a comment":   {text: "# " + repeat("["), want: "No listener"},
	"brackets in a text":      {text: `plugin_dir = "` + repeat("[") + `"`, want: "No listener"},
	"not":                     {text: "a = " + repeat("!") + "true", want: "test.hcl:1,10003: error: Expression too long"},
	"minus":                   {text: "a = " + repeat("-") + "1", want: "Expression too long"},
	"sums":                    {text: "a = 1" + repeat("+1"), want: "Expression too long"},
	"sums over lines":         {text: "a = (1" + repeat("\n+1") + ")", want: "Expression too long"},
	"conditions":              {text: "a = " + repeat("true?1:") + "1", want: "Expression too long"},
	"indexes":                 {text: "a = b" + repeat("[0]"), want: "Expression too long"},
	"indexes that are asked":  {text: "a = b" + repeat("[b]"), want: "Expression too long"},
	"splats":                  {text: "a = b" + repeat("[*]"), want: "Expression too long"},
	"steps":                   {text: "a = b" + repeat(".b"), want: "Expression too long"},
	"directives":              {text: `a = "` + repeat(`%{if true}`), want: "Expression too long"},
	"labels":                  {text: "a " + repeat(`"b" `) + "{\n}", want: "Expression too long"},
	"not in brackets":         {text: "a = " + strings.Repeat(strings.Repeat("!", 9_000)+"(", 90), want: "Expression too long"},
	"brackets of JSON":        {name: "test.hcl.json", text: repeat("["), want: "test.hcl.json:1,101: error: Nested too deeply"},
	"braces of JSON":          {name: "test.hcl.json", text: repeat("{\"a\":\n"), want: "Nested too deeply"},
	"templates in JSON":       {name: "test.hcl.json", text: `{"plugin_dir":"` + repeat(`${[`) + `"}`, want: "Nested too deeply"},
	"escaped templates":       {name: "test.hcl.json", text: `{"plugin_dir":"` + repeat(`\u0024{[`) + `"}`, want: "Nested too deeply"},
	"not in JSON":             {name: "test.hcl.json", text: `{"plugin_dir":"${` + repeat("!") + `true}"}`, want: "Expression too long"},
	"loop in JSON":            {name: "test.hcl.json", text: `{"plugin_dir":"${[for a in [1]: a]}"}`, want: "Loop in JSON"},
	"directive in JSON":       {name: "test.hcl.json", text: `{"plugin_dir":"%{for a in [1]}x%{endfor}"}`, want: "Loop in JSON"},
	"splat in JSON":           {name: "test.hcl.json", text: `{"plugin_dir":"${[1][*]}"}`, want: "Loop in JSON"},
	"brackets in JSON texts":  {name: "test.hcl.json", text: `{"plugin_dir":"` + repeat("[") + `"}`, want: "No listener"},
	"nested loops":            {text: "plugin_lock = " + loops(6, 40), want: "Evaluation takes too long"},
	"nested loops of objects": {text: "plugin_lock = " + objects(6, 40), want: "Evaluation takes too long"},
	"loops in a template":     {text: `plugin_lock = "` + strings.Repeat(`%{for i in [1,2,3,4,5,6,7,8,9,10]}`, 9) + "x" + strings.Repeat("%{endfor}", 9) + `"`, want: "Evaluation takes too long"},
	"loop over much":          {text: "plugin_lock = [for i in [" + strings.Repeat("1,", 200_000) + "] : [" + strings.Repeat("1,", 200_000) + "]]", want: "Evaluation takes too long"},
	"conditions of a loop":    {text: "plugin_lock = [for i in [" + strings.Repeat("1,", 2_000) + "] : i if " + loops(4, 40) + " == 1]", want: "Evaluation takes too long"},
	"nested splats":           {text: "plugin_lock = " + splats(8, 30), want: "Evaluation takes too long"},
	"doubled texts":           {text: "plugin_lock = " + doubled(`"${i}${i}"`), want: "Evaluation takes too long"},
	"doubled lists":           {text: "plugin_lock = " + doubled("[i, i]"), want: "Evaluation takes too long"},
	"long texts in templates": {text: `plugin_lock = "` + strings.Repeat(`${file("long")}`, 2000) + `"`, want: "test.hcl:1,"},
	"long texts of a loop":    {text: `plugin_lock = [for i in [file("long")] : "` + strings.Repeat(`${i}`, 2000) + `"]`, want: "Evaluation takes too long"},
	"long texts in JSON":      {name: "test.hcl.json", text: `{"plugin_lock":"` + strings.Repeat(`${file(\"long\")}`, 2000) + `"}`, want: "all values together"},
	"large number":            {text: `plugin_lock = "${1e999999999}"`, want: "test.hcl:1,18: error: Number too long"},
	"small number":            {text: `plugin_lock = "${1e-999999999}"`, want: "Number too long"},
	"long number":             {text: `plugin_lock = ` + repeat("1"), want: "Number too long"},
	"large number in JSON":    {name: "test.hcl.json", text: `{"cache": {"default": {"dir": "/c", "max_size": 1e999999999}}}`, want: "Bad value of max_size"},
	"large number in a text":  {name: "test.hcl.json", text: `{"plugin_lock": "${1e999999999}"}`, want: "Number too long"},
	"unknown options":         {text: numbered("option", " = 1\n"), want: "Unsupported argument"},
	"unknown blocks":          {text: numbered("block", " {\n}\n"), want: "Unsupported block type"},
	"the same option":         {text: repeat("a = 1\n"), want: "Attribute redefined"},
	"the same block":          {text: repeat("log {\n}\n"), want: "Duplicate block"},
	"origins":                 {text: origins(), want: "Origins with the same paths"},
	"closing brackets":        {text: repeat("}\n"), want: "error"},
	"quotes":                  {text: repeat("\"\n"), want: "error"},
	"no text":                 {text: repeat("\x00"), want: "error"},
	"no UTF-8":                {text: repeat("\xff\n"), want: "error"},
	"unknown functions":       {text: "plugin_lock = [" + repeat("f(),") + "]", want: "Call to unknown function"},
	"listed":                  {text: "pin \"a\" {\n images = [" + numbered(`"a`, `",`) + "]\n}", want: "Expected at most 10000 elements"},
}

// TestBombs loads each of them, within some memory. What is wrong is said by line
// and column, in a text that people can read.
func TestBombs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "long"), []byte(repeat("x")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			if bomb.name == "" {
				bomb.name = "test.hcl"
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := load([]source{{bomb.name, dir, []byte(bomb.text)}})
			if err == nil {
				t.Fatal("loaded")
			}
			words := err.Error()
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			t.Logf("%v, %d MiB allocated, %d bytes said: %.200s", took, (after.TotalAlloc-before.TotalAlloc)>>20, len(words), words)
			if !strings.Contains(words, bomb.want) {
				t.Errorf("said is not %q: %.300s", bomb.want, words)
			}
			if len(words) > 64<<10 {
				t.Errorf("%d bytes are said", len(words))
			}
			if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 4<<30 {
				t.Errorf("%d MiB were allocated", bytes>>20)
			}
		})
	}
}

// TestLargeFiles loads files that are too large, alone and together, and reads one.
func TestLargeFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#"+strings.Repeat("x", size-2)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	large := write("large.txt", maxFileSize+2)
	if _, err := Load([]string{large}); err == nil || !strings.Contains(err.Error(), "large.txt is larger than 1 MiB") {
		t.Errorf("a large file: %v", err)
	}
	if words := strings.Join(saidOf(dir, "plugin_dir = file(\"large.txt\")"), ""); !strings.Contains(words, "large.txt is larger than 1 MiB") {
		t.Errorf("a large file by file(): %s", words)
	}
	var many []string
	for range maxSources/maxFileSize + 1 {
		many = append(many, write(fmt.Sprintf("%d.hcl", len(many)), maxFileSize))
	}
	if _, err := Load(many[1:]); err == nil || strings.Contains(err.Error(), "together") {
		t.Errorf("8 MiB: %v", err)
	}
	if _, err := Load(many); err == nil || !strings.Contains(err.Error(), "8.hcl have more than 8MiB together") {
		t.Errorf("9 MiB: %v", err)
	}
}

// loops is a number of loops within each other, each over some elements.
func loops(depth, elements int) string {
	list := "[" + strings.Repeat("1,", elements) + "]"
	return strings.Repeat("[for i in "+list+" : ", depth) + "1" + strings.Repeat("]", depth)
}

// objects is loops that make objects.
func objects(depth, elements int) string {
	list := "[" + strings.Repeat("1,", elements) + "]"
	return strings.Repeat(`{for i, x in `+list+` : "${i}" => `, depth) + "1" + strings.Repeat("}", depth)
}

// splats asks for an element by an expression that has a splat itself.
func splats(depth, elements int) string {
	list := "[" + strings.Repeat("[0],", elements) + "]"
	if depth == 0 {
		return "0"
	}
	return "(" + list + "[*][" + splats(depth-1, elements) + "])[0]"
}

// doubled doubles what a loop goes over, as often as brackets may be nested.
func doubled(body string) string {
	text := `["x"]`
	for range maxNesting - 5 {
		text = "[for i in " + text + " : " + body + "]"
	}
	return text
}

func numbered(head, tail string) string {
	var b strings.Builder
	for n := 0; b.Len() < maxFileSize/4; n++ {
		b.WriteString(head)
		b.WriteString(strings.Repeat("x", n%7))
		b.WriteString(string(rune('a' + n%26)))
		b.WriteString(string(rune('a' + n/26%26)))
		b.WriteString(string(rune('a' + n/676%26)))
		b.WriteString(tail)
	}
	return b.String()
}

func origins() string { return numbered("origin \"directory\" \"", "\" {\n path = \"/a\"\n}\n") }
