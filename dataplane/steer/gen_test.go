package steer

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"weir/dataplane/packet"
)

// Few addresses and ports, so that rules and packets meet often, and every address can be several things at once.
var (
	pool4 = []netip.Addr{vip4, nat4, web4, local4, vtep4, client4, far4}
	pool6 = []netip.Addr{vip6, nat6, web6, local6, vtep6, client6, ip("::198.18.9.9")}
	vids  = []uint16{0, 7, 9, 4094}
	macs  = [][6]byte{ourMAC, otherMAC, groupMAC, {}}
)

// gen draws evenly, from a seed that rapid draws: rapid's own numbers lean to the small, with which packets hardly meet rules.
type gen struct {
	*rand.Rand
	near *Rules // half of all packets are about one of these
}

func newGen(rt *rapid.T) gen {
	return gen{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0)), &Rules{}}
}

func draw[T any](g gen, from []T) T { return from[g.IntN(len(from))] }
func (g gen) intn(n int) int        { return g.IntN(n) }

func (g gen) addr() netip.Addr {
	if g.intn(2) == 0 {
		return draw(g, pool4)
	}
	return draw(g, pool6)
}

func (g gen) proto() uint8 {
	return draw(g, []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP})
}

func (g gen) port() uint16 {
	return draw(g, []uint16{0, 1, 80, 81, 4095, 4096, 8000, 8001, 32767, 32768, 65534, 65535})
}

func (g gen) ports() (uint16, uint16) {
	a, b := g.port(), g.port()
	return min(a, b), max(a, b)
}

func (g gen) rules() *Rules {
	r := &Rules{Grace: time.Hour}
	for range 1 + g.intn(3) {
		p := Port{Ifindex: loopback, VLAN: draw(g, vids)}
		for range g.intn(3) {
			p.MACs = append(p.MACs, draw(g, macs))
		}
		for range g.intn(10) / 8 {
			p.Access = append(p.Access, draw(g, vids))
		}
		p.Trunk = g.intn(8) == 0
		for range g.intn(5) / 3 {
			p.Groups = append(p.Groups, draw(g, macs))
		}
		r.Ports = append(r.Ports, p)
	}
	r.Ports[0].VLAN, r.Ports[0].MACs = 0, [][6]byte{ourMAC}
	for range g.intn(5) {
		r.Local = append(r.Local, g.addr())
	}
	for range g.intn(4) {
		from, to := g.ports()
		r.NAT = append(r.NAT, NAT{g.addr(), from, to})
	}
	for range g.intn(3) {
		r.VTEPs = append(r.VTEPs, VTEP{g.addr(), g.port(), []uint32{uint32(g.intn(3)), maxVNI}})
	}
	for range g.intn(6) {
		from, to := g.ports()
		if g.intn(2) == 0 {
			to = from
		}
		r.Services = append(r.Services, Service{One(g.addr()), g.proto(), from, to})
	}
	for range g.intn(4) { // some of them prefixes of all bits
		a := g.addr()
		p := netip.PrefixFrom(a, a.BitLen()-draw(g, []int{0, 1, 7, 8, 16, a.BitLen() - 1, a.BitLen()}))
		for range 1 + g.intn(2) {
			from, to := g.ports()
			r.Services = append(r.Services, Service{p, g.proto(), from, to})
		}
	}
	for range g.intn(6) / 3 {
		a := g.addr()
		r.Routed = append(r.Routed, netip.PrefixFrom(a, a.BitLen()-draw(g, []int{1, 7, 8, 16, a.BitLen() - 1})))
	}
	for range g.intn(6) {
		r.Servers = append(r.Servers, Server{g.addr(), g.proto(), g.port()})
	}
	for range g.intn(5) / 2 {
		proto := draw(g, []uint8{packet.ProtoESP, packet.ProtoAH})
		r.Services = append(r.Services, Service{One(g.addr()), proto, 0, 0})
		r.Servers = append(r.Servers, Server{g.addr(), proto, 0})
	}
	for range g.intn(5) {
		t := Tunnel{Server: g.addr(), Protocol: draw(g, []uint8{packet.ProtoIPIP, packet.ProtoIPv6, packet.ProtoGRE, packet.ProtoUDP})}
		if t.Protocol == packet.ProtoUDP {
			t.Port = max(g.port(), 1)
		}
		r.Tunnels = append(r.Tunnels, t)
	}
	return r
}

