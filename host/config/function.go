package config

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/host/plainfile"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// evalContext offers the functions of the language. Relative paths are taken
// from dir. Errors of functions name what they were called with, unless it may
// have been read by another one.
func evalContext(dir string, e *evaluation) *hcl.EvalContext {
	return &hcl.EvalContext{
		Variables: map[string]cty.Value{evaluationName: cty.CapsuleVal(evaluationType, e)},
		Functions: map[string]function.Function{
			"env":      envFunction(e),
			"file":     fileFunction(dir, e),
			"hostname": hostnameFunction,
		},
	}
}

// envFunction is env(name) and env(name, default).
func envFunction(e *evaluation) function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) > 2 {
				return cty.NilVal, function.NewArgErrorf(2, "env takes a name and at most one default")
			}
			name := args[0].AsString()
			if v, ok := os.LookupEnv(name); ok {
				return e.read(v)
			}
			if len(args) == 2 {
				return args[1], nil
			}
			if e.secret() {
				return cty.NilVal, function.NewArgErrorf(0, "the environment variable is not set; set it, or give a default")
			}
			return cty.NilVal, function.NewArgErrorf(0,
				"the environment variable %s is not set; set it, or give a default: env(%q, \"...\")", name, name)
		},
	})
}

// maxFileSize bounds configuration files and what file() reads: both are
// written by people, and a device or a disk image is a mistake.
const maxFileSize = 1 << 20

// fileFunction is file(path): the content without the newline at its end.
func fileFunction(dir string, e *evaluation) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if e.spent > maxEvaluation {
				return cty.NilVal, errSpent
			}
			name := args[0].AsString()
			if !filepath.IsAbs(name) {
				name = filepath.Join(dir, name)
			}
			content, err := readFile(name)
			switch {
			case err != nil && e.secret():
				return cty.NilVal, function.NewArgErrorf(0, "the file cannot be read")
			case err != nil:
				return cty.NilVal, function.NewArgError(0, err)
			}
			s := strings.TrimSuffix(string(content), "\n")
			return e.read(strings.TrimSuffix(s, "\r"))
		},
	})
}

var hostnameFunction = function.New(&function.Spec{
	Type: function.StaticReturnType(cty.String),
	Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
		name, err := os.Hostname()
		return cty.StringVal(name), err
	},
})

// readFile reads a regular file of at most maxFileSize bytes.
func readFile(name string) ([]byte, error) {
	return plainfile.Read(name, maxFileSize)
}
