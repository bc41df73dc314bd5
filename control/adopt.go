package control

import (
	"maps"
	"net/netip"
	"slices"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// maxAdopted is how many VTEPs a segment takes for peers that the configuration does not name.
const maxAdopted = 1024

// adopted are the VTEPs that sent into an open segment and were made peers of it, so that the stations behind them are learned: when that was,
// or when a station was last behind them. Nothing is flooded to them, as with Linux.
type adopted map[netip.Addr]vxlan.Second

// peers are all of a segment: those of the configuration, those that a static station is behind, to which nothing need be flooded, and those
// that were adopted.
func (a adopted) peers(c *config.Segment) (all []netip.Addr) {
	known := map[netip.Addr]bool{}
	add := func(p netip.Addr) {
		if !known[p] {
			known[p] = true
			all = append(all, p)
		}
	}
	for i := range c.Peers {
		add(c.Peers[i].Address)
	}
	for i := range c.FDB {
		add(c.FDB[i].VTEP)
	}
	if !adopts(c) {
		clear(a)
	}
	for p := range a {
		if known[p] || p == c.VTEP || p.Is4() != c.VTEP.Is4() {
			delete(a, p)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(a), netip.Addr.Compare) {
		add(p)
	}
	return all
}

// adopts reports whether strangers can become peers of a segment.
func adopts(c *config.Segment) bool { return c.Accept == "any" && c.Learning }

// adopt makes peers of the strangers that have sent into an open segment since before, and forgets those that no station has been behind
// for the segment's ageing time. It reports whether the segments have to be made anew.
func (o *overlay) adopt(cfg *config.Config, now vxlan.Second) (changed bool) {
	open := map[uint16]*config.Segment{}
	for i := range cfg.VXLAN.Segments {
		if c := &cfg.VXLAN.Segments[i]; adopts(c) {
			open[o.segments[c.VNI].index] = c
		}
	}
	if len(open) == 0 {
		return false
	}
	strangers, _ := o.strangers.List()
	for _, s := range strangers {
		c := open[s.Segment]
		if c == nil || int32(now-s.Seen) > strangerTime || s.Addr == c.VTEP || config.NotUnicast(s.Addr) != "" {
			continue
		}
		n := o.segments[c.VNI]
		if len(n.adopted) < maxAdopted && !slices.Contains(n.peers, s.Addr) {
			n.adopted[s.Addr] = now
			changed = true
		}
	}
	for _, c := range open {
		changed = o.disown(c, now) || changed
	}
	return changed
}

// strangerTime is for how many seconds a stranger that is not heard of any more can still be adopted: its frame may have come just before control
// looked.
const strangerTime = 2

// disown forgets adopted peers that are of no use any more.
func (o *overlay) disown(c *config.Segment, now vxlan.Second) (changed bool) {
	n := o.segments[c.VNI]
	idle := false
	for _, since := range n.adopted {
		idle = idle || uint32(now-since) > uint32(c.Ageing.Seconds())
	}
	if !idle {
		return false
	}
	o.stations.Range(func(s vxlan.Station) bool {
		if i, ok := s.Place.Peer(); ok && s.Segment == n.index && int(i) < len(n.peers) {
			if _, is := n.adopted[n.peers[i]]; is {
				n.adopted[n.peers[i]] = now
			}
		}
		return true
	})
	for p, since := range n.adopted {
		if uint32(now-since) > uint32(c.Ageing.Seconds()) {
			delete(n.adopted, p)
			changed = true
		}
	}
	return changed
}

// adopt lets strangers in, see overlay.adopt. The configuration stays, so this is a snapshot in other surroundings.
func (c *Control) adopt() {
	c.mu.Lock()
	o := c.reg.overlay
	changed := o != nil && o.adopt(c.cfg, vxlan.SecondOf(dataplane.Monotonic()))
	c.mu.Unlock()
	if !changed {
		return
	}
	c.republish("VTEPs that are no configured peers came, or went")
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := o.settle(c.cfg, dataplane.Monotonic()); err != nil {
		c.log.Error("overlay", "kind", "vxlan", "err", err)
	}
}

// checksums are what a tunnel is told of its UDP checksums: made also over IPv4, or not even over IPv6.
func checksums(c config.Checksum) (made, never bool) {
	return c == config.ChecksumMade, c == config.ChecksumNever
}

// vtepList are the addresses and ports that tunnels of ours end at, each once.
type vtepList []steer.VTEP

func (l *vtepList) add(a netip.Addr, c *config.Segment) {
	i := slices.IndexFunc(*l, func(v steer.VTEP) bool { return v.Addr == a && v.Port == c.Port })
	if i < 0 {
		i = len(*l)
		*l = append(*l, steer.VTEP{Addr: a, Port: c.Port})
	}
	(*l)[i].VNIs = append((*l)[i].VNIs, c.VNI)
}
