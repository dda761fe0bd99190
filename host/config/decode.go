package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/zclconf/go-cty/cty"
)

// decoder collects problems while it fills variables.
type decoder struct {
	files    map[string]*hcl.File
	dirs     map[string]string // absolute directory of each file
	diags    hcl.Diagnostics   // errors
	warnings hcl.Diagnostics

	evaluation *evaluation                 // of all options
	contexts   map[string]*hcl.EvalContext // by directory
	seen       map[string]hcl.Range        // blocks at the top, by type and name
	claims     map[string]hcl.Range        // addresses and sockets
	prefixes   []claimedPrefix
	strangers  bool                 // there are unknown names at the top
	origins    map[string]positions // by name
	listeners  map[string]positions // by name
	configs    []*PluginConfig      // driver and policy blocks
	refs       []pendingReference
	wanted     []wantedImages

	nodeAt  positions // the node block
	cacheAt positions // the cache block
	peersAt hcl.Range // the block of the type OriginPeer
}

func newDecoder() *decoder {
	return &decoder{
		dirs:       map[string]string{},
		contexts:   map[string]*hcl.EvalContext{},
		evaluation: &evaluation{},
		seen:       map[string]hcl.Range{},
		claims:     map[string]hcl.Range{},
		origins:    map[string]positions{},
		listeners:  map[string]positions{},
	}
}

// claimedPrefix is a path that an origin answers.
type claimedPrefix struct {
	prefix string
	at     positions
}

// wantedImages are images that an option lists.
type wantedImages struct {
	ids []string
	at  positions
}

// reference is the option driver or policy of a cache: driver.NAME. It is
// resolved when all blocks are known.
type reference struct{ target *PluginConfig }

func (r reference) String() string { return string(r.target.Kind) + "." + r.target.Plugin }

func (r reference) expected() string { return "a reference" }

// set is not called: a reference is read from the expression, as it has no
// value.
func (r reference) set(cty.Value, string) error { return errors.New("expected a reference") }

// references is the option shadow of a cache: [policy.NAME, ...]. Each is
// resolved like a single reference.
type references struct {
	kind   sdk.Kind
	target *[]PluginConfig
}

func (r references) String() string { return "[]" }

func (r references) expected() string { return "references" }

// set is not called: references are read from the expression too.
func (r references) set(cty.Value, string) error { return errors.New("expected references") }

type pendingReference struct {
	reference
	name string
	at   hcl.Range
}

// positions says where the options of a decoded block stand. Those of a
// nested block are called "block.option".
type positions struct {
	header hcl.Range
	args   map[string]hcl.Range
	hidden map[string]string // expressions of options whose values may be secret
}

// of returns the position of the option's value, or else of the block's header.
func (p positions) of(arg string) hcl.Range {
	if at, ok := p.args[arg]; ok {
		return at
	}
	return p.header
}

// errorAt notes a problem. The zero range stands for the whole configuration.
func (d *decoder) errorAt(at hcl.Range, summary, detail string, args ...any) {
	d.diags = append(d.diags, diagnostic(hcl.DiagError, at, summary, fmt.Sprintf(detail, args...)))
}

// warnAt notes what is allowed but probably not meant.
func (d *decoder) warnAt(at hcl.Range, summary, detail string, args ...any) {
	d.warnings = append(d.warnings, diagnostic(hcl.DiagWarning, at, summary, fmt.Sprintf(detail, args...)))
}

func diagnostic(severity hcl.DiagnosticSeverity, at hcl.Range, summary, detail string) *hcl.Diagnostic {
	diag := &hcl.Diagnostic{Severity: severity, Summary: summary, Detail: detail}
	if at != (hcl.Range{}) {
		diag.Subject = &at
	}
	return diag
}

// decode fills the variables that want is bound to from b. header is where
// problems without a place of their own are reported.
func (d *decoder) decode(b hcl.Body, header hcl.Range, want body) positions {
	content := d.content(b, want)
	at := positions{header: header, args: map[string]hcl.Range{}, hidden: map[string]string{}}
	for _, a := range want.args {
		attr, ok := content.Attributes[a.name]
		if ok {
			var secret bool
			if ok, secret = d.decodeArg(a, attr); ok {
				at.args[a.name] = attr.Expr.Range()
			}
			if secret {
				at.hidden[a.name] = d.sourceOf(attr.Expr.Range())
			}
		}
		if !ok && a.required {
			d.errorAt(header, "Missing option", "The option %q is required here.", a.name)
		}
	}
	for _, nested := range want.blocks {
		d.decodeNested(nested, content.Blocks.OfType(nested.name), at)
	}
	return at
}

