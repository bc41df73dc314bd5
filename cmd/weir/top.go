package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"weir/cmd/weir/top"
	"weir/control"
)

func topCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch services, backends, workers, drops and ports, with rates",
		Long: "Watch services, backends, workers, drops and ports, with rates, on a terminal.\n\nKeys: tab or 1-5 another view; s and S sort by the next column or the one before, r reverses;\n" +
			"/ shows only rows with a word, esc all; arrows, page up and down, home and end scroll; q ends it.\nIf the daemon goes away, it says so and asks again.",
		Example: "  weir top\n  weir top --interval 5s\n  weir top --once -o json",
		Args:    cobra.NoArgs,
	}
	interval := c.Flags().Duration("interval", time.Second, "between two samples, 100ms to 1m")
	once := c.Flags().Bool("once", false, "print one sample of the interval and end; needs no terminal")
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case *output != "table" && *output != "json":
			return usage(fmt.Errorf("-o %s: top has table and json", *output))
		case *interval < 100*time.Millisecond || *interval > time.Minute:
			return usage(fmt.Errorf("--interval %s: 100ms to 1m", *interval))
		}
		socket, _ := c.Flags().GetString("socket")
		client := control.NewClient(socket)
		client.Patience = 5 * time.Second // somebody sits in front of it
		take := func() (top.Sample, error) { return top.Take(client) }
		before, err := take()
		if err != nil {
			return err
		}
		if !*once && *output == "table" {
			for _, f := range []*os.File{os.Stdin, os.Stdout} {
				if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
					return usage(errors.New("this is no terminal; --once prints one sample"))
				}
			}
			_, err := tea.NewProgram(top.New(before, before, *interval, take)).Run()
			if errors.Is(err, tea.ErrInterrupted) {
				return nil // a signal is a way to end it
			}
			return err
		}
		time.Sleep(*interval)
		now, err := take()
		switch {
		case err != nil:
			return err
		case *output == "json":
			return top.JSON(os.Stdout, &before, &now)
		}
		return top.Print(os.Stdout, top.Tables(&before, &now))
	}
	return c
}
