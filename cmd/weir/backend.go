package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weir/control"
)

// backendCommand changes backends of the running configuration, beside the file.
func backendCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "backend",
		Short: "Change backends while weir runs, until the next reload",
		Long: "Change backends while weir runs. A change is put in force as a reload is, all or nothing. It is not in the file: `weir config changes` lists it,\n" +
			"`weir reload` undoes it, `weir reload --keep` keeps it.\n\n" +
			"SERVICE is its name, VIP:PORT, or PROTOCOL-VIP:PORT; BACKEND is its name, address, or ADDRESS:PORT.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return usage(errors.Join(c.Help(), errors.New("say what: set, add or del")))
		},
		Example: "  weir backend set web 198.18.1.10 --weight 5\n  weir backend add web 198.18.1.12:8000\n  weir backend del web w2",
	}
	c.AddCommand(backendSet(), backendAdd(), backendDel())
	return exits(c, exitInvalid, exitNoDaemon, exitRight)
}

// backendFlags are the keys that have a flag of their own; --set has the others.
func backendFlags(c *cobra.Command) func() (map[string]any, error) {
	f := c.Flags()
	f.Int("weight", 1, "share of new connections, 0 to 65535; 0: none")
	f.String("state", "", "up, drain (no new connections) or down (on_down says what becomes of old ones)")
	f.Int("upper-threshold", 0, "connections at which it takes no more, 0: never")
	f.Int("lower-threshold", 0, "connections below which it takes some again")
	set := f.StringArray("set", nil, "KEY=VALUE: another key of services[].backends[], such as drain_timeout=5m or check={\"port\":8080}")
	return func() (map[string]any, error) {
		keys := map[string]any{}
		for flag, key := range map[string]string{"weight": "weight", "upper-threshold": "upper_threshold", "lower-threshold": "lower_threshold"} {
			if f.Changed(flag) {
				keys[key], _ = f.GetInt(flag)
			}
		}
		for flag, key := range map[string]string{"state": "state", "name": "name", "forward": "forward"} {
			if f.Changed(flag) {
				keys[key], _ = f.GetString(flag)
			}
		}
		if f.Changed("vni") {
			keys["vni"], _ = f.GetUint32("vni")
		}
		for _, s := range *set {
			key, text, ok := strings.Cut(s, "=")
			if !ok || key == "" {
				return nil, usage(fmt.Errorf("--set %s: must be KEY=VALUE", s))
			}
			var v any = json.RawMessage(text)
			if !json.Valid([]byte(text)) {
				v = text
			}
			keys[key] = v
		}
		return keys, nil
	}
}

func backendSet() *cobra.Command {
	c := &cobra.Command{
		Use:   "set SERVICE BACKEND [--weight N] [--state up|drain|down] ...",
		Short: "Change keys of a backend: its weight, its state",
		Example: "  weir backend set web 198.18.1.10 --weight 5\n  weir backend set 198.18.9.9:80 w2 --state drain --set drain_timeout=5m\n" +
			"  weir backend set tcp-198.18.9.9:80 198.18.1.10:8000 --state up -o json",
		Args: cobra.ExactArgs(2),
	}
	keys, output := backendFlags(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		k, err := keys()
		if err != nil {
			return err
		}
		if len(k) == 0 {
			return usage(errors.New("say what to set: --weight, --state, --set KEY=VALUE"))
		}
		return change(c, http.MethodPatch, backendPath(args...), k, *output)
	}
	return c
}

func backendAdd() *cobra.Command {
	c := &cobra.Command{
		Use:     "add SERVICE ADDRESS[:PORT] [--weight N] ...",
		Short:   "Add a backend to a service, as the first in the scheduler's order, as ipvsadm -a does",
		Example: "  weir backend add web 198.18.1.12:8000 --weight 2\n  weir backend add dns '[2001:db8:1::12]:53' --name d3 --forward dr",
		Args:    cobra.ExactArgs(2),
	}
	c.Flags().String("name", "", "its label")
	c.Flags().String("forward", "", "how it is reached, if not as the service says: nat, dr, gue, vxlan, ...")
	c.Flags().Uint32("vni", 0, "the segment that it is in, with --forward vxlan or vxlan-dr")
	keys, output := backendFlags(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := control.BackendID(args[1])
		if err != nil {
			return usage(err)
		}
		k, err := keys()
		if err != nil {
			return err
		}
		for key, v := range id {
			k[key] = v
		}
		return change(c, http.MethodPost, backendPath(args[0]), k, *output)
	}
	return c
}

func backendDel() *cobra.Command {
	c := &cobra.Command{
		Use:     "del SERVICE BACKEND",
		Short:   "Remove a backend; its connections end as expire_nodest_conn says",
		Example: "  weir backend del web 198.18.1.12:8000",
		Args:    cobra.ExactArgs(2),
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return change(c, http.MethodDelete, backendPath(args...), nil, *output)
	}
	return c
}

// backendPath is where the API has a service's backends, or one of them.
func backendPath(names ...string) string {
	path := "/services/" + url.PathEscape(names[0]) + "/backends"
	if len(names) > 1 {
		path += "/" + url.PathEscape(names[1])
	}
	return path
}

// outputFlag is -o table|json.
func outputFlag(c *cobra.Command) *string {
	return c.Flags().StringP("output", "o", "table", "table or json")
}

// change sends a change to the daemon and tells what came of it: 3 if it was refused.
func change(c *cobra.Command, method, path string, keys map[string]any, output string) error {
	if output != "table" && output != "json" {
		return usage(fmt.Errorf("-o %s: %s has table and json", output, c.CommandPath()))
	}
	socket, _ := c.Flags().GetString("socket")
	o, err := control.NewClient(socket).Change(method, path, keys)
	if err != nil {
		return err
	}
	return tellOutcome(o, output)
}

// tellOutcome prints what a change or a reload came to.
func tellOutcome(o control.Outcome, output string) error {
	if output == "json" {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(o); err != nil {
			return err
		}
	} else {
		for _, d := range o.Diagnostics {
			fmt.Fprintln(os.Stderr, d)
		}
	}
	if !o.OK {
		return &exitError{exitInvalid, fmt.Errorf("refused, generation %d keeps running: %s", o.Generation, o.Message)}
	}
	if output != "json" {
		fmt.Println(o.Message)
	}
	return nil
}
