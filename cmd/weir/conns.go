package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"weir/control"
)

// connFilters are the flags that say which connections are meant.
var connFilters = []string{"service", "backend", "client", "state"}

// connFilterFlags are those flags; what says what becomes of the connections.
func connFilterFlags(c *cobra.Command, what string) {
	c.Flags().String("service", "", what+" of this service: its name, VIP, or VIP:PORT")
	c.Flags().String("backend", "", what+" to this server: its name, address, or ADDRESS:PORT")
	c.Flags().String("client", "", what+" of this client: ADDRESS, PREFIX, or ADDRESS:PORT")
	c.Flags().String("state", "", what+" in this state, such as ESTABLISHED")
}

func connsDel() *cobra.Command {
	c := &cobra.Command{
		Use:   "del (--service S | --backend B | --client C | --state S | --all) ...",
		Short: "Forget connections, as conntrack -D does: nobody is told",
		Long: "Forget connections, as conntrack -D does: nobody is told. What comes of a TCP connection afterwards is of none, so the client's next segment is\n" +
			"answered with RST; a datagram is scheduled anew. Persistence templates are connections here: their state is TEMPLATE.",
		Example: "  weir conns del --client 198.18.128.7\n  weir conns del --service web --backend w1 --state established\n  weir conns del --all -o json",
		Args:    cobra.NoArgs,
	}
	connFilterFlags(c, "those")
	all := c.Flags().Bool("all", false, "every connection there is")
	limit := c.Flags().Int("limit", 0, "at most so many, 0: all")
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		q := url.Values{}
		for _, name := range connFilters {
			if f := c.Flags().Lookup(name); f.Changed {
				q.Set(name, f.Value.String())
			}
		}
		switch {
		case len(q) == 0 && !*all:
			return usage(errors.New("say which: --service, --backend, --client or --state; or --all"))
		case len(q) > 0 && *all:
			return usage(errors.New("--all is every connection: leave out the others"))
		case *limit < 0:
			return usage(fmt.Errorf("--limit %d: must not be negative", *limit))
		case *all:
			q.Set("all", "true")
		}
		if *limit > 0 {
			q.Set("limit", fmt.Sprint(*limit))
		}
		return entries(c, *output, "deleted", func(client *control.Client) (control.Changed, error) { return client.DeleteConns(q) })
	}
	return c
}

func statsZero() *cobra.Command {
	c := &cobra.Command{
		Use:   "zero [SERVICE]",
		Short: "Show the counters of services from zero on, as ipvsadm -Z does",
		Long: "Show the counters of a service and its backends, or of all services, from zero on: connections opened, packets, bytes. Metrics go on counting, and so do\n" +
			"verdicts and drops, whose sum is the frames received.",
		Example: "  weir stats zero\n  weir stats zero web",
		Args:    cobra.MaximumNArgs(1),
	}
	output := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		service := ""
		if len(args) > 0 {
			if service = args[0]; service == "" {
				return usage(errors.New("SERVICE is empty: leave it out for all"))
			}
		}
		return entries(c, *output, "services zeroed:", func(client *control.Client) (control.Changed, error) { return client.Zero(service) })
	}
	return c
}

// entries has the daemon change entries of something, and prints how many.
func entries(c *cobra.Command, output, done string, ask func(*control.Client) (control.Changed, error)) error {
	if output != "table" && output != "json" {
		return usage(fmt.Errorf("-o %s: %s has table and json", output, c.CommandPath()))
	}
	socket, _ := c.Flags().GetString("socket")
	x, err := ask(control.NewClient(socket))
	if err != nil {
		return err
	}
	if output == "json" {
		return json.NewEncoder(os.Stdout).Encode(x)
	}
	fmt.Println(done, x.Entries)
	return nil
}
