package config

import (
	"fmt"
	"reflect"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxEvaluation bounds what evaluating all options takes, in bytes: of the
// expressions that loops evaluate, and of the values that they and the functions
// make. A configuration that is meant needs some KiB; this takes about a second.
const maxEvaluation = 16 << 20

// evaluationStep is what one more evaluation of an expression, or one element of
// a value, takes beside its bytes.
const evaluationStep = 64

// evaluation is what evaluating the options of a configuration has taken.
type evaluation struct {
	spent   int
	secrets []string // what env() and file() have read since this was last nil
}

// spend counts, and reports whether the bound is kept.
func (e *evaluation) spend(bytes int) bool {
	e.spent += bytes
	return e.spent <= maxEvaluation
}

var errSpent = fmt.Errorf("all values together take more than %s", FormatSize(maxEvaluation))

// read notes a value that a function has read, which may be secret.
func (e *evaluation) read(text string) (cty.Value, error) {
	e.secrets = append(e.secrets, text)
	if !e.spend(evaluationStep + len(text)) {
		return cty.NilVal, errSpent
	}
	return cty.StringVal(text), nil
}

// secret reports whether anything has been read since e.secrets was last nil.
func (e *evaluation) secret() bool { return len(e.secrets) > 0 }

// weigh counts the bytes of a value, and stops when the bound is reached:
// a value may hold another many times without taking memory for it.
func (e *evaluation) weigh(v cty.Value) bool {
	switch {
	case !e.spend(evaluationStep):
		return false
	case v.IsNull() || !v.IsKnown():
		return true
	case v.Type() == cty.String:
		return e.spend(len(v.AsString()))
	case v.CanIterateElements():
		for it := v.ElementIterator(); it.Next(); {
			if _, element := it.Element(); !e.weigh(element) {
				return false
			}
		}
	}
	return true
}

// evaluationType and evaluationName carry an evaluation in the context of one; no
// expression can name it.
var evaluationType = cty.Capsule("evaluation", reflect.TypeFor[evaluation]())

const evaluationName = "(evaluation)"

// evaluationOf returns the evaluation that a context belongs to.
func evaluationOf(ctx *hcl.EvalContext) *evaluation {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[evaluationName]; ok {
			return v.EncapsulatedValue().(*evaluation)
		}
	}
	return &evaluation{} // of a literal
}

// metered is a part of an expression that is evaluated once for each element of
// a loop, or whose text a template copies. HCL itself cannot be told to stop.
type metered struct{ hclsyntax.Expression }

// Value implements hclsyntax.Expression.
func (m metered) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	e, at := evaluationOf(ctx), m.Range()
	if e.spent > maxEvaluation {
		return cty.DynamicVal, nil // it is said already
	}
	if e.spend(evaluationStep + at.End.Byte - at.Start.Byte) {
		v, diags := m.Expression.Value(ctx)
		if diags.HasErrors() || e.weigh(v) {
			return v, diags
		}
	}
	return cty.DynamicVal, hcl.Diagnostics{diagnostic(hcl.DiagError, at, "Evaluation takes too long",
		fmt.Sprintf("The loops and templates of this configuration make more than %s. Write the values out, or fewer of them.", FormatSize(maxEvaluation)))}
}

// meter is a walker that makes metered what is evaluated more than once.
type meter struct{}

// Enter implements hclsyntax.Walker.
func (meter) Enter(hclsyntax.Node) hcl.Diagnostics { return nil }

// Exit implements hclsyntax.Walker. What is within is metered already.
func (meter) Exit(node hclsyntax.Node) hcl.Diagnostics {
	switch n := node.(type) {
	case *hclsyntax.ForExpr:
		wrap(&n.KeyExpr)
		wrap(&n.ValExpr)
		wrap(&n.CondExpr)
	case *hclsyntax.SplatExpr:
		wrap(&n.Each)
	case *hclsyntax.TemplateExpr:
		for i := range n.Parts {
			if _, literal := n.Parts[i].(*hclsyntax.LiteralValueExpr); !literal {
				wrap(&n.Parts[i])
			}
		}
	}
	return nil
}

func wrap(part *hclsyntax.Expression) {
	if *part != nil {
		*part = metered{*part}
	}
}
