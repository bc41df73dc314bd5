package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weir/control/config"
	"weir/control/importer"
)

// importCommand turns the rules of other tools into YAML. Both below write the configuration to standard output and everything that is to
// be said of it to standard error.
func importCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "import",
		Short:   "Print the rules of ipvsadm or keepalived as a configuration; what has no equivalent is listed on standard error",
		Example: "  ipvsadm-save -n | weir import ipvsadm --port wan=eth1 --port lan=eth2 > weir.yaml\n  weir import keepalived /etc/keepalived/keepalived.conf > weir.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return usage(errors.Join(c.Help(), errors.New("say what to import: ipvsadm or keepalived")))
		},
	}
	ports := c.PersistentFlags().StringArray("port", nil, "NAME=INTERFACE: a port for the ports section; without any, wan on eth0 is put there, to be filled in")
	ipvsadm := &cobra.Command{
		Use:   "ipvsadm [FILE]",
		Short: "Print rules as ipvsadm-save prints them (from FILE or standard input) as a configuration",
		Long: `Print rules as ipvsadm-save prints them (from FILE or standard input) as a configuration.

The configuration is what ipvsadm-restore would have made of the rules in the kernel. Each -a puts its server at the head of the list
that schedulers walk, so backends come in the reverse order of the rules. ipvsadm-save sorts servers by address and leaves thresholds out:
the order in which the running kernel has them is shown by ipvsadm -Ln --nosort, thresholds by ipvsadm -Ln --thresholds.`,
		Example: "  ipvsadm-save -n | weir import ipvsadm > weir.yaml\n  weir import ipvsadm /etc/ipvsadm.rules --port wan=eth1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := importOptions(*ports)
			if err != nil {
				return err
			}
			file, text, err := ipvsadmRules(args)
			if err != nil {
				return usage(err)
			}
			return printImport(importer.IPVSAdm(file, text, o))
		},
	}
	keepalived := &cobra.Command{
		Use:   "keepalived FILE",
		Short: "Print the virtual servers of keepalived.conf as a configuration",
		Long: `Print the virtual servers of keepalived.conf as a configuration.

The services are those that keepalived makes while all its checks are content, with these checks. It adds real servers in the order of its file, and the kernel
puts each at the head of the list that schedulers walk: backends come in the reverse order of the file.`,
		Example: "  weir import keepalived /etc/keepalived/keepalived.conf --port wan=eth1 > weir.yaml",
		Args:    cobra.ExactArgs(1),
	}
	id := keepalived.Flags().StringP("config-id", "i", hostname(), "what lines that begin with @ are compared with, as keepalived -i")
	keepalived.RunE = func(_ *cobra.Command, args []string) error {
		o, err := importOptions(*ports)
		if err != nil {
			return err
		}
		text, err := importer.ReadFile(args[0])
		if err != nil {
			return usage(err)
		}
		return printImport(importer.Keepalived(args[0], text, *id, o))
	}
	c.AddCommand(ipvsadm, keepalived)
	return exits(c, exitInvalid)
}

// hostname is the host's name up to its first dot, keepalived's configuration ID unless another is given.
func hostname() string {
	name, _ := os.Hostname()
	name, _, _ = strings.Cut(name, ".")
	return name
}

// ipvsadmRules reads the rules from the file that is named, or from standard input.
func ipvsadmRules(args []string) (file string, text []byte, err error) {
	if len(args) == 0 || args[0] == "-" {
		text, err = io.ReadAll(io.LimitReader(os.Stdin, importer.MaxBytes+1))
		return "stdin", text, err
	}
	text, err = importer.ReadFile(args[0])
	return args[0], text, err
}

// importOptions takes --port apart.
func importOptions(ports []string) (o importer.Options, err error) {
	for _, p := range ports {
		name, device, ok := strings.Cut(p, "=")
		if !ok || name == "" || device == "" {
			return o, usage(fmt.Errorf("--port %s: must be NAME=INTERFACE", p))
		}
		o.Ports = append(o.Ports, importer.Port{Name: name, Interface: device})
	}
	return o, nil
}

// printImport prints what became of an import.
func printImport(r importer.Result) error {
	for _, n := range r.Notes {
		fmt.Fprintln(os.Stderr, n)
	}
	for _, e := range r.Errors {
		fmt.Fprintln(os.Stderr, e)
	}
	if len(r.Errors) > 0 {
		return &exitError{code: exitInvalid}
	}
	// The names that --port gives are the one thing that the import has not looked at.
	if _, diags := config.Parse("imported", r.Config); config.HasErrors(diags) {
		return usage(config.Errors(diags))
	}
	_, err := os.Stdout.Write(r.Config)
	return err
}
