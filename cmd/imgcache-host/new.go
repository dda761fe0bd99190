package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host/scaffold"
	"github.com/imgcache/imgcache-host/sdk"
)

func (a *app) pluginNew() *cobra.Command {
	p := scaffold.Plugin{Version: version}
	var kind string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a plugin: a small one that works, in a new directory",
		Long: "Makes the directory NAME with a plugin of that name, which is complete: source, Makefile, README.\n" +
			"make builds it, and make check holds it to its contract. There is:\n  " + strings.Join(scaffold.Choices(), "\n  "),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name, p.Kind = args[0], sdk.Kind(kind)
			err := scaffold.Write(p.Name, p)
			if errors.Is(err, sdk.ErrInvalid) {
				return usageError{err, cmd.CommandPath()}
			}
			if err != nil {
				return fmt.Errorf("begin %s: %w", p.Name, err)
			}
			return a.answer(map[string]string{"dir": p.Name}, func(w io.Writer) {
				row(w, p.Name+" is there. Build and check it: make -C "+p.Name+" check")
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&p.Language, "lang", "go", "`language`: go, rust, c, assemblyscript or python")
	flags.StringVar(&kind, "kind", string(sdk.KindPolicy), "`kind` of plugin: policy or driver")
	return cmd
}
