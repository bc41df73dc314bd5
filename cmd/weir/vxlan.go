package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weir/control"
)

// vxlanCommand shows segments, each with its peers and access ports.
func vxlanCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "vxlan [VNI]",
		Short:   "Show segments of the overlay with their peers, access ports and counters",
		Example: "  weir vxlan\n  weir vxlan 5001 -o huawei",
		Args:    cobra.MaximumNArgs(1),
	}
	output := c.Flags().StringP("output", "o", "table", "table, json, or huawei (the layout of display vxlan vni, with a VNI of display vxlan vni N verbose)")
	c.RunE = func(c *cobra.Command, args []string) error {
		path := "/vxlan"
		if len(args) > 0 {
			vni, err := strconv.ParseUint(args[0], 10, 24)
			if err != nil || vni == 0 {
				return usage(fmt.Errorf("VNI %q: must be 1 to 16777215", args[0]))
			}
			path += "?vni=" + args[0]
		}
		return show(c, path, *output, map[string]func(io.Writer, []control.SegmentView){
			"table": func(w io.Writer, all []control.SegmentView) { printSegments(w, all, len(args) > 0) },
			"huawei": func(w io.Writer, all []control.SegmentView) {
				if len(args) > 0 {
					printHuaweiVerbose(w, all)
				} else {
					printHuawei(w, all)
				}
			},
		})
	}
	return c
}

// show asks the daemon for a view and prints it in one of its layouts, or as the JSON that the daemon gave.
func show[T any](c *cobra.Command, path, output string, layouts map[string]func(io.Writer, T)) error {
	print, ok := layouts[output]
	if !ok && output != "json" {
		return usage(fmt.Errorf("-o %s: %s has no such layout", output, c.CommandPath()))
	}
	socket, _ := c.Flags().GetString("socket")
	var raw json.RawMessage
	if err := control.NewClient(socket).Get(path, &raw); err != nil {
		return err
	}
	if output == "json" {
		_, err := os.Stdout.Write(append(raw, '\n'))
		return err
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("the daemon's answer: %w", err)
	}
	return printed(func(w io.Writer) { print(w, v) })
}

// printSegments prints one line for each segment, peer and access port; verbose adds what a line has no room for.
func printSegments(w io.Writer, all []control.SegmentView, verbose bool) {
	table(w, func(row func(...any)) {
		row("VNI", "STATE", "VTEP / PEER / PORT", "BUM", "STATIONS", "IN FRAMES", "IN BYTES", "OUT FRAMES", "OUT BYTES", "DROPPED")
		for _, s := range all {
			dropped := uint64(0)
			for _, n := range s.Drops {
				dropped += n
			}
			row(s.VNI, s.State, hostPort(s.VTEP, s.Port), bumMode(s), fmt.Sprintf("%d/%d", s.Stations.Used, s.Stations.Limit), s.InFrames, s.InBytes, s.OutFrames, s.OutBytes, dropped)
			for _, p := range s.Peers {
				how := ""
				switch {
				case p.Flooded:
					how = "flooded"
				case p.Adopted:
					how = "adopted"
				}
				row("  ->", p.State, p.Address, how, p.Stations, p.InFrames, p.InBytes, p.OutFrames, p.OutBytes, p.InDropped+p.OutDropped)
			}
			for _, a := range s.Access {
				row("  ->", "access", accessText(a), "", a.Stations, a.InFrames, a.InBytes, a.OutFrames, a.OutBytes, a.InDropped+a.OutDropped)
			}
		}
	})
	for _, s := range all {
		if s.Reason != "" {
			fmt.Fprintf(w, "VNI %d is down: %s\n", s.VNI, s.Reason)
		}
	}
	if verbose {
		for _, s := range all {
			printSegment(w, s)
		}
	}
}

// bumMode is how floods go, with the group if they go to one.
func bumMode(s control.SegmentView) string {
	if s.Group.IsValid() {
		return s.BUMMode + " " + s.Group.String()
	}
	return s.BUMMode
}

