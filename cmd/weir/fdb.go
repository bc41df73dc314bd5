package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"

	"github.com/spf13/cobra"

	"weir/control"
)

// fdbCommand shows and changes which station of which segment is where.
func fdbCommand() *cobra.Command {
	list := fdbList()
	c := &cobra.Command{
		Use:     "fdb",
		Short:   "Show and change where the stations of segments are; alone: list",
		Example: "  weir fdb --vni 5001\n  weir fdb add --vni 5001 --mac 02:00:00:00:01:0a --vtep 192.0.2.21",
		Args:    cobra.NoArgs,
		RunE:    list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, fdbNeighbors(), fdbAdd(), fdbDel(), fdbFlush())
	return c
}

// vniFlag is --vni N.
func vniFlag(c *cobra.Command, what string) *uint32 {
	return c.Flags().Uint32("vni", 0, what)
}

// checkVNI refuses what is no VNI. Zero is that the flag was not given.
func checkVNI(c *cobra.Command, vni uint32) error {
	if c.Flags().Changed("vni") && (vni == 0 || vni >= 1<<24) {
		return usage(fmt.Errorf("--vni %d: must be 1 to 16777215", vni))
	}
	return nil
}

func fdbList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "Show stations: where they are, and since when nothing was heard of them",
		Example: "  weir fdb list --vni 5001\n  weir fdb list --mac 02:00:00:00:01:0a -o json", Args: cobra.NoArgs}
	vni := vniFlag(c, "of this segment alone")
	mac := c.Flags().String("mac", "", "this station alone")
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := checkVNI(c, *vni); err != nil {
			return err
		}
		q := query(*vni)
		if *mac != "" {
			if _, err := control.ParseMAC(*mac); err != nil {
				return usage(fmt.Errorf("--mac: %w", err))
			}
			q.Set("mac", *mac)
		}
		return show(c, "/fdb?"+q.Encode(), *output, map[string]func(io.Writer, []control.StationView){"table": printStations})
	}
	return c
}

func fdbNeighbors() *cobra.Command {
	c := &cobra.Command{Use: "neighbors", Short: "Show the hosts whose MAC addresses the gateways of segments know, or ask for",
		Example: "  weir fdb neighbors --vni 5001", Args: cobra.NoArgs}
	vni := vniFlag(c, "of this segment alone")
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := checkVNI(c, *vni); err != nil {
			return err
		}
		return show(c, "/fdb/neighbors?"+query(*vni).Encode(), *output, map[string]func(io.Writer, []control.NeighborView){"table": printNeighbors})
	}
	return c
}

func query(vni uint32) url.Values {
	q := url.Values{}
	if vni != 0 {
		q.Set("vni", fmt.Sprint(vni))
	}
	return q
}

// place are the flags that name a place in a segment.
type place struct {
	vtep, port *string
	vlan       *uint16
}

func placeFlags(c *cobra.Command) place {
	return place{c.Flags().String("vtep", "", "behind the peer with this address"), c.Flags().String("port", "", "on this access port"),
		c.Flags().Uint16("vlan", 0, "with --port: in this VLAN of it, 0: untagged")}
}

// read is the place that the flags name, the zero value if they name none.
func (p place) read(c *cobra.Command) (at control.StationPlace, err error) {
	if *p.vtep != "" {
		if at.VTEP, err = netip.ParseAddr(*p.vtep); err != nil {
			return at, usage(fmt.Errorf("--vtep %s: must be an address", *p.vtep))
		}
	}
	at.Port, at.VLAN = *p.port, *p.vlan
	switch {
	case at.VTEP.IsValid() && at.Port != "":
		return at, usage(errors.New("a station is at a --vtep or at a --port, not both"))
	case c.Flags().Changed("vlan") && at.Port == "":
		return at, usage(errors.New("--vlan: is one of a --port"))
	case at.VLAN > 4094:
		return at, usage(fmt.Errorf("--vlan %d: must be 0 to 4094", at.VLAN))
	}
	return at, nil
}

