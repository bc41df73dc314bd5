package control

import (
	"weir/control/config"
	"weir/vxlan"
)

// learned are the stations that were learned, by what their places are.
func (o *overlay) learned(cfg *config.Config) (all []keptStation) {
	if o == nil {
		return nil
	}
	o.stations.Range(func(s vxlan.Station) bool {
		m, known := o.settled[s.Segment]
		if s.Static || !known {
			return true
		}
		x := keptStation{VNI: m.vni, MAC: uint64(s.MAC), Seen: s.Seen}
		if i, ok := s.Place.Peer(); ok && int(i) < len(m.peers) {
			x.Peer = m.peers[i]
		} else if i, ok := s.Place.Access(); ok && int(i) < len(m.access) && m.access[i].Used && int(m.access[i].Port) < len(cfg.Ports) {
			x.Port, x.VLAN = cfg.Ports[m.access[i].Port].Name, m.access[i].VLAN
		}
		if x.Peer.IsValid() || x.Port != "" {
			all = append(all, x)
		}
		return true
	})
	return all
}

// resume makes stations known that the process before had learned, where their segments and places are still there and they are not too old.
func (o *overlay) resume(cfg *config.Config, all []keptStation, now vxlan.Second) (n int) {
	if o == nil {
		return 0
	}
	ageing := map[uint32]uint32{}
	for i := range cfg.VXLAN.Segments {
		if c := &cfg.VXLAN.Segments[i]; c.Learning {
			ageing[c.VNI] = uint32(c.Ageing.Seconds())
		}
	}
	for _, x := range all {
		limit, learns := ageing[x.VNI]
		s := o.segments[x.VNI]
		if age := uint32(now - x.Seen); !learns || s == nil || limit != 0 && age >= limit || int32(age) < 0 {
			continue
		}
		at, there := s.at(cfg, StationPlace{VTEP: x.Peer, Port: x.Port, VLAN: x.VLAN})
		if there && o.stations.Restore(s.index, vxlan.MAC(x.MAC), at, x.Seen) {
			n++
		}
	}
	return n
}
