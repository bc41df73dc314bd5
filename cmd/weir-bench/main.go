// Command weir-bench measures weir beside others that forward packets, and writes a report. It needs root. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"weir/bench/suite"
)

func main() {
	root := &cobra.Command{
		Use:           "weir-bench",
		Short:         "Measure weir beside others that forward packets",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
	}
	f := root.Flags()
	weir := f.String("weir", "bin/weir", "the binary that is measured")
	out := f.String("out", "bench/results", "directory of the report")
	quick := f.Bool("quick", false, "under three minutes: fewer and shorter runs, too few to compare")
	only := f.String("only", "", "sections by a regular expression: "+strings.Join(suite.Names(), ", "))
	root.RunE = func(*cobra.Command, []string) error {
		o := suite.Options{Quick: *quick, Log: os.Stderr, CPUs: [2]int{0, runtime.NumCPU() - 1}}
		var err error
		if o.Weir, err = filepath.Abs(*weir); err != nil {
			return err
		}
		if o.Self, err = os.Executable(); err != nil {
			return err
		}
		if *only != "" {
			if o.Only, err = regexp.Compile(*only); err != nil {
				return err
			}
		}
		if _, err := os.Stat(o.Weir); err != nil {
			return fmt.Errorf("%w (make build)", err)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		results, err := suite.Run(ctx, o)
		if err != nil {
			return err
		}
		return write(results, *out)
	}
	root.AddCommand(forwardCommand())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "weir-bench:", err)
		os.Exit(1)
	}
}

// write puts JSON, Markdown and plots into dir.
func write(r *suite.Results, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	json, err := r.JSON()
	if err != nil {
		return err
	}
	plots, err := r.Plots(dir)
	text := r.Markdown(plots)
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "results.json"), json, 0o644), os.WriteFile(filepath.Join(dir, "README.md"), []byte(text), 0o644))
	fmt.Print(text)
	return err
}

// forwardCommand is the bare forwarder, which the suite starts in a namespace.
func forwardCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "forward DEVICE DEVICE MAC MAC CPU",
		Short: "Forward frames between two devices over AF_XDP with new MAC addresses: those of the stations behind each device",
		Args:  cobra.ExactArgs(5),
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		cpu, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		var stop atomic.Bool
		context.AfterFunc(ctx, func() { stop.Store(true) })
		return suite.Forward(args[0], args[1], args[2], args[3], cpu, &stop, func() { fmt.Println("forwarding") })
	}
	return c
}
