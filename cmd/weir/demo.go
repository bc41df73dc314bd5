package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weir/cmd/weir/demo"
)

// waitModes are the values of engine.wait.
var waitModes = []string{"busy", "poll", "epoll-level", "epoll-edge", "signal", "adaptive"}

func demoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "demo",
		Short:   "Show the whole thing on this machine, in network namespaces; needs root and iproute2",
		Example: "  weir demo\n  weir demo --wait busy --keep",
		Args:    cobra.NoArgs,
	}
	exits(c, exitRight)
	modes := strings.Join(waitModes, ", ")
	wait := c.Flags().String("wait", "adaptive", "how the balancer's workers wait: "+modes)
	keep := c.Flags().Bool("keep", false, "leave it running after the last look, until ^C")
	plain := c.Flags().Bool("no-color", false, "no colours, also on a terminal")
	c.RunE = func(*cobra.Command, []string) error {
		if !slices.Contains(waitModes, *wait) {
			return usage(fmt.Errorf("--wait %s: must be one of %s", *wait, modes))
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		defer stop()
		// `weir demo | head` must clean up, too: with SIGPIPE caught, the write fails instead of the process.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
		color := err == nil && !*plain && os.Getenv("NO_COLOR") == ""
		err = demo.Run(ctx, demo.Options{Out: os.Stdout, Wait: *wait, Keep: *keep, Color: color})
		if err != nil && exitCode(err) != exitRight {
			return &exitError{exitFailed, err} // whatever its balancer did wrong, what failed here is the demo
		}
		return err
	}
	return c
}
