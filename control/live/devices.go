package live

import (
	"fmt"
	"slices"
	"strings"

	"weir/control/config"
	"weir/dataplane/steer"
)

// devices looks at what stands behind each port.
func (x *examination) devices() {
	all, err := x.Host.Links()
	if err != nil {
		x.unseen("device", err)
		return
	}
	for i := range x.Config.Ports {
		p := &x.Config.Ports[i]
		if p.Interface == "" {
			continue
		}
		l, err := x.Host.Link(p.Interface)
		if err != nil {
			x.at(Error, "device", &p.Place, "interface", err.Error())
			continue
		}
		x.links[i] = l
		if x.owner(i) != i {
			continue
		}
		master := ""
		for _, m := range all {
			if m.Index == l.Master {
				master = m.Kind
			}
		}
		switch {
		case l.Kind == "bond" || master == "bond":
			x.at(Error, "device", &p.Place, "interface", fmt.Sprintf("%s is (part of) a bond: bonds are not supported yet", p.Interface))
		case l.Kind == "vlan":
			x.at(Error, "device", &p.Place, "interface", fmt.Sprintf("%s is a VLAN device: name the device below it, with vlan: %d", p.Interface, l.VLAN))
		case !l.Up:
			x.at(Warning, "device", &p.Place, "interface", p.Interface+" is down", "ip link set "+p.Interface+" up")
		case !l.Carrier:
			x.at(Warning, "device", &p.Place, "interface", p.Interface+" has no carrier: is its cable in, and the other end up?")
		}
		if p.Driver == "af_xdp" {
			x.queues(i)
			x.program(i)
		}
		if x.MaxMTU != 0 && l.MTU > x.MaxMTU && (p.Driver == "af_xdp" || p.Driver == "af_packet") {
			x.at(Error, "mtu", &p.Place, "interface", fmt.Sprintf("the MTU of %s is %d: a frame must fit into a page with its headroom, %d is the largest", p.Interface, l.MTU, x.MaxMTU),
				fmt.Sprintf("ip link set dev %s mtu %d", p.Interface, x.MaxMTU))
		}
		if most := nativeMTU[l.Driver]; p.Driver == "af_xdp" && p.XDPMode != "generic" && most != 0 && l.MTU > most && l.MTU <= x.MaxMTU {
			x.at(Warning, "mtu", &p.Place, "interface", tooLargeForNative(p.Interface, l.Driver, l.MTU, most), fmt.Sprintf("ip link set dev %s mtu %d", p.Interface, most))
		}
		x.offloads(i)
	}
}

// nativeMTU is the largest MTU with which a driver takes an XDP program, by its name, where that is below what weir takes (docs/hardware.md).
var nativeMTU = map[string]int{
	"i40e": 3046, "ice": 3046, "igb": 3046, "igc": 1500, "ixgbe": 3050, "ixgbevf": 3050, "mlx4_en": 3498, "mlx5_core": 3498, "ena": 3498, "gve": 2032, "vmxnet3": 3494, "atlantic": 2048,
}

func tooLargeForNative(dev, driver string, mtu, most int) string {
	return fmt.Sprintf("the MTU of %s is %d, and driver %s takes an XDP program up to %d only: it will run generic, behind the driver", dev, mtu, driver, most)
}

// queues compares the device's receive queues with the workers, as `weir run` does when it starts.
func (x *examination) queues(i int) {
	p, l := &x.Config.Ports[i], &x.links[i]
	n := max(l.Channels.Rx, 1)
	set := func(n int) string {
		if n > max(l.Channels.MaxRx, 1) {
			return "" // it cannot have so many
		}
		if l.Channels.Combined {
			return fmt.Sprintf("ethtool -L %s combined %d", p.Interface, n)
		}
		return fmt.Sprintf("ethtool -L %s rx %d tx %d", p.Interface, n, n)
	}
	switch {
	case !p.Queues.All:
		if last := p.Queues.List[len(p.Queues.List)-1]; last >= n {
			x.at(Error, "queues", &p.Place, "queues", fmt.Sprintf("%s has no receive queue %d, it receives on %d", p.Interface, last, n), set(last+1))
		} else if x.Workers != 0 && len(p.Queues.List) != x.Workers {
			x.at(Error, "queues", &p.Place, "queues", fmt.Sprintf("%d queues are given, but there are %d workers: each has one of them", len(p.Queues.List), x.Workers))
		}
	case x.Workers == 0 || n == x.Workers:
	default:
		x.at(Error, "queues", &p.Place, "queues", fmt.Sprintf("%s receives on %d queues, but there are %d workers: what comes on the others would be lost, or a worker idle (or engine.workers: %d)",
			p.Interface, n, x.Workers, n), set(x.Workers))
	}
}

