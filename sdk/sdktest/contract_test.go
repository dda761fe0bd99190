package sdktest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// commentsOf returns the comments of a file of package sdk, each on one line, by
// the name of what they are about. "func F" is a function.
func commentsOf(t *testing.T, name string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../"+name, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	note := func(name string, doc *ast.CommentGroup) {
		comments[name] += strings.Join(strings.Fields(doc.Text()), " ")
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			note("func "+n.Name.Name, n.Doc)
			return false
		case *ast.GenDecl:
			switch spec := n.Specs[0].(type) {
			case *ast.TypeSpec:
				note(spec.Name.Name, n.Doc)
			case *ast.ValueSpec:
				note("group "+spec.Names[0].Name, n.Doc)
			}
		case *ast.ValueSpec:
			note(n.Names[0].Name, n.Doc)
		case *ast.Field:
			if len(n.Names) == 1 {
				note(n.Names[0].Name, n.Doc)
			}
		}
		return true
	})
	return comments
}

// names runs the suites and returns the names of their cases.
func names() []string {
	var list []string
	r := &sdktest.Report{Only: func(name string) bool { list = append(list, name); return false }}
	sdktest.Driver(r, func(*sdktest.Report) sdktest.Subject { return sdktest.Subject{} })
	sdktest.Durable(r, func(*sdktest.Report) func() sdktest.Subject { return nil })
	sdktest.Manifest(r, sdk.Manifest{})
	sdktest.Scorer(r, func(*sdktest.Report) sdk.Scorer { return nil })
	sdktest.Stateful(r, func(*sdktest.Report) sdk.Stateful { return nil })
	return list
}

// TestSentences: each case holds plugins to a sentence that package sdk has,
// and each sentence of the contract of drivers has a case.
func TestSentences(t *testing.T) {
	driver := commentsOf(t, "driver.go")
	var whole string
	for _, file := range []string{"driver.go", "plugin.go", "policy.go"} {
		whole += strings.Join(slices.Collect(maps.Values(commentsOf(t, file))), " ") + " "
	}
	var held []string
	for _, name := range names() {
		sentence := sdktest.Sentence(name)
		if sentence == "" || !strings.Contains(whole, sentence) {
			t.Errorf("%s: the contract has no sentence %q", name, sentence)
		}
		held = append(held, sentence)
	}
	if len(held) < 70 {
		t.Errorf("%d cases", len(held))
	}
	all := strings.Join(held, "\n")
	for _, of := range []string{"Driver", "List", "Apply", "OpPut", "OpDelete", "OpTouch"} {
		for sentence := range strings.SplitSeq(driver[of], ". ") {
			if !strings.Contains(all, strings.TrimSuffix(sentence, ".")) && !slices.ContainsFunc(background, func(start string) bool { return strings.HasPrefix(sentence, start) }) {
				t.Errorf("no case holds drivers to the sentence %q of %s", sentence, of)
			}
		}
	}
}

// background are the beginnings of sentences that ask nothing of a driver.
var background = []string{
	"Driver keeps records",
	"The files are the truth",
	"A driver that keeps its records with the files", // a permission
}
