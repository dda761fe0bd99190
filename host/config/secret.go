package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// What env() and file() read is often a password. An option made of it is
// hidden: diagnostics show its expression and never its value.

// maxShownExpression is how much of an expression a sentence shows. The line of
// the file is shown anyway.
const maxShownExpression = 60

// sourceOf returns the text of an expression, on one line.
func (d *decoder) sourceOf(at hcl.Range) string {
	file := d.files[at.Filename]
	if file == nil || !at.CanSliceBytes(file.Bytes) {
		return "this expression"
	}
	text := strings.Join(strings.Fields(string(at.SliceBytes(file.Bytes))), " ")
	if len(text) > maxShownExpression {
		return strings.ToValidUTF8(text[:maxShownExpression], "") + "..."
	}
	return text
}

// shown returns what a diagnostic says for the option's value, or a part of it:
// the value in quotes, or the expression if the value is hidden.
func (p positions) shown(arg, value string) string { return p.shownBare(arg, strconv.Quote(value)) }

// shownBare is shown without quotes.
func (p positions) shownBare(arg, value string) string {
	if source, hidden := p.hidden[arg]; hidden {
		return source
	}
	return value
}

// sentence makes a sentence of an error about options, which may have their
// values in it.
func (p positions) sentence(err error, args ...string) string {
	for _, arg := range args {
		if source, hidden := p.hidden[arg]; hidden {
			return fmt.Sprintf("The value of %s is wrong here; more is not said, as it may be secret.", source)
		}
	}
	return sentence(err)
}

// hiddenValue is the error that a hidden value is not what is expected.
func hiddenValue(source string, v value) error {
	return fmt.Errorf("expected %s. The value of %s is something else; it is not shown, as it may be secret", v.expected(), source)
}

// withoutValues takes from diagnostics of HCL what may show a value. What the
// functions of this package say shows none.
func withoutValues(diags hcl.Diagnostics) hcl.Diagnostics {
	for _, diag := range diags {
		extra, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](diag)
		if !ok || extra.FunctionCallError() == nil {
			diag.Detail = "More is not said, as it may show a value that env() or file() has read."
		}
	}
	return diags
}

// withoutSecrets takes from the words of a plugin the values that its options
// have from env() and file().
func (p PluginConfig) withoutSecrets(words string) string {
	if p.config == nil {
		return words
	}
	d := newDecoder()
	d.files, d.dirs = p.files, p.dirs
	attributes, _ := p.config.Body.JustAttributes()
	for _, a := range attributes {
		e := d.evaluation
		e.secrets = nil
		a.Expr.Value(d.context(d.dirs[a.Range.Filename]))
		for _, secret := range e.secrets {
			quoted := strconv.Quote(secret)
			for _, form := range []string{secret, quoted[1 : len(quoted)-1]} {
				if form != "" {
					words = strings.ReplaceAll(words, form, "("+d.sourceOf(a.Expr.Range())+")")
				}
			}
		}
	}
	return words
}