// program looks for somebody else's XDP program, which a device has room for one of.
func (x *examination) program(i int) {
	p := &x.Config.Ports[i]
	id, generic, err := x.Host.XDP(p.Interface)
	if err != nil {
		x.unseen("xdp", err)
		return
	}
	if id == 0 {
		return
	}
	switch ours, err := steer.Ours(id); {
	case ours:
		return // also a dead weir's, which the next start adopts
	case err != nil:
		x.unseen("xdp", err)
		return
	}
	mode := "xdpdrv"
	if generic {
		mode = "xdpgeneric"
	}
	x.at(Error, "xdp", &p.Place, "interface", fmt.Sprintf("another XDP program (%d) stands in front of %s, which has room for one (if it is attached by a link: bpftool link list, and end whose it is)", id, p.Interface),
		fmt.Sprintf("ip link set dev %s %s off", p.Interface, mode))
}

// offloads names what weir would switch off, and what no one can.
func (x *examination) offloads(i int) {
	p := &x.Config.Ports[i]
	on, stuck, err := x.Host.UnwantedOffloads(p.Interface)
	if err != nil {
		x.unseen("offloads", err)
		return
	}
	tags := false
	for j := range x.Config.Ports {
		tags = tags || x.owner(j) == i && x.Config.Ports[j].VLAN != 0
	}
	stuck = slices.DeleteFunc(stuck, func(name string) bool {
		tag := strings.HasPrefix(name, "rx-vlan")
		return tag && !tags || !tag && p.Driver == "af_xdp" // merging frames is no matter of native XDP, nor a sum that was verified
	})
	if len(stuck) > 0 {
		x.at(Warning, "offloads", &p.Place, "interface", fmt.Sprintf("%s cannot switch off %s: tags, or where one frame ends, may not be seen", p.Interface, strings.Join(stuck, ", ")))
	}
	if len(on) > 0 && !x.Running {
		args := ""
		for _, name := range on {
			args += " " + name + " off"
		}
		x.at(Hint, "offloads", &p.Place, "interface", fmt.Sprintf("weir will switch off %s on %s, and on again when it ends", strings.Join(on, ", "), p.Interface), "ethtool -K "+p.Interface+args)
	}
}

// mtus compares what the configuration says of MTUs with the devices, and access ports with their tunnels.
func (x *examination) mtus() {
	links, seen := x.Config.WrittenLinks(), make([]config.Link, len(x.links))
	for i := range x.links {
		p, l := &x.Config.Ports[i], &x.links[i]
		if l.Index == 0 {
			continue
		}
		if p.MTU > l.MTU {
			x.at(Warning, "mtu", &p.Place, "mtu", fmt.Sprintf("the MTU of %s is %d; that holds", p.Interface, l.MTU), fmt.Sprintf("ip link set dev %s mtu %d", p.Interface, p.MTU))
		}
		if links[i].MTU == 0 || l.MTU < links[i].MTU {
			links[i].MTU = l.MTU
		}
		seen[i].Addresses = l.Addresses
		links[i].Addresses = append(links[i].Addresses, l.Addresses...)
	}
	told := x.Config.MTUWarnings(x.Config.WrittenLinks())
	for _, d := range x.Config.MTUWarnings(links) {
		if !slices.Contains(told, d) {
			x.diagnostic("mtu", d, d.Cure)
		}
	}
	for _, d := range x.Config.AccessWarnings(seen) {
		x.diagnostic("access", d, d.Cure)
	}
}
