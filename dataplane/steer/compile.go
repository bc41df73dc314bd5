package steer

import (
	"cmp"
	"slices"
)

// What an address is, as bits; it can be several things at once.
const (
	hostLocal        = 1 << iota // an address of this host
	hostNAT                      // a local NAT address
	hostVTEP                     // a tunnel end
	hostVIP                      // a virtual address
	hostServer                   // a server of a NAT service
	hostVIPRanges                // services on it have port ranges, to be looked for when the exact port is not found
	hostServerRanges             // likewise for it as a server
	hostRouted                   // of networks: one that is routed
)

// kind says whose ports a set of ports is.
type kind uint8

const (
	kindService kind = iota + 1 // destination ports of a VIP
	kindServer                  // source ports of a server
	kindNAT                     // destination ports of a local NAT address, for each protocol alike: protocol 0
	kindNet                     // destination ports of a VIP that is a prefix
	kindTunnel                  // destination ports of a server that we send through tunnels to
)

// What a device and VLAN, or a MAC address on it, is, as bits.
const (
	portOurs   = 1 << iota // frames for our MAC are looked at
	portAccess             // every frame is taken
	portNets               // there are VIPs that are prefixes: without any, the program need not look for them
	portGroup              // the MAC address is a group's
)

// Compiled is the rules as the software twin reads them. It is immutable and serves any number of workers.
type Compiled struct {
	devices []uint32 // by port index: a number for its device
	macs    table    // device, VLAN and MAC -> port bits
	vlans   table    // device and VLAN -> port bits
	hosts   table    // address -> host bits
	nets    nets     // VIPs that are prefixes, of addresses that are not in hosts
	exact   table    // kind, protocol, address, port
	ranges  table    // kind, protocol, address -> where its ranges lie in spans, plus 1
	vnis    table    // address, UDP port, VNI
	spans   []span
}

// span is one range of ports. The spans of one set lie side by side in ascending order, apart from each other; last ends them.
type span struct {
	from, to uint16
	last     bool
}

// setKey names a set of ports.
type setKey struct {
	kind   kind
	family uint8
	proto  uint8
	bits   uint8 // of a prefix: how many of the address's bits count; 0 for other kinds
	addr   addr
}

func (k setKey) key(port uint16) key {
	at := setAt(k.kind, k.family, k.proto, k.addr)
	return key{at.hi, at.lo, at.rest | uint64(k.bits)<<bitsShift | uint64(port)}
}

const (
	protoShift  = 16
	familyShift = 24
	kindShift   = 32
	bitsShift   = 40
)

// of is the key of the same address's set of a protocol.
func (k key) of(proto uint8) key { return key{k.hi, k.lo, k.rest | uint64(proto)<<protoShift} }

// setAt is the key of an address's set at port 0. The packet's way makes keys of it alone: a setKey has more fields than the compiler
// keeps in registers, a third of Explain's time.
func setAt(k kind, family, proto uint8, a addr) key {
	return key{a.hi, a.lo, uint64(k)<<kindShift | uint64(family)<<familyShift | uint64(proto)<<protoShift}
}

// key is the set of a service's ports. A prefix of all bits is an address like any other.
func (s Service) key() setKey {
	n := netOf(s.VIP)
	k := setKey{kind: kindNet, family: n.family, proto: s.Protocol, addr: n.addr, bits: n.bits}
	if n.single() {
		k.kind, k.bits = kindService, 0
	}
	return k
}

func (s Server) key() setKey {
	a, family := addrOf(s.Addr)
	return setKey{kind: kindServer, family: family, proto: s.Protocol, addr: a}
}

func (n NAT) key() setKey {
	a, family := addrOf(n.Addr)
	return setKey{kind: kindNAT, family: family, addr: a}
}

func (t Tunnel) key() setKey {
	a, family := addrOf(t.Server)
	return setKey{kind: kindTunnel, family: family, proto: t.Protocol, addr: a}
}

// vlanOther stands for every VLAN of a device that is not there by itself. IEEE 802.1Q gives nobody this number; a frame that bears it
// nevertheless is one of them.
const vlanOther = 0xfff

func macKey(device uint32, vlan uint16, mac uint64) key {
	return key{mac, uint64(device), uint64(vlan)}
}

