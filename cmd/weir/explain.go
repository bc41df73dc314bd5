package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weir/control"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain tcp|udp|sctp CLIENT:PORT VIP:PORT",
		Short: "Tell which server a client's connection would get now, and why, without opening it",
		Long: "Tell which server a client's connection would get now, and why, without opening it: the daemon asks the same code that schedules connections,\n" +
			"on copies of what that would change.",
		Example: "  weir explain tcp 198.18.128.7:40000 198.18.9.9:80\n  weir explain udp '[2001:db8:c::7]:5353' '[2001:db8:9::9]:53' -o json",
		Args:    cobra.ExactArgs(3),
	}
	output := c.Flags().StringP("output", "o", "table", "table or json")
	vni := c.Flags().Uint32("vni", 0, "the segment that the client is in, 0: none")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *output != "table" && *output != "json" {
			return usage(fmt.Errorf("-o %s: explain has table and json", *output))
		}
		asked := url.Values{"protocol": {strings.ToLower(args[0])}}
		for i, name := range []string{"client", "virtual"} {
			if _, err := netip.ParseAddrPort(args[1+i]); err != nil {
				return usage(fmt.Errorf("%s: must be ADDRESS:PORT, such as 198.18.9.9:80 or [2001:db8::9]:80", args[1+i]))
			}
			asked.Set(name, args[1+i])
		}
		if *vni != 0 {
			asked.Set("vni", fmt.Sprint(*vni))
		}
		socket, _ := c.Flags().GetString("socket")
		var raw json.RawMessage
		if err := control.NewClient(socket).Get("/explain?"+asked.Encode(), &raw); err != nil {
			return err
		}
		if *output == "json" {
			_, err := os.Stdout.Write(append(raw, '\n'))
			return err
		}
		var v control.ExplainView
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("the daemon's answer: %w", err)
		}
		return printed(func(w io.Writer) { printExplain(w, &v) })
	}
	return c
}

func printExplain(w io.Writer, v *control.ExplainView) {
	fmt.Fprintf(w, "%s %s -> %s: %s", v.Protocol, within(v.Client.String(), v.VNI), v.Virtual, v.Fate)
	if b := v.Backend; b != nil {
		fmt.Fprintf(w, ", server %s", b.Name)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("why", "%s", v.Why)
	if s := v.Service; s != nil {
		as := control.ServiceView{VIP: s.VIP, VNI: s.VNI, Port: s.Port, PortTo: s.PortTo, Scheduler: s.Scheduler, Flags: s.Flags}
		row("service", "%s: %s %s, %s", s.Name, s.Protocol, endpoint(as), scheduler(as))
	}
	if b := v.Backend; b != nil {
		source := "sees the client's address"
		if b.Rewrites {
			source = "sees an address of ours"
		}
		row("server", "%s by %s, %s", within(hostPort(b.Address, b.Port), b.VNI), b.Forward, source)
		switch b.Way {
		case "resolved":
			row("way", "port %s, next hop %s", b.OutPort, b.NextHop)
		case "unresolved":
			row("way", "port %s, next hop %s, whose MAC address is not known yet", b.OutPort, b.NextHop)
		case "no_route":
			row("way", "no route: packets are dropped")
		}
	}
	for _, x := range []struct {
		name string
		conn *control.ConnView
	}{{"connection", v.Connection}, {"template", v.Template}} {
		if c := x.conn; c != nil {
			row(x.name, "to %s, %s, ends in %v unless a packet comes", within(c.Backend.String(), c.BackendVNI), c.State, (time.Duration(c.ExpiresS) * time.Second))
		}
	}
	_ = t.Flush()
	for i := range v.Schedulers {
		printScheduler(w, &v.Schedulers[i])
	}
}

// printScheduler shows what a scheduler could choose from; > marks what it chose.
func printScheduler(w io.Writer, s *control.SchedulerView) {
	title := s.Name
	if s.Backup {
		title += " of the backups"
	}
	if s.Level != 0 {
		title += fmt.Sprintf(", asks for weight %d", s.Level)
	}
	if s.Last != "" {
		title += ", stands at " + s.Last
	}
	fmt.Fprintf(w, "\n%s: %s\n", title, s.Why)
	table(w, func(row func(...any)) {
		row("", "BACKEND", "ADDRESS", "WEIGHT", "ACTIVE", "INACT", "COST", "")
		for i := range s.Candidates {
			c := &s.Candidates[i]
			mark, cost, note := "", "-", ""
			if c.Chosen {
				mark = ">"
			}
			if c.Cost != nil {
				cost = fmt.Sprintf("%.4g", *c.Cost)
			}
			switch {
			case c.Overloaded:
				note = "overloaded"
			case c.Weight == 0:
				note = "weight 0"
			}
			row(mark, c.Name, within(hostPort(c.Address, c.Port), c.VNI), c.Weight, c.Active, c.Inactive, cost, note)
		}
	})
}
