package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weir/control"
	"weir/control/events"
)

func eventsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "events",
		Short:   "Show what has happened: reloads, servers that went down or came up, ports, limits reached, drops that began",
		Example: "  weir events -f\n  weir events --kind health --level warn\n  weir events -f -o json | jq .fields",
		Args:    cobra.NoArgs,
	}
	output := c.Flags().StringP("output", "o", "table", "table or json; json with -f is an object a line")
	follow := c.Flags().BoolP("follow", "f", false, "go on with those to come, until the daemon ends")
	limit := c.Flags().Int("limit", 0, "print at most so many, the latest; 0: all that the daemon remembers")
	kind := c.Flags().String("kind", "", "only of this kind: reload, health, port, steering, host, vxlan, admin, limit, drop, daemon")
	level := c.Flags().String("level", "", "only of this level and above: info, warn, error")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return usage(fmt.Errorf("-o %s: events has table and json", *output))
		}
		socket, _ := c.Flags().GetString("socket")
		client := control.NewClient(socket)
		asked := url.Values{"limit": {strconv.Itoa(*limit)}, "kind": {*kind}, "level": {*level}}
		if !*follow && *output == "json" {
			var raw json.RawMessage
			if err := client.Get("/events?"+asked.Encode(), &raw); err != nil {
				return err
			}
			_, err := os.Stdout.Write(append(raw, '\n'))
			return err
		}
		for {
			var all []events.Event
			if err := client.Get("/events?"+asked.Encode(), &all); err != nil {
				return err
			}
			for _, e := range all {
				if err := printEvent(os.Stdout, e, *output == "json"); err != nil {
					return err // a pipe that was closed
				}
				asked.Set("after", strconv.FormatUint(e.Seq, 10))
			}
			if !*follow {
				return nil
			}
			asked.Del("limit")
			asked.Set("wait", "30s")
		}
	}
	return c
}

// printEvent prints a line as the log has it, the kind before the message.
func printEvent(w io.Writer, e events.Event, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(e)
	}
	var line strings.Builder
	fmt.Fprintf(&line, "%s %-5s %-8s %s", e.Time.Format(time.RFC3339), e.Level, e.Kind, e.Message)
	for _, f := range e.Fields {
		value := f.Value
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f }) {
			value = strconv.Quote(value)
		}
		line.WriteString(" " + f.Key + "=" + value)
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}
