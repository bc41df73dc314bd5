package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weir/conntrack"
	"weir/dataplane"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

// legendVersion is that of the legend's form. Fields may be added without a new one.
const legendVersion = 1

// legend is what the numbers in a connection table mean. A process that finds it begins with backends that have these IDs, as if it had compiled
// the configuration before itself; so its first configuration is a reload: who is still there keeps the ID and with it the connections, and
// those of the others end as that says.
type legend struct {
	Version  int             `json:"version"`
	Table    string          `json:"table"` // ID of the table
	File     string          `json:"file"`  // that it is in
	Backends []legendBackend `json:"backends"`
}

// legendBackend is the identity of a backend's ID and the ways that its connections go by.
type legendBackend struct {
	ID       uint32         `json:"id"`
	Name     string         `json:"name,omitempty"`
	Protocol uint8          `json:"protocol"`
	VIP      netip.Prefix   `json:"vip"`
	VIPPort  [2]uint16      `json:"vip_port"`
	VIPVNI   uint32         `json:"vip_vni,omitempty"`
	Address  netip.Addr     `json:"address"`
	Port     uint16         `json:"port"`
	VNI      uint32         `json:"vni,omitempty"`
	Removed  bool           `json:"removed,omitempty"` // it was configured no longer, but had connections
	Servers  []steer.Server `json:"servers,omitempty"`
	NATs     []legendNAT    `json:"nats,omitempty"`
	Tunnels  []steer.Tunnel `json:"tunnels,omitempty"`
}

type legendNAT struct {
	steer.NAT
	Configured bool `json:"configured,omitempty"`
}

func (b *legendBackend) key() backendKey {
	return backendKey{serviceKey{b.Protocol, b.VIP, b.VIPPort[0], b.VIPPort[1], b.VIPVNI}, b.Address, b.Port, b.VNI}
}

// readLegend reads a legend, and refuses one that nobody wrote like that: two backends of one ID or of one identity.
func readLegend(b []byte) (*legend, error) {
	r := new(legend)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	if r.Version != legendVersion {
		return nil, fmt.Errorf("legend has version %d, this program knows version %d", r.Version, legendVersion)
	}
	ids, keys := map[uint32]bool{}, map[backendKey]bool{}
	for i := range r.Backends {
		x := &r.Backends[i]
		if ids[x.ID] || keys[x.key()] {
			return nil, fmt.Errorf("backend %d, %s of %s: is there twice", x.ID, x.Address, x.VIP)
		}
		if !x.VIP.IsValid() || !x.Address.IsValid() || x.Address.Is4In6() {
			return nil, fmt.Errorf("backend %d: %s of %s is no identity", x.ID, x.Address, x.VIP)
		}
		ids[x.ID], keys[x.key()] = true, true
	}
	return r, nil
}

// legend is what r's IDs mean now.
func (r *registry) legend() *legend {
	out := &legend{Version: legendVersion, Backends: make([]legendBackend, 0, len(r.ids))}
	for _, b := range r.ids {
		if b == nil {
			continue
		}
		k := &b.key
		x := legendBackend{ID: b.id, Name: b.name, Protocol: k.service.protocol, VIP: k.service.vip, VIPPort: [2]uint16{k.service.port, k.service.portTo},
			VIPVNI: k.service.vni, Address: k.address, Port: k.port, VNI: k.vni, Removed: !b.live, Servers: b.ways.servers, Tunnels: b.ways.tunnels}
		for _, n := range b.ways.nats {
			x.NATs = append(x.NATs, legendNAT{n.NAT, n.configured})
		}
		out.Backends = append(out.Backends, x)
	}
	return out
}

// restore gives an empty registry the backends of a legend. They have no connections yet: see bear.
func (r *registry) restore(from *legend) {
	if from == nil {
		return
	}
	for i := range from.Backends {
		x := &from.Backends[i]
		if int(x.ID) >= r.limit {
			continue // its connections are refused
		}
		for len(r.ids) <= int(x.ID) {
			r.ids = append(r.ids, nil)
		}
		addr, v6 := dataplane.AddrOf(x.Address)
		b := &backend{id: x.ID, key: x.key(), name: x.Name, load: new(sched.Load), cursor: new(dataplane.Cursor), live: !x.Removed, removed: time.Now()}
		b.cursor.Seed(r.seed)
		b.snapshot = dataplane.Backend{Load: b.load, V6: v6, Addr: addr, Port: x.Port, VNI: x.VNI}
		b.ways = ways{servers: x.Servers, tunnels: x.Tunnels, former: true, since: time.Now()}
		for _, n := range x.NATs {
			b.ways.nats = append(b.ways.nats, natWay{n.NAT, n.Configured})
		}
		r.ids[x.ID] = b
		r.backends[b.key] = b
	}
	for id := range slices.Backward(r.ids) {
		if r.ids[id] == nil {
			r.free = append(r.free, uint32(id))
		}
	}
}

// expect has all backends that were restored count as ones with connections, until counted: how many they have is not known yet.
func (r *registry) expect() {
	for _, b := range r.ids {
		if b != nil {
			b.uncounted = true
		}
	}
}

// counted ends expect.
func (r *registry) counted() {
	for _, b := range r.ids {
		if b != nil {
			b.uncounted = false
		}
	}
}

// knows reports whether a connection of the table is of a backend whose ID means something.
func (r *registry) knows(e *conntrack.Ended) bool {
	return int(e.Backend) < len(r.ids) && r.ids[e.Backend] != nil && dataplane.Carries(e.Flags)
}

// bear counts a connection that was found in the table for its backend.
func (r *registry) bear(e *conntrack.Ended) { dataplane.Bear(r.ids[e.Backend].load, e) }

// weigh looks at the thresholds of backends that began with connections. It follows the first publication.
func (r *registry) weigh() {
	for _, b := range r.ids {
		if b != nil {
			b.load.Reconsider(b.snapshot.Upper)
		}
	}
}
