package judge

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"net/netip"
	"slices"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// world is what clients, servers and routers know while a script is played: where each flow went, and the packets they got.
type world struct {
	script *Script
	flows  []flowState
	id     uint16 // IPv4 identification of the latest packet
	// twofold are servers that some services reach by IPIP and others by GRE.
	twofold map[netip.Addr]bool
}

type flowState struct {
	client, vip netip.AddrPort
	server      netip.AddrPort // where the kernel sent the client; invalid before that, and where only the MAC address tells
	last        [2][]byte      // the latest packet that came out on each side
	seq         uint32
	alive       bool // opened, and no time has passed since
	ending      bool // a FIN, a RST or nonsense has been seen since
}

func newWorld(s *Script) (*world, error) {
	w := &world{script: s, flows: make([]flowState, len(s.Flows))}
	for i, f := range s.Flows {
		client, err := netip.ParseAddr(f.Client)
		if err != nil {
			return nil, err
		}
		vip, err := netip.ParseAddr(f.VIP)
		if err != nil {
			return nil, err
		}
		w.flows[i] = flowState{client: netip.AddrPortFrom(client, uint16(f.Port)), vip: netip.AddrPortFrom(vip, uint16(f.VPort)), seq: uint32(i) << 20}
	}
	w.twofold = s.twofold()
	return w, nil
}

// twofold are the servers at the end of both an IPIP and a GRE tunnel at any time. Of those the kernel knows only the tunnel that came last, and
// ignores errors about the other (ip_vs_find_tunnel); weir knows the packet (docs/ipvs.md).
func (s *Script) twofold() map[netip.Addr]bool {
	by := map[string]map[string]bool{"ipip": {}, "gre": {}}
	both := map[netip.Addr]bool{}
	see := func(b *Backend) {
		if by[b.Forward] == nil {
			return
		}
		by[b.Forward][b.Address] = true
		if a, err := netip.ParseAddr(b.Address); err == nil && by["ipip"][b.Address] && by["gre"][b.Address] {
			both[a] = true
		}
	}
	services := s.Services
	for i := range s.Ops {
		if e := s.Ops[i].Edit; e != nil && e.AddService != nil {
			services = append(services[:len(services):len(services)], *e.AddService)
		} else if e != nil && e.AddBackendFirst != nil {
			see(e.AddBackendFirst)
		}
	}
	for i := range services {
		for j := range services[i].Backends {
			see(&services[i].Backends[j])
		}
	}
	return both
}

// packets are what the operation sends, nil if it makes no sense now.
func (w *world) packets(o *Op) [][]byte {
	packets := w.make(o)
	for _, ip := range packets {
		if len(ip) > (&Recording{MTU: w.script.MTU}).mtu(o.Side) {
			return nil // no link carries it
		}
	}
	return packets
}

func (w *world) make(o *Op) [][]byte {
	f := &w.flows[o.Flow]
	if o.Alive && (!f.alive || o.Flags&flagSYN != 0 && f.ending) {
		return nil
	}
	switch o.Do {
	case DoPacket:
		return w.packet(o, f)
	case DoError:
		return w.complaint(o, f)
	case DoEcho:
		w.id++
		return [][]byte{pkttest.Echo(f.client.Addr(), f.vip.Addr(), uint16(o.Flow), w.id).ID(w.id).Payload(pattern(o.Data)).Bytes()}
	}
	return nil
}

