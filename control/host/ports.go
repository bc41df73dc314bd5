package host

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Port is what the configuration says of a port: a device, and the 802.1Q tag that the port's traffic bears there, 0 for none.
type Port struct {
	Interface string
	VLAN      uint16
}

// PortMap ties ports, by their index in the configuration, to the device that holds their addresses, routes and neighbours: the
// device itself, or its vlan device for a port with a tag. A port with a tag for which the host has no vlan device has no such
// device: its routes and neighbours are the configuration's alone.
type PortMap struct {
	l3    []int       // by port: index of the device with the addresses; 0 if none
	wire  []int       // by port: index of the device that frames leave by
	tag   []uint16    // by port: tag to be added on wire by whoever sends there
	index map[int]int // from l3 to port
}

// MapPorts finds the ports among links. It fails if a device is not there, or if two ports are the same.
func MapPorts(links []Link, ports []Port) (PortMap, error) {
	for i, p := range ports {
		if j := slices.Index(ports[:i], p); j >= 0 {
			return PortMap{}, fmt.Errorf("ports[%d]: interface %s vlan %d is ports[%d] already", i, p.Interface, p.VLAN, j)
		}
		if !slices.ContainsFunc(links, func(l Link) bool { return l.Name == p.Interface }) {
			return PortMap{}, fmt.Errorf("ports[%d]: interface %s: not in this network namespace (see `ip link`): %w", i, p.Interface, unix.ENODEV)
		}
	}
	return mapPorts(links, ports), nil
}

// mapPorts is MapPorts for a host that runs: the port of a device that is gone has none until it comes back.
func mapPorts(links []Link, ports []Port) PortMap {
	m := PortMap{index: make(map[int]int)}
	for i, p := range ports {
		base := 0
		for _, l := range links {
			if l.Name == p.Interface {
				base = l.Index
			}
		}
		l3 := base
		if p.VLAN != 0 {
			l3 = 0
			for _, l := range links {
				if base != 0 && l.Kind == "vlan" && l.Parent == base && l.VLAN == p.VLAN {
					l3 = l.Index
				}
			}
		}
		m.l3, m.wire, m.tag = append(m.l3, l3), append(m.wire, base), append(m.tag, p.VLAN)
		if l3 != 0 {
			m.index[l3] = i
		}
	}
	return m
}

// Len is the number of ports.
func (m PortMap) Len() int { return len(m.l3) }

// Port is the index of the port whose addresses are on the device ifindex, or -1.
func (m PortMap) Port(ifindex int) int {
	if i, ok := m.index[ifindex]; ok {
		return i
	}
	return -1
}

// Ifindex is the index of the device that holds the addresses of a port, or 0.
func (m PortMap) Ifindex(port int) int {
	if port < 0 || port >= len(m.l3) {
		return 0
	}
	return m.l3[port]
}

// links are the devices that the ports' frames leave by, by port, with the addresses of those that hold them; the zero Link for one that is gone.
func (m PortMap) links(all []Link) []Link {
	out := make([]Link, len(m.wire))
	for i, index := range m.wire {
		var addresses []netip.Prefix
		for _, l := range all {
			if l.Index == index {
				out[i] = l
			}
			if l.Index == m.l3[i] {
				addresses = l.Addresses
			}
		}
		out[i].Addresses = addresses
	}
	return out
}