func vniKey(a addr, family uint8, port uint16, vni uint32) key {
	return key{a.hi, a.lo, uint64(vni)<<24 | uint64(port)<<8 | uint64(family)}
}

// Compile builds the twin's tables, or says everything that is wrong with the rules. It allocates; Classify does not.
func Compile(r *Rules) (*Compiled, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	many := len(r.Services) + len(r.Servers)
	macs, vlans, ranges, vnis := map[key]uint32{}, map[key]uint32{}, map[key]uint32{}, map[key]uint32{}
	hosts, exact := make(map[key]uint32, many), make(map[key]uint32, many)
	known := map[network]uint32{}
	c := &Compiled{}
	for i, p := range r.Ports {
		device := uint32(p.Ifindex)
		if device == 0 {
			device = 1<<31 | uint32(i) // beyond every ifindex
		}
		c.devices = append(c.devices, device)
		vlans[macKey(device, p.VLAN, 0)] |= portOurs
		for _, m := range p.MACs {
			macs[macKey(device, p.VLAN, mac(m[:]))] |= portOurs
		}
		for _, m := range p.Groups {
			macs[macKey(device, p.VLAN, mac(m[:]))] |= portOurs | portGroup
		}
		for _, v := range p.Access {
			vlans[macKey(device, v, 0)] |= portAccess
		}
		if p.Trunk {
			vlans[macKey(device, vlanOther, 0)] |= portAccess
		}
	}

	sets := map[setKey][]span{}
	host := func(a addr, family uint8, bits uint32) { hosts[key{a.hi, a.lo, uint64(family)}] |= bits }
	add := func(k setKey, from, to uint16, is, ranged uint32) {
		if from == to && k.kind != kindNAT {
			exact[k.key(from)] = 1
		} else {
			is |= ranged
			sets[k] = append(sets[k], span{from: from, to: to})
		}
		if k.kind == kindNet {
			known[network{k.addr, k.family, k.bits}] |= is
		} else {
			host(k.addr, k.family, is)
		}
	}
	for _, l := range r.Local {
		a, family := addrOf(l)
		host(a, family, hostLocal)
	}
	for _, n := range r.NAT {
		add(n.key(), n.From, n.To, hostNAT, 0)
	}
	for _, s := range r.Services {
		from, to := s.ports()
		add(s.key(), from, to, hostVIP, hostVIPRanges)
	}
	for _, s := range r.Servers {
		from, to := s.ports()
		add(s.key(), from, to, hostServer, hostServerRanges)
	}
	for _, p := range r.Routed {
		known[netOf(p)] |= hostRouted
	}
	for _, t := range r.Tunnels {
		exact[t.key().key(t.Port)] = 1
	}
	for _, v := range r.VTEPs {
		a, family := addrOf(v.Addr)
		host(a, family, hostVTEP)
		for _, vni := range v.VNIs {
			vnis[vniKey(a, family, v.Port, vni)] = 1
		}
	}
	for k, spans := range sets {
		ranges[k.key(0)] = uint32(len(c.spans)) + 1
		c.spans = append(c.spans, union(spans)...)
	}
	c.macs, c.vlans, c.hosts, c.nets = newTable(macs), newTable(vlans), newTable(hosts), newNets(known)
	c.exact, c.ranges, c.vnis = newTable(exact), newTable(ranges), newTable(vnis)
	return c, nil
}

// union joins ranges that overlap or touch, in ascending order, and marks the last. It reorders its argument.
func union(in []span) []span {
	slices.SortFunc(in, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	out := in[:1]
	for _, s := range in[1:] {
		if end := &out[len(out)-1]; int(s.from) <= int(end.to)+1 {
			end.to = max(end.to, s.to)
		} else {
			out = append(out, s)
		}
	}
	out[len(out)-1].last = true
	return out
}

// has reports whether port is in the set that has k at port 0. The ranges are searched only if ranged, which says that the address
// has any.
func (c *Compiled) has(k key, port uint16, ranged bool) bool {
	if c.exact.get(key{k.hi, k.lo, k.rest | uint64(port)}) != 0 {
		return true
	}
	if !ranged {
		return false
	}
	at := c.ranges.get(k)
	if at == 0 {
		return false
	}
	for _, s := range c.spans[at-1:] {
		if port >= s.from && port <= s.to {
			return true
		}
		if s.last {
			break
		}
	}
	return false
}
