package control

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"weir/control/config"
	"weir/dataplane"
	"weir/vxlan"
)

// What a request about stations can be refused for.
var (
	ErrNoSegment  = errors.New("no such segment")
	ErrNoStation  = errors.New("no such station")
	ErrConfigured = errors.New("it is in the configuration: change it there and reload")
	ErrNoPlace    = errors.New("no such place in the segment")
	ErrNotStation = errors.New("not the MAC address of one station")
)

// StationView is one station of a segment, and where it is: behind a VTEP, on an access port, or ourselves.
type StationView struct {
	VNI  uint32 `json:"vni"`
	MAC  string `json:"mac"`
	Kind string `json:"kind"` // learned, static (configured), runtime (added by a request, until a restart), or own (the gateway)
	StationPlace
	AgeS    *uint32 `json:"age_s,omitempty"`    // since its last frame, of one that is learned
	FrozenS uint32  `json:"frozen_s,omitempty"` // for so long it stays where it is, because it moved too often
}

// StationPlace says where a station is: VTEP or Port is given, not both.
type StationPlace struct {
	VTEP netip.Addr `json:"vtep,omitzero"`
	Port string     `json:"port,omitempty"`
	VLAN uint16     `json:"vlan,omitempty"`
}

func (p StationPlace) String() string {
	switch {
	case p.VTEP.IsValid():
		return "vtep " + p.VTEP.String()
	case p.VLAN != 0:
		return fmt.Sprintf("port %s vlan %d", p.Port, p.VLAN)
	}
	return "port " + p.Port
}

// StationRequest asks for a station to be added, removed, or, without a MAC, for all that were learned at some place to be forgotten.
type StationRequest struct {
	VNI uint32 `json:"vni"`
	MAC string `json:"mac,omitempty"`
	StationPlace
}

// NeighborView is one host whose MAC address a segment's gateway knows, or asks for.
type NeighborView struct {
	VNI     uint32     `json:"vni"`
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac,omitempty"`
	State   string     `json:"state"` // reachable, stale (it answered more than 30 s ago) or incomplete
}

// runtimeStation is a static station that a request made: it stays until it is removed, or weir is.
type runtimeStation struct {
	vni uint32
	mac vxlan.MAC
}

// ParseMAC reads a station's address.
func ParseMAC(s string) (vxlan.MAC, error) {
	if m, err := net.ParseMAC(s); err == nil && len(m) == 6 {
		if mac := vxlan.MACOf(m); mac != 0 && !mac.Group() {
			return mac, nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrNotStation, s)
}

// Stations are those of a segment, or of all if vni is zero; with a MAC that one alone. They are sorted.
func (c *core) Stations(vni uint32, mac vxlan.MAC) ([]StationView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	views, o := []StationView{}, c.reg.overlay
	if err := c.known(vni); err != nil || o == nil {
		return views, err
	}
	vnis, now := o.vnis(), vxlan.SecondOf(c.now())
	o.stations.Range(func(s vxlan.Station) bool {
		of, ok := vnis[s.Segment]
		if !ok || vni != 0 && of != vni || mac != 0 && s.MAC != mac {
			return true
		}
		v := StationView{VNI: of, MAC: s.MAC.String(), Kind: "learned", StationPlace: c.placeView(o.segments[of], s.Place)}
		_, runtime := o.runtime[runtimeStation{of, s.MAC}]
		switch {
		case s.Place == vxlan.AtGateway:
			v.Kind = "own"
		case s.Static && runtime:
			v.Kind = "runtime"
		case s.Static:
			v.Kind = "static"
		default:
			age := uint32(max(int32(now-s.Seen), 0))
			v.AgeS = &age
		}
		if left := int32(s.Frozen - now); s.Frozen != 0 && left > 0 {
			v.FrozenS = uint32(left)
		}
		views = append(views, v)
		return true
	})
	slices.SortFunc(views, func(a, b StationView) int { return cmp.Or(cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.MAC, b.MAC)) })
	return views, nil
}

// vnis are those of the segments by index.
func (o *overlay) vnis() map[uint16]uint32 {
	m := map[uint16]uint32{}
	for vni, n := range o.segments {
		m[n.index] = vni
	}
	return m
}

// placeView is where p is, in the words of the configuration. c.mu is held.
func (c *core) placeView(n *numbered, p vxlan.Place) (v StationPlace) {
	if i, ok := p.Peer(); ok && int(i) < len(n.peers) {
		v.VTEP = n.peers[i]
	}
	if i, ok := p.Access(); ok && int(i) < len(n.access) && int(n.access[i].Port) < len(c.cfg.Ports) {
		v.Port, v.VLAN = c.cfg.Ports[n.access[i].Port].Name, n.access[i].VLAN
	}
	return v
}

