package control

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/route"
	"weir/vxlan"
)

// SegmentView is one segment of the overlay.
type SegmentView struct {
	VNI       uint32       `json:"vni"`
	State     string       `json:"state"`            // up or down
	Reason    string       `json:"reason,omitempty"` // why it is down
	VTEP      netip.Addr   `json:"vtep"`             // ours
	Port      uint16       `json:"port"`             // UDP
	BUMMode   string       `json:"bum_mode"`         // head-end or multicast: how broadcast, unknown unicast and multicast frames go
	Group     netip.Addr   `json:"group,omitzero"`
	Learning  bool         `json:"learning"`
	AgeingS   int          `json:"ageing_s"`
	Gateway   *GatewayView `json:"gateway,omitempty"`
	Stations  EntriesView  `json:"stations"`
	Neighbors int          `json:"neighbors"` // that the gateway has, or asks for
	dataplane.SegmentTraffic
	Drops     map[string]uint64      `json:"drops"` // reasons that occurred
	Multicast dataplane.PlaceTraffic `json:"multicast,omitzero"`
	Peers     []PeerView             `json:"peers"`
	Access    []AccessView           `json:"access"`
	Strangers []StrangerView         `json:"strangers,omitempty"`
}

// GatewayView is our own station in a segment.
type GatewayView struct {
	Addresses []netip.Prefix `json:"addresses"`
	MAC       string         `json:"mac"`
	Shared    bool           `json:"shared,omitempty"`  // a gateway with the same MAC has been heard behind a peer
	Reaches   []string       `json:"reaches,omitempty"` // VNIs, and underlay: where packets of the segment are routed
}

// EntriesView is what a segment has of the table of stations.
type EntriesView struct {
	Used    int    `json:"used"` // static ones too
	Static  int    `json:"static"`
	Limit   int    `json:"limit"`   // of those that are learned
	Frozen  int    `json:"frozen"`  // now: they moved too often and stay where they are
	Moves   uint64 `json:"moves"`   // so far
	Flaps   uint64 `json:"flaps"`   // how often one was frozen, so far
	Refused uint64 `json:"refused"` // not learned for want of room, or because too many were new in one second
}

// PeerView is one VTEP of other's.
type PeerView struct {
	Address  netip.Addr `json:"address"`
	State    string     `json:"state"` // resolved, unresolved (the MAC address of its next hop is not known yet) or no_route
	Port     string     `json:"port,omitempty"`
	NextHop  netip.Addr `json:"next_hop,omitzero"`
	Flooded  bool       `json:"flooded"`           // in the replication list; otherwise known stations alone are behind it
	Adopted  bool       `json:"adopted,omitempty"` // a stranger that `accept: any` let in
	Stations int        `json:"stations"`
	dataplane.PlaceTraffic
}

// AccessView is one local port of a segment.
type AccessView struct {
	Port     string `json:"port"`
	VLAN     uint16 `json:"vlan"` // 0: untagged
	Stations int    `json:"stations"`
	dataplane.PlaceTraffic
}

// StrangerView is a source that sent into a segment without being its peer.
type StrangerView struct {
	Address netip.Addr `json:"address"`
	Frames  uint64     `json:"frames"`
}

// Segments are the segments in force, in the order of the configuration; vni of zero is all of them.
func (c *core) Segments(vni uint32) ([]SegmentView, error) {
	who := c.census()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments(vni, who)
}

// segments is Segments while c.mu is held.
func (c *core) segments(vni uint32, who []census) ([]SegmentView, error) {
	views, snap, o := []SegmentView{}, c.engine.Snapshot(), c.reg.overlay
	if c.cfg == nil || o == nil || snap.Overlay == nil {
		return views, c.known(vni)
	}
	strangers, _ := o.strangers.List()
	for i := range c.cfg.VXLAN.Segments {
		x := &c.cfg.VXLAN.Segments[i]
		n := o.segments[x.VNI]
		if vni != 0 && x.VNI != vni || n == nil || int(n.index) >= len(snap.Overlay.ByIndex) || snap.Overlay.ByIndex[n.index] == nil {
			continue
		}
		var there census
		if int(n.index) < len(who) {
			there = who[n.index]
		}
		v := c.segmentView(x, n, snap, &there)
		for _, s := range strangers {
			if s.Segment == n.index {
				v.Strangers = append(v.Strangers, StrangerView{s.Addr, s.Count})
			}
		}
		slices.SortFunc(v.Strangers, func(a, b StrangerView) int { return a.Address.Compare(b.Address) })
		views = append(views, v)
	}
	return views, c.known(vni)
}

// known is an error if vni is that of no segment; zero stands for all.
func (c *core) known(vni uint32) error {
	if vni == 0 {
		return nil
	}
	if c.cfg != nil && slices.ContainsFunc(c.cfg.VXLAN.Segments, func(s config.Segment) bool { return s.VNI == vni }) {
		return nil
	}
	return fmt.Errorf("%w: VNI %d", ErrNoSegment, vni)
}

// census is how many stations a segment has, by where they are.
type census struct {
	static, frozen int
	peers, access  []int // by index
}

// census counts the stations of all segments, by index. It takes some milliseconds where there are hundreds of thousands, so c.mu is not held
// meanwhile: a peer that is made anew at this moment may be shown with the stations of the one that had its index before.
func (c *core) census() (all []census) {
	c.mu.Lock()
	o := c.reg.overlay
	c.mu.Unlock()
	if o == nil {
		return nil
	}
	now := vxlan.SecondOf(c.now())
	o.stations.Range(func(s vxlan.Station) bool {
		for int(s.Segment) >= len(all) {
			all = append(all, census{})
		}
		x := &all[s.Segment]
		if s.Static {
			x.static++
		}
		if s.Frozen != 0 && int32(s.Frozen-now) > 0 {
			x.frozen++
		}
		if i, ok := s.Place.Peer(); ok {
			x.peers = count(x.peers, i)
		} else if i, ok := s.Place.Access(); ok {
			x.access = count(x.access, i)
		}
		return true
	})
	return all
}