// within is an address of the prefix.
func (g gen) within(p netip.Prefix) netip.Addr {
	if g.intn(2) == 0 {
		return p.Addr() // of those that other rules name, too
	}
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] ^= byte(g.intn(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// flow is what a packet is about.
type flow struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
}

func (g gen) flow() flow {
	pick := func(n int) int { // of n rules, or none
		if n == 0 {
			return -1
		}
		return g.intn(n)
	}
	f := flow{proto: g.proto(), sport: g.port(), dport: g.port()}
	switch r := g.near; g.intn(11) {
	case 0, 1:
		if i := pick(len(r.Services)); i >= 0 { // to a service, or from it as it is quoted
			s := r.Services[i]
			f.dst, f.proto, f.dport = g.within(s.VIP), s.Protocol, draw(g, []uint16{s.From, s.To})
			if g.intn(2) == 0 {
				f.src, f.dst, f.sport, f.dport = f.dst, f.src, f.dport, f.sport
			}
		}
	case 2, 3:
		if i := pick(len(r.Servers)); i >= 0 { // from a server, or to it as it is quoted
			s := r.Servers[i]
			f.src, f.proto, f.sport = s.Addr, s.Protocol, s.Port
			if g.intn(2) == 0 {
				f.src, f.dst, f.sport, f.dport = f.dst, f.src, f.dport, f.sport
			}
		}
	case 4:
		if i := pick(len(r.NAT)); i >= 0 {
			f.dst, f.dport = r.NAT[i].Addr, draw(g, []uint16{r.NAT[i].From, r.NAT[i].To, r.NAT[i].To + 1})
		}
	case 5:
		if i := pick(len(r.VTEPs)); i >= 0 {
			f.dst, f.dport, f.proto = r.VTEPs[i].Addr, r.VTEPs[i].Port, packet.ProtoUDP
		}
	}
	if i := pick(len(g.near.Tunnels)); i >= 0 && g.intn(8) == 0 { // into a tunnel, as an error quotes it
		t := g.near.Tunnels[i]
		f.src, f.dst, f.proto, f.dport = netip.Addr{}, t.Server, t.Protocol, t.Port
	}
	if g.intn(20) == 0 {
		f.proto = draw(g, []uint8{packet.ProtoIPIP, packet.ProtoIPv6, packet.ProtoGRE, packet.ProtoESP, packet.ProtoAH})
	}
	pool := draw(g, [][]netip.Addr{pool4, pool6})
	switch {
	case f.src.Is4() || f.dst.Is4():
		pool = pool4
	case f.src.IsValid() || f.dst.IsValid():
		pool = pool6
	}
	for _, a := range []*netip.Addr{&f.src, &f.dst} {
		if !a.IsValid() {
			*a = draw(g, pool)
		}
	}
	return f
}

// packet is an IP packet; depth more may be quoted in it.
func (g gen) packet(depth int) []byte {
	f := g.flow()
	src, dst, proto := f.src, f.dst, layers.IPProtocol(f.proto)
	payload := tcpHeader(f.sport, f.dport)
	if !hasPorts(f.proto) {
		payload = make([]byte, 16)
		if f.proto == packet.ProtoAH { // a header to walk over, in IPv6
			payload[0], payload[1] = packet.ProtoTCP, 1
		}
		payload = payload[:16-g.intn(2)*g.intn(12)]
	}
	switch {
	case f.proto == packet.ProtoUDP && g.intn(2) == 0:
		payload = udpHeader(f.sport, f.dport, 8, 0, 0, 0, 0, 0, uint8(g.intn(3)), 0)
	case depth > 0 && g.intn(2) == 0 || g.intn(20) == 0:
		proto = layers.IPProtocolICMPv4
		if dst.Is6() || g.intn(10) == 0 {
			proto = layers.IPProtocolICMPv6
		}
		payload = []byte{draw(g, []uint8{1, 2, 3, 3, 3, 4, 11, 11, 12, 127, 128, 135, 137, 138}), 0, 0, 0, 0, 0, 0, 0}
		if depth > 0 {
			quoted := g.packet(depth - 1)
			payload = append(payload, quoted...)
			switch { // mostly it is about a packet that the error's destination sent
			case g.intn(4) == 0:
			case quoted[0]>>4 == 4:
				src, dst, proto = draw(g, pool4), netip.AddrFrom4([4]byte(quoted[12:])), layers.IPProtocolICMPv4
			default:
				src, dst, proto = draw(g, pool6), netip.AddrFrom16([16]byte(quoted[8:])), layers.IPProtocolICMPv6
			}
		}
	}
	v6 := dst.Is6()
	if !v6 {
		return ipPacket(src, dst, proto, payload, func(h *layers.IPv4) {
			switch g.intn(6) {
			case 0:
				ipOptions(h)
			case 1:
				moreFragments(h)
			case 2:
				lastFragment(h)
			}
		})
	}
	for range g.intn(10) / 6 * g.intn(9) {
		switch g.intn(4) {
		case 0:
			payload, proto = append(fragment6(proto, uint16(g.intn(2)*8), g.intn(2) == 0), payload...), extFragment
		case 1:
			payload, proto = append(authHeader(proto, 8+4*g.intn(5)), payload...), extAuth
		default:
			payload, proto = append(extension(proto, 1+g.intn(3)), payload...), draw(g, []layers.IPProtocol{extHopByHop, extRouting, extDestination})
		}
	}
	return ipPacket(src, dst, proto, payload)
}

func (g gen) frame() []byte {
	p := g.packet(1)
	kind := layers.EthernetType(packet.EtherTypeIPv4)
	if p[0]>>4 == 6 {
		kind = packet.EtherTypeIPv6
	}
	dst := ourMAC
	var tags []uint16
	if g.intn(8) == 0 {
		dst, tags = draw(g, macs), nil
		for range g.intn(4) {
			tags = append(tags, draw(g, vids))
		}
	}
	b := eth(dst, kind, p, tags...)
	for range g.intn(6) / 4 { // some have a few bytes turned
		b[g.intn(len(b))] = uint8(g.intn(256))
	}
	if g.intn(8) == 0 {
		b = b[:14+g.intn(len(b)-13)]
	}
	return b
}
