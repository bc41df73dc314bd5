package steer

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf"
)

// layoutVersion numbers the layout of the maps' keys and values, and what they mean. A change of any of them needs another number: a
// start that finds pinned maps of its own number goes on with them, else it replaces them.
const layoutVersion = 5

// tableID names a map that the rules fill. Additions go through them in this order and removals in the opposite one, so that an
// address is known to be ours only while all that is asked next about it is there.
type tableID int

const (
	tablePorts  tableID = iota // ports of VIPs, servers and tunnels, one by one
	tableRanges                // ranges of ports, as prefixes
	tableVNIs                  // VNIs of VTEPs
	tableHosts                 // addresses
	tableNets                  // VIPs that are prefixes; later than the addresses within that are not to be taken for them
	tableMACs                  // devices, VLANs and our MAC addresses on them
	numTables
)

// All values are one 32-bit number; ports, ranges and VNIs are mere sets. Keys, in bytes; numbers in the host's order where not said:
//
//	ports   address 16, port 2 (as on the wire), protocol 1, kind and family 1
//	ranges  prefix length 4, address 16, kind and family 1, protocol 1, port 2 (as on the wire)
//	vnis    address 16, VNI 4, port 2 (as on the wire), family 2
//	hosts   address 16, family 4                                         -> host bits
//	nets    prefix length 4, family 4, address 16                        -> host bits, number of the prefix from bit 8 on
//	macs    ifindex 4, VLAN 2, MAC 6; VLAN with vlanWhole and MAC zero   -> port bits, slot of the device from bit 8 on
//	        stands for the VLAN as a whole
//
// An IPv4 address is the last 4 of the 16 bytes. Ports and ranges of a prefix bear its number there, most significant byte first: it
// stands for the address, so that the program need not cut addresses to a length. It is the prefix's as long as nets holds it.
var tables = [numTables]struct {
	name    string
	kind    ebpf.MapType
	keySize uint32
	flags   uint32
}{
	tablePorts:  {"ports", ebpf.Hash, 20, 0},
	tableRanges: {"ranges", ebpf.LPMTrie, 24, noPrealloc},
	tableVNIs:   {"vnis", ebpf.Hash, 24, 0},
	tableHosts:  {"hosts", ebpf.Hash, 20, 0},
	tableNets:   {"nets", ebpf.LPMTrie, 24, noPrealloc},
	tableMACs:   {"macs", ebpf.Hash, 12, 0},
}

const (
	noPrealloc = 1 // BPF_F_NO_PREALLOC, which a trie must be made with
	vlanWhole  = 1 << 15
	slotShift  = 8                // host and port bits lie below
	rangeBits  = 8 * (16 + 1 + 1) // of a range's key that stand before its port
	netBits    = 8 * 4            // of a prefix's key that stand before its address
)

// image is what the tables hold or shall hold.
type image [numTables]listing

// imageOf lays out the rules. Devices and prefixes that are new get a number.
func imageOf(r *Rules, n *numbers) (image, error) {
	var m image
	if err := r.Check(); err != nil {
		return m, err
	}
	many := len(r.Local) + len(r.NAT) + len(r.Services) + len(r.Servers)
	m[tableHosts], m[tablePorts] = make(listing, 0, many+len(r.VTEPs)), make(listing, 0, many+len(r.Tunnels))
	host := func(a addr, family uint8, is uint32) {
		e := entry{value: is}
		binary.NativeEndian.PutUint32(e.key[putAddr(e.key[:], a, family):], uint32(family))
		m[tableHosts] = append(m[tableHosts], e)
	}
	set := func(k setKey, from, to uint16, is, ranged uint32) error {
		single := from == to && k.kind != kindNAT
		if !single {
			is |= ranged
		}
		if k.kind == kindNet {
			key := network{k.addr, k.family, k.bits}.wire()
			number, err := n.net(key)
			if err != nil {
				return err
			}
			m[tableNets] = append(m[tableNets], entryOf(is|number<<slotShift, []byte(key)))
			k.addr = addr{lo: uint64(number)}
		} else {
			host(k.addr, k.family, is)
		}
		if single {
			m[tablePorts] = append(m[tablePorts], k.portEntry(from))
			return nil
		}
		for _, p := range prefixes(from, to) {
			m[tableRanges] = append(m[tableRanges], entryOf(1, k.rangeKey(p)))
		}
		return nil
	}
	for _, l := range r.Local {
		a, family := addrOf(l)
		host(a, family, hostLocal)
	}
	for _, n := range r.NAT {
		if err := set(n.key(), n.From, n.To, hostNAT, 0); err != nil {
			return m, err
		}
	}
	for _, s := range r.Services {
		from, to := s.ports()
		if err := set(s.key(), from, to, hostVIP, hostVIPRanges); err != nil {
			return m, fmt.Errorf("%s: %w", s.VIP, err)
		}
	}
	for _, s := range r.Servers {
		from, to := s.ports()
		if err := set(s.key(), from, to, hostServer, hostServerRanges); err != nil {
			return m, err
		}
	}
	for _, p := range r.Routed {
		key := netOf(p).wire()
		number, err := n.net(key)
		if err != nil {
			return m, fmt.Errorf("%s: %w", p, err)
		}
		m[tableNets] = append(m[tableNets], entryOf(hostRouted|number<<slotShift, []byte(key)))
	}
	for _, t := range r.Tunnels {
		m[tablePorts] = append(m[tablePorts], t.key().portEntry(t.Port))
	}
	for _, v := range r.VTEPs {
		a, family := addrOf(v.Addr)
		host(a, family, hostVTEP)
		for _, vni := range v.VNIs {
			key := binary.NativeEndian.AppendUint32(wire(a, family), vni)
			key = binary.NativeEndian.AppendUint16(binary.BigEndian.AppendUint16(key, v.Port), uint16(family))
			m[tableVNIs] = append(m[tableVNIs], entryOf(1, key))
		}
	}
	devices := map[string]uint32{}
	if err := portsImage(devices, r, n, len(m[tableNets]) > 0); err != nil {
		return m, err
	}
	for k, v := range devices {
		m[tableMACs] = append(m[tableMACs], entryOf(v, []byte(k)))
	}
	for id := range m {
		m[id] = listed(m[id])
	}
	return m, nil
}

