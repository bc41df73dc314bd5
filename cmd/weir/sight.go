package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weir/control"
)

// filterFlags are the conditions that capture and trace have in common.
func filterFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringArray("host", nil, "address or prefix: of the packet as it came, as it leaves, or of its server")
	f.StringArray("port", nil, "TCP, UDP or SCTP port, likewise")
	f.StringArray("proto", nil, "tcp, udp, sctp, icmp, icmp6, esp, ah, gre or a number")
	f.StringArray("service", nil, "name, VIP, or VIP:PORT of a service")
	f.StringArray("drop", nil, "dropped for this reason, such as no_backend")
	f.StringArray("on", nil, "port of weir that it came or left by, such as wan")
	f.StringArray("stage", nil, "received, sent or dropped")
	f.IntP("count", "c", 0, "end after so many packets, 0: do not")
	f.Duration("duration", time.Hour, "end after so long, 24h at most")
	f.Int("rate", 10_000, "see so many packets a second at most, and count the others")
}

// asked are the flags that were given, as the daemon takes them.
func asked(c *cobra.Command) url.Values {
	q := url.Values{}
	for _, name := range []string{"host", "port", "proto", "service", "drop", "on", "stage"} {
		if f := c.Flags().Lookup(name); f.Changed {
			q[name], _ = c.Flags().GetStringArray(name)
		}
	}
	for _, name := range []string{"count", "duration", "rate", "snaplen"} {
		if f := c.Flags().Lookup(name); f != nil && f.Changed {
			q.Set(name, f.Value.String())
		}
	}
	return q
}

const filterHelp = "\n\nA condition that is given several times is fulfilled by any of its values; different conditions must all be fulfilled.\n" +
	"It ends by ^C, --count or --duration; four captures and traces may run at once. What cannot be shown in time is counted, and said at the end."

func captureCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "capture -w FILE",
		Short: "Write packets as they came and as they left to a pcapng file, with what was decided as comments",
		Long: "Write packets as they came and as they left to a pcapng file, with service, backend, verdict and drop reason as comments of the packets." +
			filterHelp,
		Example: "  weir capture -w a.pcapng --service web --count 100\n  weir capture -w - --drop no_backend --duration 10s | tshark -r - -T fields -e frame.comment",
		Args:    cobra.NoArgs,
	}
	filterFlags(c)
	file := c.Flags().StringP("write", "w", "", "the file, - for standard output")
	c.Flags().Int("snaplen", 0, "keep so many bytes of a packet, 0: all")
	c.RunE = func(c *cobra.Command, _ []string) error {
		out := os.Stdout
		switch {
		case *file == "":
			return usage(errors.New("where to? -w FILE, or -w - (weir trace shows packets in words)"))
		case *file == "-":
			if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
				return usage(errors.New("-w -: standard output is a terminal; pcapng is for a file or a pipe"))
			}
		}
		return follow(c, "/capture", func(body io.Reader) (err error) {
			if *file != "-" {
				if out, err = os.OpenFile(*file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil { // payload is private
					return err
				}
				defer func() { err = errors.Join(err, out.Close()) }()
			}
			_, err = io.Copy(out, body)
			return err
		})
	}
	return c
}

func traceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trace",
		Short: "Tell, packet by packet, what was decided and why",
		Long: "Tell, packet by packet, what was decided and why: port, service, connection, the scheduler's choice, next hop, what left, or why nothing did." +
			filterHelp,
		Example: "  weir trace --host 198.18.128.7 --count 10\n  weir trace --stage dropped --service web -o json",
		Args:    cobra.NoArgs,
	}
	filterFlags(c)
	output := c.Flags().StringP("output", "o", "text", "text, or json: one object a line")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *output != "text" && *output != "json" {
			return usage(fmt.Errorf("-o %s: trace has text and json", *output))
		}
		return follow(c, "/trace", func(body io.Reader) error {
			if *output == "json" {
				_, err := io.Copy(os.Stdout, body)
				return err
			}
			for d := json.NewDecoder(body); ; {
				var v control.TraceView
				if err := d.Decode(&v); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				if err := printTrace(os.Stdout, &v); err != nil {
					return err
				}
			}
		})
	}
	return c
}

