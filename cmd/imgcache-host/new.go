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
		Short: "Start a new plugin: a small one that works, in a new directory",
		Long: "Creates the directory NAME with a complete plugin of that name: source, Makefile, README.\n" +
			"make builds it, and make check checks it against its contract. The choices are:\n  " + strings.Join(scaffold.Choices(), "\n  "),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name, p.Kind = args[0], sdk.Kind(kind)
			err := scaffold.Write(p.Name, p)
			if errors.Is(err, sdk.ErrInvalid) {
				return usageError{err, cmd.CommandPath()}
			}
			if err != nil {
				return fmt.Errorf("create %s: %w", p.Name, err)
			}
			return a.answer(map[string]string{"dir": p.Name}, func(w io.Writer) {
				row(w, "created "+p.Name+"; build and check it with: make -C "+p.Name+" check")
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&p.Language, "lang", "go", "`language`: go, rust, c, assemblyscript or python")
	flags.StringVar(&kind, "kind", string(sdk.KindPolicy), "`kind` of plugin: policy or driver")
	return cmd
}