// packet is one of the flow.
func (w *world) packet(o *Op, f *flowState) [][]byte {
	src, dst := f.client, f.vip
	if o.Side == Server {
		if !f.server.IsValid() {
			return nil
		}
		src, dst = f.server, f.client
	}
	if o.Spoil == "tiny" && !f.server.IsValid() {
		return nil // what changes no port takes less of a header than weir does: see docs/ipvs.md
	}
	w.id++
	f.seq++
	var p pkttest.Packet
	switch w.script.Flows[o.Flow].Protocol {
	case "tcp":
		p = pkttest.TCP(src, dst).Seq(f.seq)
		if o.Flags&0x10 != 0 {
			p = p.Ack(f.seq + 7)
		}
		p = p.Flags(uint8(o.Flags)).Payload(pattern(o.Data))
	case "sctp":
		p = pkttest.SCTP(src, dst).VTag(f.seq)
		p = p.Chunk(uint8(o.Flags), 0, pattern(o.Data))
		if o.Spoil == "abort" {
			p = p.Chunk(chunkAbort, 0, nil)
		}
	default:
		p = pkttest.UDP(src, dst).Payload(pattern(o.Data))
		if o.Spoil == "nosum" && src.Addr().Is4() {
			p = p.NoChecksum()
		}
	}
	p = p.ID(w.id).TOS(uint8(o.TOS))
	if o.TTL != nil {
		p = p.TTL(uint8(*o.TTL))
	}
	if o.DF && src.Addr().Is4() && len(o.Cut) == 0 {
		p = p.DF()
	}
	if options := ipOptions[o.Spoil]; options != nil && src.Addr().Is4() {
		p = p.Options(options...)
	}
	if len(o.Cut) > 0 {
		pieces := p.Cut(uint32(w.id), o.Cut...)
		if o.Reverse {
			slices.Reverse(pieces)
		}
		return pieces
	}
	ip := p.Bytes()
	if w.script.Flows[o.Flow].Protocol == "sctp" {
		sealSCTP(ip)
	}
	return [][]byte{spoil(ip, o.Spoil)}
}

var ipOptions = map[string][]byte{
	"nop": {1, 1, 1, 0},
	"rr":  {7, 7, 4, 0, 0, 0, 0}, // record route with room for one address
	"ra":  {148, 4, 0, 0},        // router alert
}

// spoil damages a packet.
func spoil(ip []byte, how string) []byte {
	v4 := ip[0]>>4 == 4
	at := 40
	if v4 {
		at = int(ip[0]&15) * 4
	}
	sum, _ := checksumAt(ip)
	switch how {
	case "sum": // of the transport
		ip[at+sum] ^= 0x5a
	case "ipsum":
		if v4 {
			ip[10] ^= 0x5a
		}
	case "short": // the last bytes are missing
		ip = ip[:len(ip)-min(6, len(ip)-at)]
	case "trailer": // bytes behind the packet
		ip = append(ip, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff)
	case "tiny": // the transport header is cut off, and the lengths say so
		ip = ip[:at+6]
		if v4 {
			binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
			pkttest.Seal(ip)
		} else {
			binary.BigEndian.PutUint16(ip[4:], 6)
		}
	case "ihl":
		if v4 {
			ip[0] = 0x44
			pkttest.Seal(append([]byte{}, ip...))
		}
	case "version":
		ip[0] = ip[0]&15 | 0x50
	}
	return ip
}

// sealSCTP writes the checksum of an SCTP packet (RFC 9260 section 6.8).
func sealSCTP(ip []byte) {
	h, err := headersOf(ip)
	if err != nil || len(h.payload) < 12 {
		return
	}
	clear(h.payload[8:12])
	binary.LittleEndian.PutUint32(h.payload[8:], crc32.Checksum(h.payload, crc32.MakeTable(crc32.Castagnoli)))
}

// checksumAt is where in its transport header a packet's checksum stands.
func checksumAt(ip []byte) (at int, proto uint8) {
	proto = ip[9]
	if ip[0]>>4 == 6 {
		proto = ip[6]
	}
	switch proto {
	case packet.ProtoTCP:
		return 16, proto
	case packet.ProtoUDP:
		return 6, proto
	case protoSCTP:
		return 8, proto
	}
	return 2, proto
}

const protoSCTP = 132

// complaint is an ICMP error about the latest packet of the flow that came out on that side.
func (w *world) complaint(o *Op, f *flowState) [][]byte {
	about := f.last[o.Side]
	if about == nil {
		return nil
	}
	h, err := headersOf(about)
	if err != nil || h.dst.Is6() != f.vip.Addr().Is6() { // types and codes are the family's
		return nil
	}
	if h.src == balancer4 && w.twofold[h.dst] {
		return nil
	}
	if h.src == balancer6 {
		return nil // about a tunnel over IPv6: the kernel leaves such errors to a tunnel device, weir takes them (docs/ipvs.md)
	}
	from := h.dst
	if o.Router {
		from = routers[o.Side][0]
		if h.dst.Is6() {
			from = routers[o.Side][1]
		}
	}
	n := len(about)
	if o.Quote > 0 {
		n = min(n, len(about)-len(h.payload)+o.Quote)
	}
	w.id++
	ip := pkttest.ICMPError(from, h.src, uint8(o.Type), uint8(o.Code), uint32(o.MTU), about[:min(n, 1232)]).ID(w.id).Bytes()
	return [][]byte{spoil(ip, o.Spoil)}
}

