package config

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// What people write stays far below these bounds; a file beyond them makes the
// parser of HCL, which calls itself for all that is nested, use up the stack or
// minutes of time. So they are checked before it runs.
const (
	maxSources  = 8 << 20 // bytes of all files together
	maxNesting  = 100     // brackets, blocks and templates within each other
	maxParts    = 10_000  // of one expression: words, numbers, signs
	maxNumber   = 100     // characters of a number
	maxExponent = 4       // characters behind the e of a number: it may become that many digits
)

// takes refuses a file that the parser cannot take, and reports whether it can.
func (d *decoder) takes(s source, isJSON bool) bool {
	var problem *hcl.Diagnostic
	if isJSON {
		problem = checkJSON(s)
	} else {
		tokens, _ := hclsyntax.LexConfig(s.text, s.name, hcl.InitialPos) // errors are the parser's to tell
		problem = checkTokens(tokens)
	}
	if problem != nil {
		d.diags = append(d.diags, problem)
	}
	return problem == nil
}

// checkTokens follows the brackets. The parser is at most as deep in itself as
// there are parts of unfinished expressions.
func checkTokens(tokens hclsyntax.Tokens) *hcl.Diagnostic {
	type level struct {
		opened hclsyntax.TokenType
		parts  int // since the last element of a list, option or block ended
	}
	levels, unfinished := []level{{}}, 0
	for _, t := range tokens {
		top := &levels[len(levels)-1]
		top.parts++
		unfinished++
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			levels = append(levels, level{opened: t.Type})
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			if len(levels) > 1 {
				unfinished -= top.parts
				levels = levels[:len(levels)-1]
			}
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
			// In round and square brackets an expression goes on.
			if bytes.HasSuffix(t.Bytes, []byte("\n")) && (top.opened == 0 || top.opened == hclsyntax.TokenOBrace) {
				unfinished -= top.parts
				top.parts = 0
			}
		case hclsyntax.TokenComma:
			unfinished -= top.parts
			top.parts = 0
		case hclsyntax.TokenNumberLit:
			if problem := checkNumber(t.Bytes, t.Range); problem != nil {
				return problem
			}
		}
		if len(levels) > maxNesting {
			return diagnostic(hcl.DiagError, t.Range, "Nested too deeply",
				fmt.Sprintf("Expected at most %d brackets, blocks and templates within each other, got more.", maxNesting))
		}
		if unfinished > maxParts {
			return diagnostic(hcl.DiagError, t.Range, "Expression too long",
				fmt.Sprintf("Expected at most %d words, numbers and signs in one expression, got more.", maxParts))
		}
	}
	return nil
}

// checkNumber refuses a number that makes a text of millions of digits.
func checkNumber(number []byte, at hcl.Range) *hcl.Diagnostic {
	exponent := len(number) - 1 - bytes.IndexAny(number, "eE")
	if len(number) <= maxNumber && (exponent == len(number) || exponent <= maxExponent) {
		return nil
	}
	return diagnostic(hcl.DiagError, at, "Number too long",
		fmt.Sprintf("Expected at most %d characters, and %d behind an e.", maxNumber, maxExponent))
}

// checkJSON follows the brackets of a JSON file, and looks into its strings, which
// are templates. It takes as strings what the parser of HCL does.
func checkJSON(s source) *hcl.Diagnostic {
	pos, depth := hcl.InitialPos, 0
	for text := s.text; len(text) > 0; {
		n := 1
		switch text[0] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			n = stringEnd(text)
			if problem := checkJSONString(text[:n], s.name, pos); problem != nil {
				return problem
			}
		}
		if depth > maxNesting {
			return diagnostic(hcl.DiagError, rangeAt(s.name, pos, 1), "Nested too deeply",
				fmt.Sprintf("Expected at most %d brackets within each other, got more.", maxNesting))
		}
		if pos.Column += n; text[0] == '\n' {
			pos.Line, pos.Column = pos.Line+1, 1
		}
		pos.Byte += n
		text = text[n:]
	}
	return nil
}

// stringEnd returns the length of the string at the start of a text.
func stringEnd(text []byte) int {
	escaped := false
	for i, b := range text[1:] {
		switch {
		case b < ' ':
			return i + 1
		case b == '"' && !escaped:
			return i + 2
		}
		escaped = b == '\\' && !escaped
	}
	return len(text)
}

// checkJSONString refuses a template that takes long. Programs write JSON, and
// they have loops of their own; those of a template in it cannot be metered.
func checkJSONString(quoted []byte, file string, pos hcl.Pos) *hcl.Diagnostic {
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return nil // the parser says so
	}
	inside := pos
	inside.Byte++
	inside.Column++
	tokens, _ := hclsyntax.LexTemplate([]byte(text), file, inside)
	for i, t := range tokens {
		loop := t.Type == hclsyntax.TokenIdent && string(t.Bytes) == "for"
		splat := t.Type == hclsyntax.TokenStar && i > 0 && (tokens[i-1].Type == hclsyntax.TokenDot || tokens[i-1].Type == hclsyntax.TokenOBrack)
		if loop || splat {
			return diagnostic(hcl.DiagError, rangeAt(file, pos, len(quoted)), "Loop in JSON",
				"A file *.hcl.json cannot have loops (for) and splats (*) in its texts. Write the values out, or write a file *.hcl.")
		}
	}
	if problem := checkTokens(tokens); problem != nil {
		at := rangeAt(file, pos, len(quoted)) // escapes are gone from the text, so places in it are not those in the file
		problem.Subject = &at
		return problem
	}
	return nil
}

// rangeAt is a range on one line.
func rangeAt(file string, pos hcl.Pos, length int) hcl.Range {
	end := pos
	end.Byte += length
	end.Column += length
	return hcl.Range{Filename: file, Start: pos, End: end}
}
