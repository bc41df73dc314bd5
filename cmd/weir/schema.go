package main

import (
	"os"

	"github.com/spf13/cobra"

	"weir/control"
)

func configSchema() *cobra.Command {
	return exits(&cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema (2020-12) of the configuration, for editors",
		Long: "Print the JSON Schema (2020-12) of the configuration: keys, words, ranges, defaults and what they mean, for editors that complete and check YAML while\n" +
			"it is written. What only two places together make wrong is for `weir check`.",
		Example: "  weir config schema > /etc/weir/weir.schema.json\n  # first line of weir.yaml: # yaml-language-server: $schema=/etc/weir/weir.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := control.Schema()
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(b)
			return err
		},
	})
}
