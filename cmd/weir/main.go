// Command weir is an edge load balancer: it takes packets off the wire through AF_XDP and balances them over real servers as IPVS does.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weir/control"
)

// Exit codes, a contract with scripts.
const (
	exitFailed   = 1 // it failed while running
	exitUsage    = 2 // wrong usage, also a configuration file that cannot be read
	exitInvalid  = 3 // configuration invalid or refused
	exitNoDaemon = 5 // no daemon answers
	exitRight    = 6 // a right or capability is missing
)

// version is set by the linker for releases; otherwise the module's own is shown.
var version = ""

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := commands()
	root.SetArgs(args)
	started := false // a command has been reached: an error before that is one of usage
	var note func(*cobra.Command)
	note = func(c *cobra.Command) {
		if f := c.RunE; f != nil {
			c.RunE = func(c *cobra.Command, args []string) error {
				started = true
				return f(c, args)
			}
		}
		for _, below := range c.Commands() {
			note(below)
		}
	}
	note(root)
	err := root.Execute()
	if err == nil {
		return 0
	}
	if !started {
		err = usage(err)
	}
	var silent *exitError
	if !errors.As(err, &silent) || silent.err != nil {
		fmt.Fprintln(os.Stderr, "weir:", err)
	}
	return exitCode(err)
}

// exitError carries the exit code of an error that knows better than exitCode; err is nil where everything has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error { return &exitError{exitUsage, err} }

func exitCode(err error) int {
	var e *exitError
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, control.ErrInvalid):
		return exitInvalid
	case errors.Is(err, control.ErrNoDaemon):
		return exitNoDaemon
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, os.ErrPermission):
		return exitRight
	}
	return exitFailed
}

func commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "An edge load balancer: IPVS's balancing over AF_XDP",
		Long: "An edge load balancer. It takes packets off the wire through AF_XDP, balances them over real servers as IPVS does, carries them over VXLAN where\n" +
			"the servers live in an overlay, and leaves everything else on the host to the Linux kernel.",
		Example:       "  weir check -c /etc/weir/weir.yaml && weir run -c /etc/weir/weir.yaml\n  weir list\n  weir demo",
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return usage(errors.Join(c.Help(), errors.New("a command is missing")))
		},
	}
	root.SetVersionTemplate("weir {{.Version}}\n")
	root.PersistentFlags().String("socket", control.DefaultSocket, "admin socket of the daemon")
	group(root, "serve", "The balancer:", runCommand(), checkCommand(), reloadCommand(), backendCommand(), configCommand(), cleanupCommand())
	group(root, "look", "What a running one does:", append(viewCommands(), topCommand(), explainCommand(), traceCommand(), captureCommand(), vxlanCommand(), fdbCommand(), eventsCommand())...)
	group(root, "tools", "Tools:", replayCommand(), importCommand(), demoCommand(), pktgenCommand(), completionCommand())
	root.AddCommand(manCommand(), prepareCommand())
	root.CompletionOptions.DisableDefaultCmd = true // it has one for PowerShell, too
	complete(root)
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		help(c, args)
		printExits(c.OutOrStdout(), c)
	})
	return root
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
