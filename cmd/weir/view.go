package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weir/control"
)

// viewCommands ask the daemon for one view each and print it as a table or as the JSON that the daemon gave.
func viewCommands() []*cobra.Command {
	list := view("list", "services and their backends", "/list", printList)
	list.Flags().Lookup("output").Usage = "table, json, or ipvsadm (the layout of ipvsadm -Ln)"
	list.Example = "  weir list\n  weir list -o ipvsadm --nosort"
	list.Flags().Bool("nosort", false, "with -o ipvsadm: services and servers in the order of the configuration, not sorted as ipvsadm sorts")
	conns := view("conns", "connections", "/conns", printConns)
	conns.Flags().Int("limit", 0, "print at most so many, 0: all")
	connFilterFlags(conns, "only")
	conns.Example = "  weir conns --service web --state established --limit 20\n  weir conns --client 198.18.128.0/24 --backend 198.18.1.10 -o json"
	conns.AddCommand(connsDel())
	stats := view("stats", "verdicts and counters", "/stats", printStats)
	stats.AddCommand(statsZero())
	rates := view("rates", "rates of services and backends over an interval", "/rates", printRates)
	rates.Flags().Duration("interval", time.Second, "measure for so long, 10ms to 1m")
	rates.Example = "  weir rates --interval 10s"
	return []*cobra.Command{
		list, rates, conns, stats,
		view("drops", "frames discarded, by reason", "/drops", printDrops),
		view("ports", "ports and the driver mode each one got", "/ports", printPorts),
		view("workers", "workers, their cores and how busy they are", "/workers", printWorkers),
		view("status", "the daemon: configuration, generation, last reload", "/status", printStatus),
	}
}

// view makes the command that shows the view of type T at path.
func view[T any](name, short, path string, print func(io.Writer, T)) *cobra.Command {
	c := &cobra.Command{Use: name, Short: "Show " + short, Example: fmt.Sprintf("  weir %s\n  weir %s -o json", name, name), Args: cobra.NoArgs}
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		socket, _ := c.Flags().GetString("socket")
		p := path
		asked := url.Values{}
		for _, name := range []string{"limit", "interval", "service", "backend", "client", "state"} {
			if f := c.Flags().Lookup(name); f != nil && f.Changed {
				asked.Set(name, f.Value.String())
			}
		}
		if len(asked) > 0 {
			p += "?" + asked.Encode()
		}
		var raw json.RawMessage
		switch *output {
		case "table", "json":
		case "ipvsadm":
			if name == "list" {
				break
			}
			fallthrough
		default:
			return usage(fmt.Errorf("-o %s: %s has table and json", *output, name))
		}
		client := control.NewClient(socket)
		if err := client.Get(p, &raw); err != nil {
			return err
		}
		if *output == "json" {
			_, err := os.Stdout.Write(append(raw, '\n'))
			return err
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("the daemon's answer: %w", err)
		}
		if *output == "ipvsadm" {
			services, ok := any(v).([]control.ServiceView)
			if !ok {
				return errors.New("only list has the layout of ipvsadm")
			}
			var status control.Status
			if err := client.Get("/status", &status); err != nil {
				return err
			}
			nosort, _ := c.Flags().GetBool("nosort")
			if !nosort {
				sortIPVSAdm(services)
			}
			return printed(func(w io.Writer) { printIPVSAdm(w, services, status.Capacity) })
		}
		return printed(func(w io.Writer) { print(w, v) })
	}
	return c
}

// printed has print write to standard output, and tells if not all of it could be written: a disk may be full.
func printed(print func(io.Writer)) error {
	b := bufio.NewWriter(os.Stdout)
	print(b)
	return b.Flush() // has the first error of all writes
}

