package host

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"weir/dataplane/route"
)

// Mirror is what the data path has to know of the host, kept up to date by the events of a watch. One goroutine uses it:
//
//	for e := range events {
//		m.Note(e)
//		// wait a little for more of them, then:
//		changed, err := m.Refresh()
//	}
//
// Neighbours change all the time and are taken from the events. Routes, links and addresses are read anew, whole, by Refresh: the
// kernel does not tell of the IPv4 routes that go with a device or an address, and lets a replaced one go without a word. That costs
// about 2.5 µs a route (BenchmarkRefresh: 22-29 ms for 10,000 on a 2-vCPU VM), so the caller should let the pause between two grow with it.
type Mirror struct {
	h      *Host
	config []Port
	stale  bool // links, addresses and routes are to be read
	all    bool // neighbours too
	moved  bool // neighbours have changed since the last Refresh
	untold bool // SetPorts has taken in what no Refresh has reported
	neigh  map[hop]Neighbor
	state  State
}

// State is the host at one moment. It is not changed any more once it is given out.
type State struct {
	Ports     PortMap
	Links     []Link // of the ports, by port index: the device that frames leave by, with the addresses of the one that holds them; the zero Link if it is gone
	Routes    []route.Route
	Locals    []netip.Prefix
	Neighbors []route.Neighbor // by port, then address
}

// NewMirror reads the host for the first time. All ports must have their devices.
func (h *Host) NewMirror(ports []Port) (*Mirror, error) {
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	if _, err := MapPorts(links, ports); err != nil {
		return nil, err
	}
	m := &Mirror{h: h, config: ports, stale: true, all: true}
	if _, err := m.Refresh(); err != nil {
		return nil, err
	}
	return m, nil
}

// State is the host as of the last Refresh.
func (m *Mirror) State() State { return m.state }

// Keeps reports whether the kernel has an entry for a next hop, and whether it is one that a [Keeper] of ours made and the kernel keeps fresh by itself
// (Linux 5.16), as far as events have told.
func (m *Mirror) Keeps(ifindex int, addr netip.Addr) (there, kept bool) {
	n, there := m.neigh[hop{ifindex, addr}]
	return there, n.ours()
}

// SetPorts makes the ports others: State is the host's as it is by them now. On an error it is what it was, and the next Refresh tries again.
func (m *Mirror) SetPorts(ports []Port) error {
	if slices.Equal(ports, m.config) {
		return nil
	}
	m.config, m.stale = ports, true
	changed, err := m.Refresh()
	m.untold = changed
	return err
}

// Note takes in one event. What it is about is in State after the next Refresh.
func (m *Mirror) Note(e Event) {
	switch e.Change {
	case ChangeAll:
		m.stale, m.all = true, true
	case ChangeLink, ChangeAddress, ChangeRoute:
		m.stale = true
	case ChangeNeighbor:
		at := hop{e.Neighbor.Ifindex, e.Neighbor.Addr}
		if e.Gone {
			delete(m.neigh, at)
		} else {
			m.neigh[at] = e.Neighbor
		}
		m.moved = true
	}
}

// Refresh reads what events said has changed, and reports if State is another than before. On an error State stays, and the next
// Refresh tries again. A port whose device is gone has the zero Link until it comes back.
func (m *Mirror) Refresh() (changed bool, err error) {
	next := m.state
	if m.stale {
		links, err := m.h.Links()
		if err != nil {
			return false, err
		}
		ports := mapPorts(links, m.config)
		next.Ports, next.Links = ports, ports.links(links)
		if next.Routes, err = m.h.routes(ports, mtus(links)); err != nil {
			return false, err
		}
		if next.Locals, err = m.h.Locals(); err != nil {
			return false, err
		}
	}
	if m.all {
		ns, err := m.h.Neighbors()
		if err != nil {
			return false, err
		}
		m.neigh = make(map[hop]Neighbor, len(ns))
		for _, n := range ns {
			m.neigh[hop{n.Ifindex, n.Addr}] = n
		}
	}
	if m.all || m.moved || m.stale {
		next.Neighbors = neighborsOf(next.Ports, m.neigh)
	}
	m.stale, m.all, m.moved = false, false, false
	changed = m.untold || !reflect.DeepEqual(next, m.state)
	m.state, m.untold = next, false
	return changed, nil
}

// neighborsOf are the entries on ports, in an order that does not change from one reading to the next.
func neighborsOf(ports PortMap, all map[hop]Neighbor) []route.Neighbor {
	var out []route.Neighbor
	keys := slices.SortedFunc(maps.Keys(all), func(a, b hop) int {
		if a.ifindex != b.ifindex {
			return a.ifindex - b.ifindex
		}
		return a.addr.Compare(b.addr)
	})
	for _, at := range keys {
		if n, ok := all[at].Route(ports); ok {
			out = append(out, n)
		}
	}
	return out
}
