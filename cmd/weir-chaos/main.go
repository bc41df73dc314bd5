// Command weir-chaos runs real clients through weir while servers, links and weir itself fail, and proves for every connection that what it saw was
// allowed. It needs root. `make chaos` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weir/bench/chaos"
)

// errViolated makes the exit code 1; the report has said why.
var errViolated = errors.New("something happened that must not: see the report")

func main() {
	chaos.ServeIfAsked()
	root := &cobra.Command{
		Use:           "weir-chaos",
		Short:         "Run clients through weir while everything fails, and prove what they saw",
		Example:       "  weir-chaos --weir bin/weir --duration 10m --seed 7",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
	}
	f := root.Flags()
	var o chaos.Options
	f.StringVar(&o.Weir, "weir", "bin/weir", "the binary under test")
	f.DurationVar(&o.Duration, "duration", 5*time.Minute, "how long things go wrong")
	f.Uint64Var(&o.Seed, "seed", 0, "of the schedule; 0: of the time, and printed")
	f.StringVar(&o.Driver, "driver", "af_xdp", "af_xdp or af_packet")
	f.BoolVar(&o.Live, "live", false, "weir sends bursts as live frames (xdp_send)")
	f.StringVar(&o.Mode, "xdp-mode", "", "auto, native or generic")
	f.IntVar(&o.Queues, "queues", 1, "of each device, and workers")
	f.IntVar(&o.Streams, "streams", 4, "TCP streams for each way of forwarding, at a time")
	f.IntVar(&o.Flows, "flows", 6, "UDP flows for each family")
	only := f.StringSlice("only", nil, "kinds of events, with commas; all if not given")
	fault := f.String("fault", "", "of a weir built with -tags chaosfaults: leak, count or switch")
	out := f.String("out", "", "directory for report.md and report.json")
	root.RunE = func(*cobra.Command, []string) error {
		var err error
		if o.Weir, err = filepath.Abs(o.Weir); err != nil {
			return err
		}
		if _, err := os.Stat(o.Weir); err != nil {
			return fmt.Errorf("%w (make build)", err)
		}
		if o.Self, err = os.Executable(); err != nil {
			return err
		}
		if o.Seed == 0 {
			o.Seed = uint64(time.Now().UnixNano())
		}
		for _, k := range *only {
			o.Only = append(o.Only, chaos.Kind(strings.TrimSpace(k)))
		}
		if *fault != "" {
			o.Env = append(o.Env, "WEIR_FAULT="+*fault)
		}
		o.Log = os.Stderr
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		r, err := chaos.Run(ctx, o)
		if r != nil {
			err = errors.Join(err, write(r, *out))
		}
		if err == nil && !r.OK() {
			err = errViolated
		}
		return err
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "weir-chaos: needs root")
		os.Exit(6)
	}
	chaos.Isolate()
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "weir-chaos:", err)
		os.Exit(1)
	}
}

// write prints the report, and puts it into dir unless that is empty.
func write(r *chaos.Report, dir string) error {
	text := r.Markdown()
	fmt.Print(text)
	if dir == "" {
		return nil
	}
	json, err := r.JSON()
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "report.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "report.json"), json, 0o644))
}
