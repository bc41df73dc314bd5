package control

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/steer"
	"weir/vxlan"
)

// Sizes of the tables of the overlay, in entries. Pages that were never used cost nothing.
const (
	maxSegments = config.MaxSegments
	maxStations = config.MaxStations
	maxHosts    = 1 << 16
)

// overlay is what outlives a reload of the VXLAN segments: what was learned, and the numbers by which segments, peers and access ports
// are known there.
type overlay struct {
	stations  *vxlan.FDB
	hosts     *vxlan.Neighbors
	strangers *vxlan.Strangers
	twins     *vxlan.Twins
	entropy   vxlan.Entropy
	segments  map[uint32]*numbered // by VNI
	statics   map[station]vxlan.Place
	runtime   map[runtimeStation]StationPlace // those of statics that a request added
	settled   map[uint16]meaning              // by segment index: what the entries in the tables are about
}

// meaning is what a segment's index, and the indices of its peers and access ports, stood for when entries were learned.
type meaning struct {
	vni uint32
	numbered
}

// numbered is a segment's number and those within it. An index that is free is reused.
type numbered struct {
	index   uint16
	peers   []netip.Addr   // by peer index; invalid: free
	access  []vxlan.Access // by access index
	adopted adopted
	floods  *vxlan.Gate
	counts  dataplane.SegmentCounts
}

func (n *numbered) clone() *numbered {
	c := *n
	c.peers, c.access, c.adopted, c.counts = slices.Clone(n.peers), slices.Clone(n.access), maps.Clone(n.adopted), countsOf(n)
	return &c
}

// countsOf are n's counters as a snapshot holds them: the lists are its own, for n's may change, the counters the same.
func countsOf(n *numbered) dataplane.SegmentCounts {
	c := n.counts
	c.Peers, c.Access = slices.Clone(c.Peers), slices.Clone(c.Access)
	return c
}

type station struct {
	segment uint16
	mac     vxlan.MAC
}

func newOverlay(seed uint64) (*overlay, error) {
	secret := [2]uint64{seed ^ 0x9e3779b97f4a7c15, ^seed}
	stations, err := vxlan.NewFDB(vxlan.FDBOptions{Capacity: maxStations, Segments: maxSegments, Secret: secret})
	if err != nil {
		return nil, err
	}
	hosts, err := vxlan.NewNeighbors(vxlan.NeighborsOptions{Capacity: maxHosts, Segments: maxSegments, Secret: secret})
	if err != nil {
		return nil, err
	}
	return &overlay{stations: stations, hosts: hosts, strangers: vxlan.NewStrangers(secret), twins: vxlan.NewTwins(maxSegments), entropy: vxlan.NewEntropy(secret),
		segments: map[uint32]*numbered{}, statics: map[station]vxlan.Place{}, runtime: map[runtimeStation]StationPlace{}, settled: map[uint16]meaning{}}, nil
}

// clone is a copy whose numbers may change; the tables are the same.
func (o *overlay) clone() *overlay {
	if o == nil {
		return nil
	}
	c := *o
	c.segments, c.statics, c.runtime = map[uint32]*numbered{}, maps.Clone(o.statics), maps.Clone(o.runtime)
	for vni, n := range o.segments {
		c.segments[vni] = n.clone()
	}
	return &c
}

