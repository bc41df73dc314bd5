package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"

	"weir/cmd/weir/manual"
	"weir/control"
	"weir/control/privilege"
	"weir/docs"
)

// manCommand prints the manual pages, for packages and for who reads them without one. It is hidden because man(1) is how people ask.
func manCommand() *cobra.Command {
	c := &cobra.Command{
		Use:       "man weir|weir.yaml",
		Short:     "Print a manual page as roff",
		Example:   "  weir man weir | man -l -\n  weir man weir.yaml > /usr/local/share/man/man5/weir.yaml.5",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"weir", "weir.yaml"},
		Hidden:    true,
		RunE: func(c *cobra.Command, args []string) error {
			p := manual.Page{Name: args[0], Date: built(), Version: versionText()}
			if args[0] == "weir.yaml" {
				p.Section, p.About = 5, "configuration of the load balancer weir"
				return manual.File(c.OutOrStdout(), p, docs.Config)
			}
			p.Section, p.About = 8, "edge load balancer: IPVS's balancing over AF_XDP"
			return manual.Program(c.OutOrStdout(), p, c.Root(), exitsOf, manualSections...)
		},
	}
	return exits(c)
}

// prepareCommand does what root must before weir runs as another user. The service's unit calls it; `weir run --user` does the same by itself.
func prepareCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "prepare --user NAME",
		Short:   "Make the directory, the BPF file system and the name of the socket that weir needs as another user",
		Example: "  weir prepare --user weir",
		Args:    cobra.NoArgs,
		Hidden:  true,
	}
	name := c.Flags().String("user", "", "who will run it")
	_ = c.MarkFlagRequired("user")
	c.RunE = func(*cobra.Command, []string) error {
		uid, gid, err := privilege.Lookup(*name)
		if err != nil {
			return usage(err)
		}
		return control.Prepare(uid, gid)
	}
	return exits(c, exitRight)
}

// manualSections are what weir(8) says that no command does.
var manualSections = []manual.Section{
	{Title: "SIGNALS", Items: [][2]string{
		{"SIGHUP", "weir run loads its configuration anew, all of it or nothing."},
		{"SIGTERM, SIGINT", "weir run takes VIPs, program and sockets away and ends with 0."},
	}},
	{Title: "FILES", Items: [][2]string{
		{"/etc/weir/weir.yaml", "The configuration that the service reads."},
		{"/run/weir.sock", "The admin socket, mode 0660, of group weir if there is one. HTTP with JSON: curl --unix-socket /run/weir.sock http://weir/stats."},
		{"/run/weir", "What a running weir has added to the host, so that the next one, or weir cleanup, can take it away after a kill."},
		{"/sys/fs/bpf/weir", "The pinned steering program and its maps."},
	}},
}

// built is the day of the commit that the binary is of; empty if the binary does not know.
func built() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" && len(s.Value) >= len("2006-01-02") {
				return s.Value[:len("2006-01-02")]
			}
		}
	}
	return ""
}
