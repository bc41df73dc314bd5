package config

import (
	"fmt"
	"net/netip"
)

// checkVXLAN returns the segments by VNI.
func (d *decoder) checkVXLAN(names portNames) map[uint32]*Segment {
	c := d.config
	segments := map[uint32]*Segment{}
	type link struct {
		port string
		vlan uint16
	}
	access := map[link]*Segment{}
	ours := map[netip.Addr]*Segment{} // VTEPs of this host
	for i := range c.VXLAN.Segments {
		if s := &c.VXLAN.Segments[i]; s.VTEP.IsValid() && ours[s.VTEP] == nil {
			ours[s.VTEP] = s
		}
	}
	if n := len(c.VXLAN.Segments); n > MaxSegments {
		d.errorf(c.VXLAN.Field("segments"), c.VXLAN.Path+".segments", "there can be %d segments, not %d", MaxSegments, n)
	}
	for i := range c.VXLAN.Segments {
		s := &c.VXLAN.Segments[i]
		if s.VNI != 0 {
			if first := segments[s.VNI]; first != nil {
				d.errorf(s.Field("vni"), s.Path+".vni", "duplicate segment %d, first in %s", s.VNI, d.line(first.Pos.Line))
			} else {
				segments[s.VNI] = s
			}
		}
		d.checkPeers(s, ours)
		d.checkGroup(names, s)
		d.checkTags(names, s)
		d.checkFDB(s, ours)
		if s.Gateway != nil && s.Gateway.keys != nil {
			d.checkGateway(s.Gateway)
		}
		for j := range s.Access {
			a := &s.Access[j]
			if a.Port == "" || a.bad("vlan") {
				continue
			}
			p := d.known(names, &a.Place, a.Port)
			if p != nil && p.VLAN != 0 && a.VLAN != 0 {
				d.errorf(a.Field("vlan"), a.Path+".vlan", "must be 0: port %s bears VLAN %d already", a.Port, p.VLAN)
			}
			key := link{a.Port, a.VLAN}
			if first := access[key]; first != nil {
				d.errorf(a.Pos, a.Path, "port %s with VLAN %d is in %s already", a.Port, a.VLAN, first.Path)
			} else {
				access[key] = s
			}
		}
	}
	d.checkReaches(segments)
	d.checkVTEPPorts(ours)
	return segments
}

// checkVTEPPorts refuses services that would never hear anything: the datagrams to a VTEP's port are tunnels' before they are a service's. A service of
// every port stands aside here, too.
func (d *decoder) checkVTEPPorts(ours map[netip.Addr]*Segment) {
	for i := range d.config.Services {
		s := &d.config.Services[i]
		if s.Protocol != "udp" || s.VNI != 0 || s.Port.Any() || len(ours) == 0 {
			continue
		}
		for n, vip := range s.VIPs {
			if seg := ours[vip.Addr()]; seg != nil && vip.IsSingleIP() && s.Port.From <= seg.Port && seg.Port <= s.Port.To {
				pos, path := d.item(&s.Place, "vips", n)
				if s.Given("vip") {
					pos, path = s.Field("vip"), s.Path+".vip"
				}
				d.errorf(pos, path, "UDP port %d of %s is that of the VTEP of %s", seg.Port, vip.Addr(), seg.Path)
			}
		}
	}
}

func (d *decoder) checkPeers(s *Segment, ours map[netip.Addr]*Segment) {
	seen := map[netip.Addr]bool{}
	for i := range s.Peers {
		p := &s.Peers[i]
		if !p.Address.IsValid() {
			continue
		}
		pos, path := p.Field("address"), p.Path
		d.checkVTEP(s, ours, p.Address, pos, path)
		if seen[p.Address] {
			d.errorf(pos, path, "duplicate peer %s", p.Address)
		}
		seen[p.Address] = true
	}
}

