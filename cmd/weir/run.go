package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weir/control"
	"weir/control/privilege"
	"weir/control/systemd"
)

// configFlag is -c FILE, which every command that reads a configuration must have.
func configFlag(c *cobra.Command) *string {
	file := c.Flags().StringP("config", "c", "", "configuration file (required)")
	_ = c.MarkFlagRequired("config")
	return file
}

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the balancer in the foreground; SIGHUP reloads, SIGUSR2 upgrades, SIGTERM and SIGINT stop cleanly",
		Long: `Run the balancer in the foreground; SIGHUP reloads, SIGUSR2 upgrades, SIGTERM and SIGINT stop cleanly.

With --takeover it takes the place of the one that answers on the admin socket, alive: sockets, frames and connections are handed over, and packets wait
in the rings for a few milliseconds. If anything is wrong before that, it ends with the reason and the other goes on. On SIGUSR2 a weir begins
the program that is installed now with its own arguments and --takeover: an upgrade without a pause.`,
		Example: "  weir run -c /etc/weir/weir.yaml\n  weir run -c lab.yaml --socket /run/lab.sock --log-level debug\n  weir run -c lab.yaml --socket /run/lab.sock --takeover",
		Args:    cobra.NoArgs,
	}
	exits(c, exitInvalid, exitNoDaemon, exitRight)
	file := configFlag(c)
	as := c.Flags().String("user", "", "run as this user, with the few capabilities that it takes; needs root (default: as who starts it)")
	takeover := c.Flags().Bool("takeover", false, "take the place of the weir that answers on the admin socket, alive")
	logger := logFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := logger()
		if err != nil {
			return err
		}
		if err := privilege.Confine(*as, control.Prepare); err != nil {
			if unknown := (user.UnknownUserError)(""); errors.As(err, &unknown) {
				err = usage(err)
			}
			return err
		}
		// Not before: a signal that is caught there would be forgotten.
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		manager, err := systemd.Open()
		if err != nil {
			return usage(err)
		}
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		usr2 := make(chan os.Signal, 1)
		signal.Notify(usr2, syscall.SIGUSR2)
		o := control.Options{
			Config: *file, Stderr: os.Stderr, Reload: hup, Version: versionText(), Manager: manager,
			Logger: log, Takeover: *takeover, Upgrade: usr2,
			Successor: func() error { return successor(manager, log) },
			Again:     func() error { return again(manager) },
		}
		if c.Flags().Changed("socket") {
			o.Socket, _ = c.Flags().GetString("socket")
		}
		// Workers keep their threads; control must find a free processor beside them.
		runtime.GOMAXPROCS(max(runtime.NumCPU(), 2) + 2)
		return readable(control.Run(ctx, o))
	}
	return c
}

// readable gives an unreadable file the exit code of wrong usage.
func readable(err error) error {
	if errors.Is(err, control.ErrUnreadable) {
		return usage(err)
	}
	return err
}

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration without touching anything: 0 valid, 3 invalid, every error at once",
		Long: `Check a configuration without touching anything: 0 valid, 3 invalid, every error at once.

With --live this host is looked at, too: devices, queues, offloads, MTUs, kernel settings, ports, memory and what else stands in the way. Each finding is an
error, which ends with 3, a warning or a hint, with the command that sets it right below it.`,
		Example: "  weir check -c weir.yaml\n  weir check -c weir.yaml --live\n  weir check -c weir.yaml --live -o json",
		Args:    cobra.NoArgs,
	}
	exits(c, exitInvalid)
	file := configFlag(c)
	live := c.Flags().Bool("live", false, "look at this host, too")
	output := c.Flags().StringP("output", "o", "text", "text or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *output != "text" && *output != "json" {
			return usage(fmt.Errorf("-o %s: check has text and json", *output))
		}
		socket := ""
		if c.Flags().Changed("socket") {
			socket, _ = c.Flags().GetString("socket")
		}
		report, err := control.Check(*file, socket, *live)
		if err != nil {
			return readable(err)
		}
		if *output == "json" {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			if err := e.Encode(report); err != nil {
				return err
			}
		} else {
			report.WriteText(os.Stdout)
		}
		if !report.Valid {
			return &exitError{code: exitInvalid}
		}
		return nil
	}
	return c
}

func replayCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "replay -c FILE --in PORT=A.pcap ... --out PORT=B.pcap ...",
		Short: "Run the same engine over capture files, by the captures' own time; needs no root",
		Example: "  weir replay -c weir.yaml --in wan=clients.pcap --in lan=servers.pcap --out wan=to-clients.pcap --out lan=to-servers.pcap\n" +
			"  weir replay -c weir.yaml --in wan=a.pcap --reload 1.5s=new.yaml --counters counters.json",
		Args: cobra.NoArgs,
	}
	exits(c, exitInvalid)
	file := configFlag(c)
	in := c.Flags().StringArray("in", nil, "PORT=FILE: frames that the port receives (pcap, pcapng)")
	out := c.Flags().StringArray("out", nil, "PORT=FILE: where to write the frames that the port sends (nanosecond pcap)")
	reload := c.Flags().StringArray("reload", nil, "TIME=FILE: load a configuration so long after the first input frame, such as 1.5s=new.yaml")
	counters := c.Flags().String("counters", "", "write the counters to this file, as JSON")
	seed := c.Flags().Uint64("seed", 0, "seed of what would be random")
	c.RunE = func(*cobra.Command, []string) error {
		o := control.ReplayOptions{Config: *file, Counters: *counters, Seed: *seed, Stderr: os.Stderr}
		var err error
		if o.In, err = portFiles("--in", *in); err != nil {
			return usage(err)
		}
		if o.Out, err = portFiles("--out", *out); err != nil {
			return usage(err)
		}
		for _, s := range *reload {
			at, path, ok := strings.Cut(s, "=")
			d, err := time.ParseDuration(at)
			if !ok || err != nil || d < 0 || path == "" {
				return usage(fmt.Errorf("--reload %s: must be TIME=FILE, such as 1.5s=new.yaml", s))
			}
			o.Reloads = append(o.Reloads, control.TimedReload{At: d, Config: path})
		}
		err = control.Replay(o)
		var refused *control.RefusedReload
		if errors.As(err, &refused) {
			return &exitError{exitFailed, err}
		}
		return readable(err)
	}
	return c
}

// portFiles reads PORT=FILE arguments.
func portFiles(flag string, args []string) (files []control.PortFile, err error) {
	for _, s := range args {
		port, file, ok := strings.Cut(s, "=")
		if !ok || port == "" || file == "" {
			return nil, fmt.Errorf("%s %s: must be PORT=FILE", flag, s)
		}
		files = append(files, control.PortFile{Port: port, File: file})
	}
	return files, nil
}

func reloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon load its configuration anew, and wait for the outcome: 3 if it was refused",
		Long: "Have the daemon load its configuration anew, and wait for the outcome: 3 if it was refused. Changes that were made while it ran (`weir backend`) and\n" +
			"are not in the file are undone; with --keep they are made again on the new file, where it has their service and backend.",
		Example: "  weir check -c /etc/weir/weir.yaml && weir reload\n  weir reload --keep -o json",
		Args:    cobra.NoArgs,
	}
	keep := c.Flags().Bool("keep", false, "keep changes that are not in the file")
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return usage(fmt.Errorf("-o %s: reload has table and json", *output))
		}
		socket, _ := c.Flags().GetString("socket")
		reload := control.NewClient(socket).Reload
		if *keep {
			reload = control.NewClient(socket).ReloadKeeping
		}
		o, err := reload()
		if err != nil {
			return err
		}
		return tellOutcome(o, *output)
	}
	return exits(c, exitInvalid, exitNoDaemon, exitRight)
}

func cleanupCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "cleanup",
		Short:   "Remove what a dead weir left: steering program, maps, VIPs, reserved ports, neighbours",
		Example: "  weir cleanup\n  weir cleanup --socket /run/lab.sock",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			socket, _ := c.Flags().GetString("socket")
			removed, err := control.Cleanup(socket)
			for _, what := range removed {
				fmt.Println("removed", what)
			}
			if err == nil && len(removed) == 0 {
				fmt.Println("nothing to remove")
			}
			return err
		},
	}
	return exits(c, exitRight)
}
