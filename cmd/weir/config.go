package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"weir/control"
)

// exitDiffers is the exit code of a comparison that found something: not 1, which is a failure everywhere.
const exitDiffers = 4

// configCommand compares and describes configurations.
func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Compare configurations, list what is not in the file, print the schema",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return usage(errors.Join(c.Help(), errors.New("say what: diff, changes or schema")))
		},
		Example: "  weir config diff\n  weir config changes\n  weir config schema > weir.schema.json",
	}
	c.AddCommand(configDiff(), configChanges(), configSchema())
	return c
}

func configDiff() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff [A B]",
		Short: "Tell how what runs differs from its file, or one file from another",
		Long: "Tell how what runs differs from its file as it is now, or file B from file A: services and backends by identity, key by key. Secrets are not shown.\n\n" +
			"Ends with 0 if there is no difference, 4 if there is, 3 if a file is invalid, 2 if it cannot be read.",
		Example: "  weir config diff\n  weir config diff /etc/weir/weir.yaml new.yaml\n  weir config diff -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return errors.New("diff has two files, or none")
			}
			return nil
		},
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		var d control.ConfigDiff
		var err error
		if *output != "table" && *output != "json" {
			return usage(fmt.Errorf("-o %s: config diff has table and json", *output))
		}
		if len(args) == 2 {
			d.File = args[0]
			if d.Changes, err = control.DiffFiles(args[0], args[1], os.Stderr); err != nil {
				return readable(err)
			}
		} else {
			socket, _ := c.Flags().GetString("socket")
			if err := control.NewClient(socket).Get("/config/diff", &d); err != nil {
				return err
			}
		}
		if *output == "json" {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			err = e.Encode(d)
		} else {
			err = printed(func(w io.Writer) {
				for _, x := range d.Changes {
					fmt.Fprintln(w, x)
				}
			})
		}
		if err == nil && len(d.Changes) > 0 {
			return &exitError{code: exitDiffers}
		}
		return err
	}
	return exits(c, exitInvalid, exitDiffers, exitNoDaemon, exitRight)
}

func configChanges() *cobra.Command {
	c := &cobra.Command{
		Use:     "changes",
		Short:   "List the changes that were made while the daemon ran and are not in the file",
		Example: "  weir config changes\n  weir config changes -o json",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return show(c, "/config/changes", *output, map[string]func(io.Writer, []control.ConfigEdit){"table": func(w io.Writer, all []control.ConfigEdit) {
			table(w, func(row func(...any)) {
				row("CHANGE", "SERVICE", "BACKEND", "KEYS")
				for _, e := range all {
					row(e.Op, e.Service, e.Backend, e.Keys)
				}
			})
		}})
	}
	return c
}