// follow gives what the daemon writes to take until it ends. ^C asks the daemon to end it; a second one does not wait for that.
func follow(c *cobra.Command, path string, take func(io.Reader) error) error {
	socket, _ := c.Flags().GetString("socket")
	client := control.NewClient(socket)
	resp, err := client.Stream(path, asked(c))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- take(resp.Body) }()
	for n := 0; ; n++ {
		select {
		case err := <-done:
			if errors.As(err, new(*fs.PathError)) {
				return err // of our own file: the daemon has no part in it
			}
			return errors.Join(err, summarize(resp))
		case <-signals:
			if n > 0 || client.EndSight(resp) != nil {
				resp.Body.Close()
				<-done
				return nil
			}
		}
	}
}

// summarize says on standard error how many packets there were.
func summarize(resp *http.Response) error {
	shown := resp.Trailer.Get("Weir-Shown")
	if shown == "" {
		return errors.New("the daemon has ended it before its end")
	}
	fmt.Fprintf(os.Stderr, "%s packets\n", shown)
	if missed := resp.Trailer.Get("Weir-Missed"); missed != "" {
		fmt.Fprintln(os.Stderr, missed)
	}
	return nil
}

// printTrace prints one packet as a block of lines.
func printTrace(w io.Writer, v *control.TraceView) error {
	b := bufio.NewWriter(w)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "    %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	if v.Missed != "" {
		fmt.Fprintln(b, v.Missed)
		return b.Flush()
	}
	f := v.Frame
	if f == nil {
		f = v.Sent
	}
	what := ""
	switch v.Event {
	case "waited":
		what = "has waited: "
	case "also":
		what = "left, too: "
	}
	fmt.Fprintf(b, "%s %s %s%s, %d bytes\n", v.Time.Format("15:04:05.000000"), f.Port, what, f.Packet, f.Bytes)
	if v.Event == "also" {
		return b.Flush()
	}
	if v.Steered != "" {
		line("steering", "%s", v.Steered)
	}
	if v.VNI != 0 {
		line("segment", "%d", v.VNI)
	}
	switch {
	case v.Service != "":
		line("service", "%s, %s", v.Service, v.Scheduler)
	case v.VIP:
		line("service", "none: the address is a VIP, but has no service with this protocol and port")
	}
	if x := v.Connection; x != nil {
		s := map[string]string{"known": "known", "new": "new", "reopened": "the old one ended, a new one", "one_packet": "of this packet alone"}[x.Fate]
		if x.Was != "" {
			s += ", " + x.Was + " ->"
		}
		s += fmt.Sprintf(" %s, %s -> %s, from the %s", x.State, x.Client, x.Virtual, x.Way)
		if x.Related {
			s += ", an error about it"
		}
		line("connection", "%s", s)
	} else if v.Service != "" {
		line("connection", "none")
	}
	if x := v.Backend; x != nil {
		s := strings.TrimSpace(fmt.Sprintf("%s by %s", within(hostPort(x.Address, x.Port), x.VNI), x.Forward))
		if c := v.Connection; c != nil && c.Fate != "known" {
			by := v.Scheduler + " chose it"
			if c.Sticks {
				by = "the client sticks to it"
			}
			s += fmt.Sprintf(", %s (weight %d, now %d active, %d inactive)", by, x.Weight, x.Active, x.Inactive)
		}
		line("server", "%s %s", x.Name, s)
	}
	if x := v.NextHop; x != nil {
		s := ""
		if !x.Known {
			s = ", whose MAC address is not known yet"
		}
		line("way", "port %s, next hop %s%s", x.Port, x.Address, s)
	}
	if x := v.Sent; x != nil {
		own := ""
		if x.Own {
			own = ", made by weir"
		}
		line("sent", "%s %s, %d bytes%s", x.Port, x.Packet, x.Bytes, own)
		if v.Unseen > 0 {
			line("", "and %d more", v.Unseen)
		}
	}
	if v.Drop != "" {
		line("verdict", "dropped, %s: %s", v.Drop, v.Why)
	} else {
		line("verdict", "%s", v.Verdict)
	}
	return b.Flush()
}