// compileOverlay brings the numbers in line with the configuration and makes its segments. It returns nil where there are none, and none were.
func (r *registry) compileOverlay(cfg *config.Config, rules *steer.Rules) (*dataplane.Overlay, error) {
	if r.overlay == nil && len(cfg.VXLAN.Segments) == 0 {
		return nil, nil
	}
	if r.overlay == nil {
		var err error
		if r.overlay, err = newOverlay(r.seed); err != nil {
			return nil, err
		}
	}
	o := r.overlay
	out := &dataplane.Overlay{Access: make([]bool, len(cfg.Ports)), Stations: o.stations, Hosts: o.hosts, Strangers: o.strangers, Twins: o.twins, Entropy: o.entropy}
	var list []*vxlan.Segment
	var vteps vtepList
	known := map[uint32]bool{}
	for i := range cfg.VXLAN.Segments {
		known[cfg.VXLAN.Segments[i].VNI] = true
	}
	maps.DeleteFunc(o.segments, func(vni uint32, n *numbered) bool { return !known[vni] })
	for i := range cfg.VXLAN.Segments {
		c := &cfg.VXLAN.Segments[i]
		n, err := o.number(cfg, c, max(r.workers, 1))
		if err != nil {
			return nil, err
		}
		s, err := segmentOf(cfg, c, n)
		if err != nil {
			return nil, fmt.Errorf("vxlan.segments[%d]: %w", i, err)
		}
		list = append(list, s)
		for len(out.ByIndex) <= int(n.index) {
			out.ByIndex, out.Counts = append(out.ByIndex, nil), append(out.Counts, dataplane.SegmentCounts{})
		}
		out.ByIndex[n.index], out.Counts[n.index] = s, countsOf(n)
		for _, a := range n.access {
			if a.Used {
				out.Access[a.Port] = true
				rules.Ports[a.Port].Access = append(rules.Ports[a.Port].Access, a.VLAN)
				rules.Ports[a.Port].Trunk = rules.Ports[a.Port].Trunk || c.KeepTags && a.VLAN == 0
			}
		}
		vteps.add(c.VTEP, c)
		if c.Group.IsValid() {
			vteps.add(c.Group, c)
			p := &rules.Ports[portNamed(cfg, c.GroupInterface)]
			p.Groups = append(slices.Clone(p.Groups), vxlan.GroupMAC(c.Group))
		}
	}
	o.reach(cfg, out, rules)
	out.Ends, out.EndPorts = endsOf(list)
	rules.VTEPs = vteps
	for _, v := range vteps {
		addr, v6 := dataplane.AddrOf(v.Addr)
		out.VTEPs = append(out.VTEPs, dataplane.VTEP{Addr: addr, V6: v6, Port: v.Port})
	}
	var err error
	out.Segments, err = vxlan.NewSegments(list)
	return out, err
}

// number gives a segment, its peers and its access ports their numbers, and counters for that many workers. What stays keeps its own, what
// gets the number of another begins at zero: counters that a worker with an older snapshot still writes are nobody's then.
func (o *overlay) number(cfg *config.Config, c *config.Segment, workers int) (*numbered, error) {
	n := o.segments[c.VNI]
	if n == nil {
		taken := map[uint16]bool{}
		for _, x := range o.segments {
			taken[x.index] = true
		}
		n = &numbered{adopted: adopted{}, floods: new(vxlan.Gate),
			counts: dataplane.SegmentCounts{Segment: make([]dataplane.SegmentCounters, workers), Group: make([]dataplane.PlaceCounters, workers)}}
		for taken[n.index] {
			n.index++
		}
		if n.index >= maxSegments {
			return nil, fmt.Errorf("more than %d segments", maxSegments)
		}
		o.segments[c.VNI] = n
	}
	peers := n.adopted.peers(c)
	for i := range n.peers {
		if !slices.Contains(peers, n.peers[i]) {
			n.peers[i] = netip.Addr{}
		}
	}
	for _, p := range peers {
		if slices.Contains(n.peers, p) {
			continue
		}
		if free := slices.Index(n.peers, netip.Addr{}); free >= 0 {
			n.peers[free], n.counts.Peers[free] = p, make([]dataplane.PlaceCounters, workers)
		} else {
			n.peers, n.counts.Peers = append(n.peers, p), append(n.counts.Peers, make([]dataplane.PlaceCounters, workers))
		}
	}
	var access []vxlan.Access
	for _, a := range c.Access {
		port := portNamed(cfg, a.Port)
		access = append(access, vxlan.Access{Port: uint16(port), VLAN: max(a.VLAN, cfg.Ports[port].VLAN), Used: true}) // one of them is 0
	}
	for i := range n.access {
		if !slices.Contains(access, n.access[i]) {
			n.access[i] = vxlan.Access{}
		}
	}
	for _, a := range access {
		if slices.Contains(n.access, a) {
			continue
		}
		if free := slices.Index(n.access, vxlan.Access{}); free >= 0 {
			n.access[free], n.counts.Access[free] = a, make([]dataplane.PlaceCounters, workers)
		} else {
			n.access, n.counts.Access = append(n.access, a), append(n.counts.Access, make([]dataplane.PlaceCounters, workers))
		}
	}
	return n, nil
}