// stationChange makes a command that sends a request about one station; build completes it from its flags.
func stationChange(use, short, example, path, done string, build func(c *cobra.Command) func(*control.StationRequest) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.NoArgs}
	vni := vniFlag(c, "segment")
	complete := build(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r := control.StationRequest{VNI: *vni}
		if err := checkVNI(c, *vni); err != nil {
			return err
		}
		if err := complete(&r); err != nil {
			return err
		}
		socket, _ := c.Flags().GetString("socket")
		x, err := control.NewClient(socket).Stations(path, r)
		if err != nil {
			return err
		}
		fmt.Println(done, x.Entries)
		return nil
	}
	return c
}

// macFlag is --mac M; what it gives puts that into a request.
func macFlag(c *cobra.Command) func(*control.StationRequest) error {
	mac := c.Flags().String("mac", "", "the station's")
	_ = c.MarkFlagRequired("mac")
	_ = c.MarkFlagRequired("vni")
	return func(r *control.StationRequest) error {
		if _, err := control.ParseMAC(*mac); err != nil {
			return usage(fmt.Errorf("--mac: %w", err))
		}
		r.MAC = *mac
		return nil
	}
}

func fdbAdd() *cobra.Command {
	return stationChange("add --vni N --mac M (--vtep A | --port P [--vlan V])",
		"Say where a station is: it stays there until it is removed or weir ends, over reloads for as long as its peer or port is there",
		"  weir fdb add --vni 5001 --mac 02:00:00:00:01:0a --vtep 192.0.2.21\n  weir fdb add --vni 5001 --mac 02:00:00:00:01:0b --port tenant --vlan 7",
		"/fdb/add", "added", func(c *cobra.Command) func(*control.StationRequest) error {
			mac, p := macFlag(c), placeFlags(c)
			return func(r *control.StationRequest) (err error) {
				if err = mac(r); err != nil {
					return err
				}
				if r.StationPlace, err = p.read(c); err == nil && r.StationPlace == (control.StationPlace{}) {
					err = usage(errors.New("say where: --vtep or --port"))
				}
				return err
			}
		})
}

func fdbDel() *cobra.Command {
	return stationChange("del --vni N --mac M", "Forget a station that was learned, or added by hand",
		"  weir fdb del --vni 5001 --mac 02:00:00:00:01:0a", "/fdb/del", "removed", macFlag)
}

func fdbFlush() *cobra.Command {
	return stationChange("flush [--vni N] [--vtep A | --port P [--vlan V]]", "Forget what was learned: of all segments or one, everywhere or at one place",
		"  weir fdb flush --vni 5001\n  weir fdb flush --vni 5001 --vtep 192.0.2.21",
		"/fdb/flush", "forgotten", func(c *cobra.Command) func(*control.StationRequest) error {
			p := placeFlags(c)
			return func(r *control.StationRequest) (err error) {
				r.StationPlace, err = p.read(c)
				return err
			}
		})
}

func printStations(w io.Writer, all []control.StationView) {
	table(w, func(row func(...any)) {
		row("VNI", "MAC", "PLACE", "KIND", "AGE", "FROZEN")
		for _, s := range all {
			at, age, frozen := s.StationPlace.String(), "-", "-"
			if s.Kind == "own" {
				at = "gateway"
			}
			if s.AgeS != nil {
				age = fmt.Sprintf("%ds", *s.AgeS)
			}
			if s.FrozenS > 0 {
				frozen = fmt.Sprintf("%ds", s.FrozenS)
			}
			row(s.VNI, s.MAC, at, s.Kind, age, frozen)
		}
	})
}

func printNeighbors(w io.Writer, all []control.NeighborView) {
	table(w, func(row func(...any)) {
		row("VNI", "ADDRESS", "MAC", "STATE")
		for _, n := range all {
			mac := n.MAC
			if mac == "" {
				mac = "-"
			}
			row(n.VNI, n.Address, mac, n.State)
		}
	})
}