func accessText(a control.AccessView) string {
	if a.VLAN == 0 {
		return a.Port
	}
	return fmt.Sprintf("%s vlan %d", a.Port, a.VLAN)
}

// printSegment prints what the table of segments has no room for.
func printSegment(w io.Writer, s control.SegmentView) {
	fmt.Fprintln(w)
	table(w, func(row func(...any)) {
		if s.Gateway != nil {
			g, addresses := s.Gateway, ""
			for _, a := range g.Addresses {
				addresses += a.String() + ", "
			}
			row("gateway", fmt.Sprintf("%s%s, %d neighbours, %d frames", addresses, g.MAC, s.Neighbors, s.ToGateway))
			if g.Shared {
				row("", "another gateway has its MAC address, too")
			}
			if len(g.Reaches) > 0 {
				row("reaches", strings.Join(g.Reaches, ", "))
			}
		}
		learning := "off"
		if s.Learning {
			learning = fmt.Sprintf("on, kept for %d s", s.AgeingS)
		}
		x := s.Stations
		row("learning", learning)
		row("stations", fmt.Sprintf("%d, of these %d static; at most %d learned", x.Used, x.Static, x.Limit))
		row("moves", fmt.Sprintf("%d; %d stations frozen now, %d so far", x.Moves, x.Frozen, x.Flaps))
		row("refused", fmt.Sprintf("%d not learned for want of room, or too many at once", x.Refused))
		row("floods", fmt.Sprintf("%d frames, %d copies", s.Floods, s.Copies))
		for _, p := range s.Peers {
			if p.NextHop.IsValid() {
				row("way to "+p.Address.String(), fmt.Sprintf("%s by %s, %s", p.NextHop, p.Port, p.State))
			} else {
				row("way to "+p.Address.String(), "none")
			}
		}
		for _, x := range s.Strangers {
			row("stranger", fmt.Sprintf("%s sent %d frames", x.Address, x.Frames))
		}
	})
	if len(s.Drops) > 0 {
		fmt.Fprintln(w)
		printDrops(w, s.Drops)
	}
}

// printHuawei prints what `display vxlan vni` shows on a CloudEngine switch. The bridge domain that a VNI has there is here the segment itself,
// so its ID is the VNI.
func printHuawei(w io.Writer, all []control.SegmentView) {
	fmt.Fprintf(w, "Number of vxlan vni: %d\n", len(all))
	fmt.Fprintf(w, "%-15s%-17s%s\n", "VNI", "BD-ID", "State")
	fmt.Fprintln(w, strings.Repeat("-", 39))
	for _, s := range all {
		fmt.Fprintf(w, "%-15d%-17d%s\n", s.VNI, s.VNI, s.State)
	}
}

// printHuaweiVerbose prints the block that `display vxlan vni N verbose` shows (CloudEngine Command Reference, VXLAN Configuration Commands,
// "display vxlan vni"). Of a group the lists of peers are not shown there, either. There is no NVE interface here, so its index is a hyphen.
func printHuaweiVerbose(w io.Writer, all []control.SegmentView) {
	for _, s := range all {
		line := func(name string, value any) { fmt.Fprintf(w, "    %-23s: %v\n", name, value) }
		source, source6 := s.VTEP.String(), "-"
		if s.VTEP.Is6() {
			source, source6 = source6, source
		}
		line("BD ID", s.VNI)
		line("State", s.State)
		line("NVE", "-")
		line("Source Address", source)
		line("Source IPv6 Address", source6)
		line("UDP Port", s.Port)
		if s.Group.IsValid() {
			line("BUM Mode", "multicast replication")
			line("Group Address", s.Group)
			continue
		}
		line("BUM Mode", "head-end")
		line("Group Address", "-")
		var peers, peers6 []string
		for _, p := range s.Peers {
			switch {
			case !p.Flooded:
			case p.Address.Is6():
				peers6 = append(peers6, p.Address.String())
			default:
				peers = append(peers, p.Address.String())
			}
		}
		line("Peer List", orHyphen(peers))
		line("IPv6 Peer List", orHyphen(peers6))
	}
}

func orHyphen(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, " ")
}