// portsImage lays out devices, VLANs and MAC addresses. Ports without a device are not the program's.
func portsImage(m map[string]uint32, r *Rules, n *numbers, nets bool) error {
	ours := uint32(portOurs)
	if nets {
		ours |= portNets
	}
	key := func(ifindex int, vlan uint16, mac [6]byte) string {
		k := binary.NativeEndian.AppendUint32(nil, uint32(ifindex))
		return string(append(binary.NativeEndian.AppendUint16(k, vlan), mac[:]...))
	}
	for _, p := range r.Ports {
		if p.Ifindex == 0 {
			continue
		}
		s, err := n.slot(p.Ifindex)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		m[key(p.Ifindex, p.VLAN|vlanWhole, [6]byte{})] |= ours | s<<slotShift
		for _, mac := range p.MACs {
			m[key(p.Ifindex, p.VLAN, mac)] |= ours | s<<slotShift
		}
		for _, mac := range p.Groups {
			m[key(p.Ifindex, p.VLAN, mac)] |= ours | portGroup | s<<slotShift
		}
		for _, v := range p.Access {
			m[key(p.Ifindex, v|vlanWhole, [6]byte{})] |= portAccess | s<<slotShift
		}
		if p.Trunk {
			m[key(p.Ifindex, vlanOther|vlanWhole, [6]byte{})] |= portAccess | s<<slotShift
		}
	}
	for _, p := range r.Ports { // a MAC found on an access VLAN must say so: the program then asks no further
		if p.Ifindex == 0 || m[key(p.Ifindex, p.VLAN|vlanWhole, [6]byte{})]&portAccess == 0 {
			continue
		}
		for _, mac := range slices.Concat(p.MACs, p.Groups) {
			m[key(p.Ifindex, p.VLAN, mac)] |= portAccess
		}
	}
	return nil
}

// putAddr writes an address as keys bear it, and returns its length.
func putAddr(b []byte, a addr, family uint8) int {
	if family == 6 {
		binary.BigEndian.PutUint64(b, a.hi)
		binary.BigEndian.PutUint64(b[8:], a.lo)
	} else {
		binary.BigEndian.PutUint32(b[12:], uint32(a.lo))
	}
	return 16
}

// wire is an address as keys bear it.
func wire(a addr, family uint8) []byte {
	b := make([]byte, 16, 24)
	putAddr(b, a, family)
	return b
}

// tag is kind and family in one byte.
func (k setKey) tag() byte { return byte(k.kind)<<4 | k.family }

func (k setKey) portEntry(port uint16) entry {
	e := entry{value: 1}
	at := putAddr(e.key[:], k.addr, k.family)
	binary.BigEndian.PutUint16(e.key[at:], port)
	e.key[at+2], e.key[at+3] = k.proto, k.tag()
	return e
}

// wire is the network's key in nets.
func (n network) wire() string {
	bits, first := netBits+uint32(n.bits), uint32(n.family)
	if n.family == 4 {
		bits += 96
	}
	b := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, bits), first)
	return string(append(b, wire(n.addr, n.family)...))
}

func (k setKey) rangeKey(p prefix) []byte {
	b := append(binary.NativeEndian.AppendUint32(nil, rangeBits+uint32(p.bits)), wire(k.addr, k.family)...)
	return binary.BigEndian.AppendUint16(append(b, k.tag(), k.proto), p.port)
}

// prefix is the ports that begin with the first bits of port.
type prefix struct {
	port uint16
	bits int
}

// prefixes cuts a range of ports into the fewest prefixes, 30 at most. So a trie answers exactly whether a port is in any number of
// ranges, with one look-up and no loop.
func prefixes(from, to uint16) []prefix {
	var out []prefix
	for at := uint32(from); at <= uint32(to); {
		size := uint32(1) << bits.TrailingZeros32(at|1<<16) // as large as at is aligned
		for at+size-1 > uint32(to) {
			size /= 2
		}
		out = append(out, prefix{uint16(at), 16 - bits.TrailingZeros32(size)})
		at += size
	}
	return out
}