func segmentOf(cfg *config.Config, c *config.Segment, n *numbered) (*vxlan.Segment, error) {
	x := &cfg.VXLAN
	checksum, none := checksums(c.UDPChecksum)
	o := vxlan.SegmentOptions{
		TunnelOptions: vxlan.TunnelOptions{
			VNI: c.VNI, Local: c.VTEP, Port: c.Port, SourcePorts: [2]uint16{x.SourcePorts.From, x.SourcePorts.To}, Checksum: checksum, ZeroChecksum6: none,
			TTL: c.TTL.Value, InheritTTL: c.TTL.Inherit, DSCP: c.DSCP.Value, InheritDSCP: c.DSCP.Inherit,
		},
		Index: n.index, Access: n.access, Group: c.Group, Learning: c.Learning, Open: c.Accept == "any", BUM: n.floods,
		Suppress: c.Suppression, Gateway: gatewayOf(c.Gateway),
		Policy: vxlan.Policy{Strict: c.Strict, KeepTags: c.KeepTags},
		Clamp:  map[string]vxlan.Clamp{"true": vxlan.ClampServices, "false": vxlan.ClampNone, "all": vxlan.ClampAll}[c.MSSClamp],
	}
	if c.Group.IsValid() {
		o.GroupPort = uint16(portNamed(cfg, c.GroupInterface))
	}
	for _, addr := range n.peers {
		p := vxlan.PeerOptions{Addr: addr, NoFlood: true}
		if i := slices.IndexFunc(c.Peers, func(x config.Peer) bool { return x.Address == addr }); i >= 0 {
			p.NoFlood, p.Port = false, c.Peers[i].Port
			p.Checksum, p.ZeroChecksum6 = checksums(c.Peers[i].UDPChecksum)
			p.NoChecksum = !p.Checksum
		}
		o.Peers = append(o.Peers, p)
	}
	return vxlan.NewSegment(o)
}

// settle brings the tables in line with the segments that are published now: limits, static entries, and what is behind a peer or port that
// is gone. They are in force whatever becomes of it: the error names the static stations that there is no room for.
func (o *overlay) settle(cfg *config.Config, now int64) error {
	var errs []error
	statics := map[station]vxlan.Place{}
	second := vxlan.SecondOf(now)
	for i := range cfg.VXLAN.Segments {
		c := &cfg.VXLAN.Segments[i]
		n := o.segments[c.VNI]
		ageing := uint32(c.Ageing.Seconds())
		if n.floods.Set(c.FloodLimit.PerSecond); c.FloodLimit.PerSecond == 0 {
			n.floods.Set(-1)
		}
		o.stations.Configure(n.index, uint32(c.MaxEntries), ageing)
		o.hosts.Configure(n.index, uint32(c.MaxEntries), ageing)
		if c.Gateway != nil {
			statics[station{n.index, vxlan.MACOf(c.Gateway.MAC[:])}] = vxlan.AtGateway
		}
		for _, f := range c.FDB {
			statics[station{n.index, vxlan.MACOf(f.MAC[:])}] = vxlan.AtPeer(uint16(slices.Index(n.peers, f.VTEP)))
		}
	}
	for x, place := range o.runtime { // see AddStation
		if n := o.segments[x.vni]; n != nil {
			s := station{n.index, x.mac}
			if at, stays := n.at(cfg, place); stays && statics[s] == 0 {
				statics[s] = at
				continue
			}
		}
		delete(o.runtime, x)
	}
	for s := range o.statics {
		if _, stays := statics[s]; !stays {
			o.stations.Remove(s.segment, s.mac)
		}
	}
	o.statics = statics
	for s, at := range statics {
		if err := o.stations.Add(s.segment, s.mac, at, second); err != nil {
			errs = append(errs, err)
		}
	}
	before := o.settled
	o.settled = map[uint16]meaning{}
	for vni, n := range o.segments {
		o.settled[n.index] = meaning{vni, *n.clone()}
		if before[n.index].vni != vni {
			o.twins.Forget(n.index)
		}
	}
	o.stations.Flush(func(s vxlan.Station) bool { return !s.Static && !o.same(before[s.Segment], s) })
	o.hosts.Flush(func(h vxlan.Neighbor) bool { return before[h.Segment].vni != o.settled[h.Segment].vni })
	return errors.Join(errs...)
}

// same reports whether what an entry was learned of is still there under its index: another segment, peer or port may have it now.
func (o *overlay) same(was meaning, s vxlan.Station) bool {
	is, known := o.settled[s.Segment]
	if !known || is.vni != was.vni {
		return false
	}
	if i, ok := s.Place.Peer(); ok {
		return int(i) < len(is.peers) && int(i) < len(was.peers) && is.peers[i].IsValid() && is.peers[i] == was.peers[i]
	}
	i, ok := s.Place.Access()
	return !ok || int(i) < len(is.access) && int(i) < len(was.access) && is.access[i].Used && is.access[i] == was.access[i]
}