// decodeArg reports whether the option is set, rightly or wrongly, and whether
// its value may be secret.
func (d *decoder) decodeArg(a arg, attr *hcl.Attribute) (set, secret bool) {
	switch r := a.into.(type) {
	case reference:
		d.refer(r, a.name, attr.Expr)
		return true, false
	case references:
		d.referAll(r, a.name, attr.Expr)
		return true, false
	}
	dir := d.dirs[attr.Range.Filename]
	d.evaluation.secrets = nil
	v, diags := attr.Expr.Value(d.context(dir))
	secret = d.evaluation.secret()
	if diags.HasErrors() {
		if secret {
			diags = withoutValues(diags)
		}
		d.diags = append(d.diags, diags...)
		return true, secret
	}
	if v.IsNull() || !v.IsWhollyKnown() {
		return false, secret
	}
	if err := a.into.set(v, dir); err != nil {
		if secret {
			err = hiddenValue(d.sourceOf(attr.Expr.Range()), a.into)
		}
		d.errorAt(attr.Expr.Range(), "Bad value of "+a.name, "%s", sentence(err))
	}
	return true, secret
}

func (d *decoder) decodeNested(want block, found hcl.Blocks, at positions) {
	for i, b := range found {
		switch {
		case i > 0:
			d.errorAt(b.DefRange, "Duplicate block", "A block %q stands here already at %s.", want.name, where(found[0].DefRange))
		case want.raw != nil:
			*want.raw = b
		default:
			inner := d.decode(b.Body, b.DefRange, want.body)
			for name, rng := range inner.args {
				at.args[want.name+"."+name] = rng
			}
			for name, source := range inner.hidden {
				at.hidden[want.name+"."+name] = source
			}
		}
	}
}

// content reads a body and improves what HCL says about unknown names.
func (d *decoder) content(b hcl.Body, want body) *hcl.BodyContent {
	schema, known := want.schema()
	content, diags := b.Content(schema)
	d.diags = append(d.diags, d.improve(diags, known)...)
	return content
}

// improve adds a suggestion to problems with a name where HCL gives none.
func (d *decoder) improve(diags hcl.Diagnostics, known []string) hcl.Diagnostics {
	for i, diag := range diags {
		if i >= maxShownProblems {
			break // the rest is not shown
		}
		if diag.Subject == nil || strings.Contains(diag.Detail, "Did you mean") {
			continue
		}
		file := d.files[diag.Subject.Filename]
		if file == nil || !diag.Subject.CanSliceBytes(file.Bytes) {
			continue
		}
		name := strings.Trim(string(diag.Subject.SliceBytes(file.Bytes)), `"`)
		if !sdk.ValidName(strings.ToLower(name)) {
			continue
		}
		hint := didYouMean(name, known)
		if hint == "" {
			hint = belongsTo(name)
		}
		diag.Detail += hint
	}
	return diags
}

// refer notes a reference for later.
func (d *decoder) refer(r reference, option string, expr hcl.Expression) {
	kind := string(r.target.Kind)
	at := expr.Range()
	traversal, diags := hcl.AbsTraversalForExpr(expr)
	if !diags.HasErrors() && len(traversal) == 2 && traversal.RootName() == kind {
		if step, ok := traversal[1].(hcl.TraverseAttr); ok {
			d.refs = append(d.refs, pendingReference{r, step.Name, at})
			return
		}
	}
	d.errorAt(at, "Bad value of "+option,
		"Expected a reference without quotes: %s = %s.NAME, where NAME is the second label of a block %s \"PLUGIN\" \"NAME\".", kind, kind, kind)
}

// referAll notes a list of references.
func (d *decoder) referAll(r references, option string, expr hcl.Expression) {
	list, diags := hcl.ExprList(expr)
	if diags.HasErrors() {
		d.errorAt(expr.Range(), "Bad value of "+option, "Expected a list such as [%s.a, %s.b].", r.kind, r.kind)
		return
	}
	*r.target = make([]PluginConfig, len(list))
	for i, e := range list {
		target := &(*r.target)[i]
		target.Kind = r.kind
		d.refer(reference{target}, option, e)
	}
}

func (d *decoder) context(dir string) *hcl.EvalContext {
	if d.contexts[dir] == nil {
		d.contexts[dir] = evalContext(dir, d.evaluation)
	}
	return d.contexts[dir]
}

// where writes a position as people and editors read it.
func where(at hcl.Range) string {
	return fmt.Sprintf("%s:%d,%d", at.Filename, at.Start.Line, at.Start.Column)
}

// sentence makes a sentence of an error.
func sentence(err error) string {
	s := err.Error()
	first, n := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(first)) + s[n:]
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}