// count adds one to n[i].
func count(n []int, i uint16) []int {
	for int(i) >= len(n) {
		n = append(n, 0)
	}
	n[i]++
	return n
}

// at is n[i], zero beyond its end.
func at(n []int, i int) int {
	if i < len(n) {
		return n[i]
	}
	return 0
}

// segmentView is what is to be seen of the segment x. c.mu is held.
func (c *core) segmentView(x *config.Segment, n *numbered, snap *dataplane.Snapshot, who *census) SegmentView {
	o, s := c.reg.overlay, snap.Overlay.ByIndex[n.index]
	traffic, drops := n.counts.Sum()
	v := SegmentView{
		VNI: x.VNI, State: "up", VTEP: x.VTEP, Port: s.Port, BUMMode: "head-end", Learning: s.Learning, AgeingS: int(x.Ageing / time.Second),
		Neighbors: o.hosts.Used(n.index), SegmentTraffic: traffic, Drops: map[string]uint64{}, Peers: []PeerView{}, Access: []AccessView{},
		Stations: EntriesView{
			Used: o.stations.Used(n.index), Static: who.static, Limit: x.MaxEntries, Frozen: who.frozen,
			Moves: o.stations.Count(n.index, vxlan.Moved), Flaps: o.stations.Flaps(n.index),
			Refused: o.refused(n.index),
		},
	}
	for d := dataplane.Drop(1); d < dataplane.NumDrops; d++ {
		if drops[d] > 0 {
			v.Drops[d.String()] = drops[d]
		}
	}
	if g := x.Gateway; g != nil {
		v.Gateway = &GatewayView{Addresses: g.Addresses, MAC: macText(g.MAC), Shared: o.twins.Heard(n.index, vxlan.SecondOf(c.now()))}
		for _, to := range g.Reaches {
			name := "underlay"
			if to.VNI != 0 {
				name = fmt.Sprint(to.VNI)
			}
			v.Gateway.Reaches = append(v.Gateway.Reaches, name)
		}
	}
	if (s.Group != vxlan.Addr{}) {
		v.BUMMode, v.Group, v.Multicast = "multicast", s.Group.Netip(s.V6), dataplane.SumPlace(n.counts.Group)
	}
	ways := 0
	for i, p := range n.peers {
		if !p.IsValid() {
			continue
		}
		w := PeerView{Address: p, Flooded: s.Peers[i].Tunnel != nil && slices.Contains(s.Flood, s.Peers[i].Tunnel),
			Stations: at(who.peers, i), PlaceTraffic: dataplane.SumPlace(n.counts.Peers[i])}
		_, w.Adopted = n.adopted[p]
		w.State, w.Port, w.NextHop = wayTo(snap, p)
		if w.State != noRoute {
			ways++
		}
		v.Peers = append(v.Peers, w)
	}
	for i, a := range n.access {
		if a.Used {
			v.Access = append(v.Access, AccessView{Port: snap.Ports[a.Port].Name, VLAN: a.VLAN, Stations: at(who.access, i),
				PlaceTraffic: dataplane.SumPlace(n.counts.Access[i])})
		}
	}
	_, ours := snap.Local[x.VTEP]
	switch {
	case !ours:
		v.State, v.Reason = "down", fmt.Sprintf("%s is no address of this host", x.VTEP)
	case len(v.Peers) == 0 && !v.Group.IsValid():
		v.State, v.Reason = "down", "there are no peers"
	case ways == 0 && !v.Group.IsValid():
		v.State, v.Reason = "down", "there is no route to any peer"
	}
	return v
}

// refused is how many stations of a segment were not learned.
func (o *overlay) refused(segment uint16) uint64 {
	return o.stations.Count(segment, vxlan.SegmentFull) + o.stations.Count(segment, vxlan.TableFull) + o.stations.Count(segment, vxlan.TooFast)
}

// States of the way to a peer.
const (
	resolved   = "resolved"
	unresolved = "unresolved"
	noRoute    = "no_route"
)

// wayTo is how far the way to a VTEP is known: as workers see it, by the first of several equal hops.
func wayTo(snap *dataplane.Snapshot, to netip.Addr) (state, port string, hop netip.Addr) {
	a, v6 := dataplane.AddrOf(to)
	e := snap.Routes.Lookup4(uint32(a.Lo))
	if v6 {
		e = snap.Routes.Lookup6(a.Hi, a.Lo)
	}
	if e == nil || e.Kind != route.Unicast {
		return noRoute, "", hop
	}
	h := e.Hop(0)
	if h == nil || h.Port < 0 || h.Port >= len(snap.Ports) {
		return noRoute, "", hop
	}
	if hop = to; h.Via.IsValid() {
		hop = h.Via
	}
	a, v6 = dataplane.AddrOf(hop)
	mac := snap.Neighbors.Lookup4(h.Port, uint32(a.Lo))
	if v6 {
		mac = snap.Neighbors.Lookup6(h.Port, a.Hi, a.Lo)
	}
	if mac == nil {
		return unresolved, snap.Ports[h.Port].Name, hop
	}
	return resolved, snap.Ports[h.Port].Name, hop
}
