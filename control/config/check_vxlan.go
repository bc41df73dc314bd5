package config

import "net/netip"

// checkVXLAN returns the segments by VNI.
func (d *decoder) checkVXLAN(names portNames) map[uint32]*Segment {
	c := d.config
	segments := map[uint32]*Segment{}
	type link struct {
		port string
		vlan uint16
	}
	access := map[link]*Segment{}
	for i := range c.VXLAN.Segments {
		s := &c.VXLAN.Segments[i]
		if s.VNI != 0 {
			if first := segments[s.VNI]; first != nil {
				d.errorf(s.Field("vni"), s.Path+".vni", "duplicate segment %d, first in line %d", s.VNI, first.Pos.Line)
			} else {
				segments[s.VNI] = s
			}
		}
		d.checkPeers(s)
		d.checkFDB(s)
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
	return segments
}

func (d *decoder) checkPeers(s *Segment) {
	seen := map[netip.Addr]bool{}
	for i, a := range s.Peers {
		pos, path := d.item(&s.Place, "peers", i)
		d.checkVTEP(s, a, pos, path)
		if seen[a] {
			d.errorf(pos, path, "duplicate peer %s", a)
		}
		seen[a] = true
	}
}

func (d *decoder) checkFDB(s *Segment) {
	seen := map[[6]byte]*FDB{}
	for i := range s.FDB {
		f := &s.FDB[i]
		if f.VTEP.IsValid() {
			d.checkVTEP(s, f.VTEP, f.Field("vtep"), f.Path+".vtep")
		}
		if f.MAC == ([6]byte{}) {
			continue
		}
		if first := seen[f.MAC]; first != nil {
			d.errorf(f.Field("mac"), f.Path+".mac", "duplicate station, first in line %d", first.Pos.Line)
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

// checkVTEP checks another's VTEP against ours.
func (d *decoder) checkVTEP(s *Segment, a netip.Addr, pos Pos, path string) {
	switch {
	case !s.VTEP.IsValid():
	case a == s.VTEP:
		d.errorf(pos, path, "%s is our own VTEP", a)
	case a.Is4() != s.VTEP.Is4():
		d.errorf(pos, path, "%s is %s, but our VTEP is %s", a, family(a), family(s.VTEP))
	}
}