// checkGroup checks where floods go and whose frames are taken.
func (d *decoder) checkGroup(names portNames, s *Segment) {
	switch p := d.knownAs(names, &s.Place, "group_interface", s.GroupInterface); {
	case !s.Given("group") && s.Given("group_interface"):
		d.errorf(s.Field("group_interface"), s.Path+".group_interface", "is for group only")
	case s.Given("group") && !s.Given("group_interface"):
		d.errorf(s.Field("group"), s.Path+".group", "group_interface is missing: the name of the port that the group is joined on")
	case p != nil:
		for i := range s.Access {
			if a := &s.Access[i]; a.Port == s.GroupInterface && (a.VLAN == p.VLAN || p.VLAN != 0) {
				d.errorf(s.Field("group_interface"), s.Path+".group_interface", "%s is an access port of the segment: every frame of it is the segment's own", printable(a.Port))
			}
		}
	}
	if s.Group.IsValid() && s.VTEP.IsValid() && s.Group.Is4() != s.VTEP.Is4() {
		d.errorf(s.Field("group"), s.Path+".group", "%s is %s, but our VTEP is %s", s.Group, family(s.Group), family(s.VTEP))
	}
	switch {
	case s.Accept == "peers" && s.Given("accept") && s.Group.IsValid() && len(s.Peers) == 0 && !s.bad("peers"):
		d.errorf(s.Field("accept"), s.Path+".accept", "there are no peers whose frames could be taken: name them, or accept any")
	case s.Accept == "any" && !s.Learning:
		d.warnf(s.Field("learning"), s.Path+".learning", "stations behind VTEPs that are no peers stay unknown: what is for them is flooded")
	}
}

func (d *decoder) checkFDB(s *Segment, ours map[netip.Addr]*Segment) {
	seen := map[[6]byte]*FDB{}
	for i := range s.FDB {
		f := &s.FDB[i]
		if f.VTEP.IsValid() {
			d.checkVTEP(s, ours, f.VTEP, f.Field("vtep"), f.Path+".vtep")
		}
		if f.MAC == ([6]byte{}) {
			continue
		}
		if first := seen[f.MAC]; first != nil {
			d.errorf(f.Field("mac"), f.Path+".mac", "duplicate station, first in %s", d.line(first.Pos.Line))
		} else {
			seen[f.MAC] = f
		}
		if s.Gateway != nil && s.Gateway.MAC == f.MAC {
			d.errorf(f.Field("mac"), f.Path+".mac", "this is the gateway's address, which is ours")
		}
	}
	if len(s.FDB) > s.MaxEntries && !s.bad("max_entries") {
		d.errorf(s.Field("fdb"), s.Path+".fdb", "%d entries are more than max_entries, %d", len(s.FDB), s.MaxEntries)
	}
}

// checkVTEP checks another's VTEP against ours, which no way leads to.
func (d *decoder) checkVTEP(s *Segment, ours map[netip.Addr]*Segment, a netip.Addr, pos Pos, path string) {
	switch {
	case !s.VTEP.IsValid():
	case a == s.VTEP:
		d.errorf(pos, path, "%s is our own VTEP", a)
	case ours[a] != nil:
		d.errorf(pos, path, "%s is our own VTEP, of %s", a, ours[a].Path)
	case a.Is4() != s.VTEP.Is4():
		d.errorf(pos, path, "%s is %s, but our VTEP is %s", a, family(a), family(s.VTEP))
	}
}

// checkTags keeps segments apart: where a segment that keeps tags has a port's untagged frames, it has all its VLANs, and a tag from a
// tunnel may be any.
func (d *decoder) checkTags(names portNames, s *Segment) {
	if !s.KeepTags {
		return
	}
	for i := range s.Access {
		p := names.port[s.Access[i].Port]
		if p == nil || s.Access[i].VLAN != 0 || p.VLAN != 0 {
			continue
		}
		tell := func(what string) {
			d.errorf(s.Field("keep_tags"), s.Path+".keep_tags", "with %s untagged every VLAN of it is the segment's, but %s", printable(p.Name), what)
		}
		for j := range d.config.Ports {
			if o := &d.config.Ports[j]; o != p && o.Interface == p.Interface && p.Interface != "" && !d.replay {
				tell(o.Path + " is on the same interface")
			}
		}
		for j := range d.config.VXLAN.Segments {
			o := &d.config.VXLAN.Segments[j]
			for k := range o.Access {
				if a := &o.Access[k]; a.Port == p.Name && a.VLAN != 0 {
					tell(fmt.Sprintf("VLAN %d is %s", a.VLAN, a.Path))
				}
			}
		}
	}
}