// counted is 1 change, 3 changes.
func counted(n int, one, more string) string {
	if n == 1 {
		more = one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// table prints rows in columns; the first row is the header.
func table(w io.Writer, f func(row func(cells ...any))) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	f(func(cells ...any) {
		var line []string
		for _, c := range cells {
			line = append(line, fmt.Sprint(c))
		}
		fmt.Fprintln(t, strings.Join(line, "\t"))
	})
	_ = t.Flush()
}

func printList(w io.Writer, services []control.ServiceView) {
	table(w, func(row func(...any)) {
		row("PROTO", "VIP:PORT / BACKEND", "NAME", "SCHED", "WEIGHT", "ACTIVE", "INACT", "CONNS", "STATE")
		for _, s := range services {
			row(s.Protocol, endpoint(s), s.Name, scheduler(s), "", "", "", s.Conns, serving(s))
			for _, b := range s.Backends {
				row("  ->", within(hostPort(b.Address, b.Port), b.VNI), b.Name, b.Forward, b.Weight, b.Active, b.Inactive, b.Conns, condition(b))
			}
		}
	})
}

// serving is how many of a service's backends take new connections.
func serving(s control.ServiceView) string {
	n := 0
	for _, b := range s.Backends {
		if b.State == "up" || b.State == "slow_start" {
			n++
		}
	}
	return fmt.Sprintf("%d/%d up", n, len(s.Backends))
}

// condition is a backend's state and why it is in it: "down 14s: connect: connection refused".
func condition(b control.BackendView) string {
	since := (time.Duration(b.SinceS) * time.Second).String()
	switch b.State {
	case "slow_start":
		return fmt.Sprintf("slow start, %d%% of its weight", b.Share)
	case "drain":
		s := fmt.Sprintf("drain %s, %d left", since, b.Left)
		if b.EndsInS > 0 {
			s += fmt.Sprintf(", ends in %v", time.Duration(b.EndsInS)*time.Second)
		}
		return s
	case "drained":
		return fmt.Sprintf("drained, %d left: %s", b.Left, b.Why)
	case "down":
		return fmt.Sprintf("down %s: %s", since, b.Why)
	}
	if c := b.Check; c != nil && c.Why != "" {
		return fmt.Sprintf("up, but %d of its checks: %s", c.Run, c.Why)
	}
	return b.State
}

func scheduler(s control.ServiceView) string {
	return strings.TrimSpace(s.Scheduler + " " + strings.Join(s.Flags, ","))
}

func endpoint(s control.ServiceView) string {
	at := hostPort(s.VIP, s.Port)
	if s.PortTo > s.Port {
		at = fmt.Sprintf("%s-%d", at, s.PortTo)
	}
	return within(at, s.VNI)
}

// within is what is in a segment, 0 for none: 172.16.1.100:80@5001.
func within(at string, vni uint32) string {
	if vni == 0 {
		return at
	}
	return fmt.Sprintf("%s@%d", at, vni)
}

// hostPort is address:port, with brackets around an IPv6 address.
func hostPort(address interface{ String() string }, port uint16) string {
	a := address.String()
	if strings.Contains(a, ":") {
		a = "[" + a + "]"
	}
	return fmt.Sprintf("%s:%d", a, port)
}

func printStats(w io.Writer, s control.Stats) {
	v := s.Verdicts
	fmt.Fprintf(w, "generation %d\n\n", s.Generation)
	table(w, func(row func(...any)) {
		row("RECEIVED", "= FORWARDED", "+ ANSWERED", "+ PUNTED", "+ CONSUMED", "+ DROPPED", "+ HELD", "", "SENT BESIDES", "PASSED")
		row(v.Received, v.Forwarded, v.Answered, v.Punted, v.Consumed, v.Dropped, v.Held, "", s.Sent, s.Passed)
	})
	fmt.Fprintln(w)
	table(w, func(row func(...any)) {
		row("PROTO", "VIP:PORT / BACKEND", "CONNS", "IN PKTS", "OUT PKTS", "IN BYTES", "OUT BYTES")
		for _, x := range s.Services {
			row(x.Protocol, endpoint(x), x.Conns, x.InPackets, x.OutPackets, x.InBytes, x.OutBytes)
			for _, b := range x.Backends {
				row("  ->", within(hostPort(b.Address, b.Port), b.VNI), b.Conns, b.InPackets, b.OutPackets, b.InBytes, b.OutBytes)
			}
		}
	})
	if v.Dropped > 0 {
		fmt.Fprintln(w)
		printDrops(w, s.Drops)
	}
}

func printRates(w io.Writer, r control.Rates) {
	table(w, func(row func(...any)) {
		row("PROTO", "VIP:PORT / BACKEND", "CONNS/S", "IN PKTS/S", "OUT PKTS/S", "IN BIT/S", "OUT BIT/S")
		line := func(proto, at string, x control.Rate) {
			row(proto, at, number(x.Conns), number(x.InPackets), number(x.OutPackets), number(8*x.InBytes), number(8*x.OutBytes))
		}
		for _, s := range r.Services {
			line(s.Protocol, endpoint(control.ServiceView{VIP: s.VIP, VNI: s.VNI, Port: s.Port, PortTo: s.PortTo}), s.Rate)
			for _, b := range s.Backends {
				line("  ->", within(hostPort(b.Address, b.Port), b.VNI), b.Rate)
			}
		}
	})
}

// number prints x with K, M or G of a thousand, as ipvsadm does.
func number(x float64) string {
	for _, unit := range []string{"", "K", "M", "G"} {
		if x < 10000 {
			return fmt.Sprintf("%.0f%s", x, unit)
		}
		x /= 1000
	}
	return fmt.Sprintf("%.0fT", x)
}

func printConns(w io.Writer, conns []control.ConnView) {
	table(w, func(row func(...any)) {
		row("PROTO", "EXPIRE", "STATE", "SOURCE", "VIRTUAL", "DESTINATION", "IN PKTS", "OUT PKTS")
		for _, c := range conns {
			row(strings.ToUpper(c.Protocol), (time.Duration(c.ExpiresS) * time.Second).String(), c.State, within(c.Client.String(), c.VNI), within(c.Virtual.String(), c.VNI), within(c.Backend.String(), c.BackendVNI), c.InPackets, c.OutPackets)
		}
	})
}

func printDrops(w io.Writer, drops map[string]uint64) {
	names := make([]string, 0, len(drops))
	for name, n := range drops {
		if n > 0 {
			names = append(names, name)
		}
	}
	sort.Slice(names, func(i, j int) bool {
		if drops[names[i]] != drops[names[j]] {
			return drops[names[i]] > drops[names[j]]
		}
		return names[i] < names[j]
	})
	table(w, func(row func(...any)) {
		row("REASON", "FRAMES")
		for _, name := range names {
			row(name, drops[name])
		}
	})
}

func printPorts(w io.Writer, ports []control.PortView) {
	table(w, func(row func(...any)) {
		row("PORT", "INTERFACE", "DRIVER", "MODE", "SET UP BY", "UP", "QUEUES", "VLAN", "MTU", "MAC", "RECEIVED", "SENT", "SEND LOST", "RX LOST", "SENT LIVE", "WAKEUPS")
		for _, p := range ports {
			row(p.Name, p.Interface, p.Driver, p.Mode, p.Setup, p.Up, p.Queues, p.VLAN, p.MTU, p.MAC, p.Received, p.Sent, p.SendLost, p.RxLost, p.SentLive, p.Wakeups)
		}
	})
}

func printWorkers(w io.Writer, workers []control.WorkerView) {
	table(w, func(row func(...any)) {
		row("WORKER", "CPU", "WAIT", "RECEIVED", "VECTORS", "PER VECTOR", "ROUNDS", "SLEEPS", "HELD", "CHUNKS", "HUGE PAGES")
		for _, x := range workers {
			per := "-"
			if x.Vectors > 0 {
				per = fmt.Sprintf("%.1f", float64(x.Received)/float64(x.Vectors))
			}
			row(x.Worker, x.CPU, x.Wait, x.Received, x.Vectors, per, x.Rounds, x.Sleeps, x.Held, x.Chunks, x.Pages)
		}
	})
}

// health is 12 up, 1 down, 1 drain, 37 connections left; 9 checks.
func health(h control.HealthView) string {
	s := fmt.Sprintf("%d up", h.Up)
	for _, x := range []struct {
		n    int
		what string
	}{{h.SlowStart, "in slow start"}, {h.Down, "down"}, {h.Drained, "drained"}, {h.Drain, "drain"}} {
		if x.n > 0 {
			s += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	if h.Drain > 0 {
		s += fmt.Sprintf(", %d connections left", h.Left)
	}
	if h.Checks > 0 {
		s += fmt.Sprintf("; %d checks", h.Checks)
	}
	if h.Late > 0 {
		s += fmt.Sprintf(", of which %d began late", h.Late)
	}
	return s
}

func printStatus(w io.Writer, s control.Status) {
	table(w, func(row func(...any)) {
		row("version", s.Version)
		row("pid", s.PID)
		row("started", s.Started.Format(time.RFC3339))
		if x := s.Takeover; x != nil {
			row("taken over", fmt.Sprintf("from pid %d, %s, in %.0f ms, of which %.1f without a worker", x.PID, x.Version, x.TookMS, x.DarkUS/1e3))
		}
		row("configuration", s.Config)
		row("generation", fmt.Sprintf("%d, loaded %s", s.Generation, s.Loaded.Format(time.RFC3339)))
		row("connections", fmt.Sprintf("%d of %d", s.Connections, s.Capacity))
		row("half-open", fmt.Sprintf("%d of %d, %d gave way", s.HalfOpen, s.HalfOpenCap, s.Evicted))
		row("table memory", fmt.Sprintf("%d MiB mapped, %d MiB of them in huge pages (%s)", s.TableMemory.Bytes>>20, s.TableMemory.HugeBytes>>20, s.TableMemory.HugePages))
		row("backends", health(s.Health))
		row("last reload", s.LastReload)
		if s.Changes > 0 {
			row("changes", fmt.Sprintf("%s not in the file (`weir config changes`)", counted(s.Changes, "change", "changes")))
		}
	})
	for _, warning := range s.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
}