// at is the place that v names in a segment of cfg.
func (n *numbered) at(cfg *config.Config, v StationPlace) (vxlan.Place, bool) {
	if v.VTEP.IsValid() {
		i := slices.Index(n.peers, v.VTEP)
		return vxlan.AtPeer(uint16(i)), i >= 0 && v.Port == ""
	}
	if port := portNamed(cfg, v.Port); port >= 0 {
		i := slices.Index(n.access, vxlan.Access{Port: uint16(port), VLAN: v.VLAN, Used: true})
		return vxlan.AtAccess(uint16(i)), i >= 0
	}
	return 0, false
}

// AddStation makes a static station. It is kept over reloads for as long as its segment and place stay and the configuration does not
// say where the station is: what an operator or a controller said at run time is not the file's to forget, but where the two contradict each
// other the file holds.
func (c *core) AddStation(r StationRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, mac, err := c.subject(r)
	if err != nil {
		return err
	}
	at, ok := n.at(c.cfg, r.StationPlace)
	if !ok {
		return fmt.Errorf("segment %d, %s: %w: it must be one of its peers or access ports", r.VNI, r.StationPlace, ErrNoPlace)
	}
	o, s := c.reg.overlay, station{n.index, mac}
	if err := o.stations.Add(s.segment, mac, at, vxlan.SecondOf(c.now())); err != nil {
		return err
	}
	o.statics[s], o.runtime[runtimeStation{r.VNI, mac}] = at, r.StationPlace
	return nil
}

// RemoveStation forgets one that was learned, or added by AddStation.
func (c *core) RemoveStation(r StationRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, mac, err := c.subject(r)
	if err != nil {
		return err
	}
	o := c.reg.overlay
	delete(o.runtime, runtimeStation{r.VNI, mac})
	delete(o.statics, station{n.index, mac})
	if !o.stations.Remove(n.index, mac) {
		return fmt.Errorf("segment %d, %s: %w", r.VNI, mac, ErrNoStation)
	}
	return nil
}

// subject is the segment and the station that a request is about, which must not be the configuration's. c.mu is held.
func (c *core) subject(r StationRequest) (*numbered, vxlan.MAC, error) {
	mac, err := ParseMAC(r.MAC)
	if err != nil {
		return nil, 0, err
	}
	o := c.reg.overlay
	if o == nil || o.segments[r.VNI] == nil {
		return nil, 0, fmt.Errorf("%w: VNI %d", ErrNoSegment, r.VNI)
	}
	n := o.segments[r.VNI]
	_, static := o.statics[station{n.index, mac}]
	if _, runtime := o.runtime[runtimeStation{r.VNI, mac}]; static && !runtime {
		return nil, 0, fmt.Errorf("segment %d, %s: %w", r.VNI, mac, ErrConfigured)
	}
	return n, mac, nil
}

// FlushStations forgets what was learned, in one segment or in all if that is zero, at one place if one is given: of static stations none.
// It returns how many those were.
func (c *core) FlushStations(r StationRequest) (flushed int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.reg.overlay
	if err := c.known(r.VNI); err != nil || o == nil {
		return 0, err
	}
	places := map[uint16]vxlan.Place{}
	if r.StationPlace != (StationPlace{}) {
		for vni, n := range o.segments {
			if at, ok := n.at(c.cfg, r.StationPlace); ok && (r.VNI == 0 || r.VNI == vni) {
				places[n.index] = at
			}
		}
		if len(places) == 0 {
			return 0, fmt.Errorf("%s: %w", r.StationPlace, ErrNoPlace)
		}
	}
	vnis := o.vnis()
	return o.stations.Flush(func(s vxlan.Station) bool {
		at, ok := places[s.Segment]
		return !s.Static && (r.VNI == 0 || vnis[s.Segment] == r.VNI) && (len(places) == 0 || ok && s.Place == at)
	}), nil
}

// HostNeighbors are the hosts that gateways know or ask for, of one segment or of all if vni is zero. They are sorted.
func (c *core) HostNeighbors(vni uint32) ([]NeighborView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	views, o := []NeighborView{}, c.reg.overlay
	if err := c.known(vni); err != nil || o == nil {
		return views, err
	}
	vnis := o.vnis()
	o.hosts.Range(vxlan.SecondOf(c.now()), func(h vxlan.Neighbor) bool {
		of, ok := vnis[h.Segment]
		if !ok || vni != 0 && of != vni {
			return true
		}
		v := NeighborView{VNI: of, Address: h.Addr.Netip(h.V6), State: "incomplete"}
		if h.MAC != 0 {
			v.MAC, v.State = h.MAC.String(), "stale"
			if h.Reachable {
				v.State = "reachable"
			}
		}
		views = append(views, v)
		return true
	})
	slices.SortFunc(views, func(a, b NeighborView) int { return cmp.Or(cmp.Compare(a.VNI, b.VNI), a.Address.Compare(b.Address)) })
	return views, nil
}

// now is the time of the clock that drives the workers, in nanoseconds.
func (c *core) now() int64 {
	if c.clock != nil {
		return c.clock()
	}
	return dataplane.Monotonic()
}