// Where the balancer's tunnels begin.
var (
	balancer4 = netip.MustParseAddr("198.18.1.1")
	balancer6 = netip.MustParseAddr("2001:db8:1::1")
)

// routers complain in the name of neither end.
var routers = [2][2]netip.Addr{
	{netip.MustParseAddr("198.18.200.1"), netip.MustParseAddr("2001:db8:c::ffff")},
	{netip.MustParseAddr("198.18.1.19"), netip.MustParseAddr("2001:db8:1::19")},
}

// again reports whether the operation asks for a new connection where there was one: the kernel then ends the old one by its timer.
func (w *world) again(o *Op) bool {
	f := &w.flows[o.Flow]
	if o.Do != DoPacket || o.Side != Client || f.last[Server] == nil {
		return false
	}
	switch w.script.Flows[o.Flow].Protocol {
	case "tcp":
		return o.Flags&flagSYN != 0
	case "sctp":
		return o.Flags == chunkInit
	}
	return false
}

// saw takes note of what came out of the step that sent in.
func (w *world) saw(o *Op, in []byte, out []Output) {
	if o.Do == DoEcho || o.Do == DoError {
		return
	}
	f, forwarded := &w.flows[o.Flow], false
	for _, x := range out {
		h, err := headersOf(x.IP)
		if err != nil || h.proto == packet.ProtoICMP || h.proto == packet.ProtoICMPv6 {
			continue
		}
		if x.Side == o.Side {
			continue // answered by the balancer
		}
		f.last[x.Side] = x.IP
		if x.Side == Server && h.src == f.client.Addr() && h.dst != f.vip.Addr() && len(h.payload) >= 4 && datagramOffset(x.IP) == 0 {
			payload := h.payload
			if h.proto == 44 && len(payload) >= 12 {
				payload = payload[8:]
			}
			f.server = netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(payload[2:]))
		}
		forwarded = true
	}
	if o.Side == Client && o.Flags == flagSYN {
		f.ending = false
	} else if o.Flags&(flagFIN|flagRST) != 0 || o.Flags == 0 {
		f.ending = true
	}
	if o.Side == Client {
		f.alive = forwarded && (f.alive || o.Flags&0x3f == flagSYN || w.script.Flows[o.Flow].Protocol != "tcp")
	}
}

// passed says that time went by, or an edit was made: whether connections still live is not known any more.
func (w *world) passed() {
	for i := range w.flows {
		w.flows[i].alive = false
	}
}

// datagramOffset is where in its datagram a fragment begins; 0 of a packet that is whole.
func datagramOffset(ip []byte) int {
	if ip[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(ip[6:])&0x1fff) * 8
	}
	if ip[6] == 44 && len(ip) >= 48 {
		return int(binary.BigEndian.Uint16(ip[42:]) &^ 7)
	}
	return 0
}

// recorded is an output as the recording has it, after in was sent by the other or the same side.
func recorded(o Output, from int, in []byte) Packet {
	p := Packet{Side: sides[o.Side], Packet: hex.EncodeToString(o.IP)}
	_, proto := checksumAt(o.IP)
	_, was := checksumAt(in)
	sameSize := len(o.IP) == lengthOf(in) || datagram(in) != "" || datagram(o.IP) != "" // not put into a tunnel
	p.Exact = o.Side != from && proto == was && sameSize && proto != packet.ProtoICMP && proto != packet.ProtoICMPv6
	if o.Side == Server {
		p.MAC = o.MAC
	}
	return p
}

// lengthOf is a packet's without what follows it in its frame.
func lengthOf(ip []byte) int {
	if ip[0]>>4 == 6 {
		return min(len(ip), 40+int(binary.BigEndian.Uint16(ip[4:])))
	}
	return min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
