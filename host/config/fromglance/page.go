package fromglance

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// page is a file, or a block in it, that is being written.
type page struct {
	file *hclwrite.File // nil: a block
	body *hclwrite.Body
}

func newPage() *page {
	f := hclwrite.NewEmptyFile()
	return &page{f, f.Body()}
}

// bytes returns the file in HCL's own form.
func (p *page) bytes() []byte { return hclwrite.Format(p.file.Bytes()) }

// block adds a block at the end. At the top of the file an empty line precedes
// it.
func (p *page) block(kind string, labels ...string) *page {
	if p.file != nil {
		p.gap()
	}
	return &page{body: p.body.AppendNewBlock(kind, labels).Body()}
}

// set adds an option with a comment after it, if there is one.
func (p *page) set(name string, value hclwrite.Tokens, comment string) {
	tokens := hclwrite.Tokens{
		{Type: hclsyntax.TokenIdent, Bytes: []byte(name)},
		{Type: hclsyntax.TokenEqual, Bytes: []byte("=")},
	}
	tokens = append(tokens, value...)
	if comment == "" {
		tokens = append(tokens, newline)
	} else {
		tokens = append(tokens, remark(comment))
	}
	p.body.AppendUnstructuredTokens(tokens)
}

// remark adds a line that is a comment.
func (p *page) remark(format string, args ...any) {
	p.body.AppendUnstructuredTokens(hclwrite.Tokens{remark(fmt.Sprintf(format, args...))})
}

// gap adds an empty line.
func (p *page) gap() { p.body.AppendNewline() }

var newline = &hclwrite.Token{Type: hclsyntax.TokenNewline, Bytes: []byte("\n")}

// remark is a comment to the end of the line. Characters that cannot be
// printed, such as another newline, become question marks.
func remark(s string) *hclwrite.Token {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
	return &hclwrite.Token{Type: hclsyntax.TokenComment, Bytes: []byte("# " + s + "\n")}
}

func text(s string) hclwrite.Tokens { return hclwrite.TokensForValue(cty.StringVal(s)) }

func yes() hclwrite.Tokens { return hclwrite.TokensForValue(cty.True) }

// call is a function of one text.
func call(function, argument string) hclwrite.Tokens {
	return hclwrite.TokensForFunctionCall(function, text(argument))
}

// ref is a reference to a block.
func ref(kind, name string) hclwrite.Tokens {
	return hclwrite.TokensForTraversal(hcl.Traversal{hcl.TraverseRoot{Name: kind}, hcl.TraverseAttr{Name: name}})
}
