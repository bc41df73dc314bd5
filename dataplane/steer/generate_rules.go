package steer

import (
	"github.com/cilium/ebpf/asm"

	"weir/dataplane/packet"
)

const (
	tSrcPort = tPorts
	tDstPort = tPorts + 2

	noProto = 0 // no place on the stack, whose offsets are negative
)

// hosts is rules 2 to 4: what the destination address is.
func (g *generator) hosts() {
	g.at("hosts")
	g.forget()
	g.hostBits(sTuple + tDst)
	g.load(asm.R2, sPort, asm.DWord)
	g.emit(
		asm.And.Imm(asm.R2, portGroup),
		asm.JEq.Imm(asm.R2, 0, "station_host"),
		asm.And.Imm(asm.R1, hostVTEP), // to a group's MAC address: rule 2 alone
		asm.JEq.Imm(asm.R1, 0, PassNotOurMAC.String()),
	)
	g.at("station_host")
	g.store(sHost, asm.R1, asm.DWord)
	g.emit(asm.JEq.Imm(asm.R1, 0, "net"))

	g.unless(hostNAT, "vtep")
	g.fromUs("nat_ports")
	g.hasPorts(sQuote, "nat_ports")
	g.inRanges(kindNAT, sTuple+tDst, noProto, sQuote+tSrcPort, TakeNAT.String())
	g.at("nat_ports")
	g.hasPorts(sTuple, "vtep")
	g.load(asm.R1, sTuple+tShape, asm.Word)
	g.emit(
		asm.JEq.Imm(asm.R1, int32(shapeLater), TakeNAT.String()),
		asm.JNE.Imm(asm.R1, int32(shapeWhole), "vtep"),
	)
	g.inRanges(kindNAT, sTuple+tDst, noProto, sTuple+tDstPort, TakeNAT.String())

	g.at("vtep")
	g.unless(hostVTEP, "vip")
	g.load(asm.R1, sTuple+tProto, asm.Word)
	g.emit(asm.JNE.Imm(asm.R1, packet.ProtoUDP, "vip"))
	g.load(asm.R1, sTuple+tShape, asm.Word)
	g.emit(asm.JNE.Imm(asm.R1, int32(shapeWhole), "vip"))
	g.header(16, "vip")
	g.emit(
		asm.LoadMem(asm.R3, asm.R1, 12, asm.Word),
		asm.HostTo(asm.BE, asm.R3, asm.Word),
		asm.RSh.Imm(asm.R3, 8),
	)
	g.store(sVNIKey+16, asm.R3, asm.Word)
	g.copy16(sVNIKey, sTuple+tDst)
	g.load(asm.R1, sTuple+tDstPort, asm.Half)
	g.store(sVNIKey+20, asm.R1, asm.Half)
	g.load(asm.R1, sTuple+tFamily, asm.Word)
	g.store(sVNIKey+22, asm.R1, asm.Half)
	g.lookup(g.maps.tables[tableVNIs], sVNIKey)
	g.emit(asm.JNE.Imm(asm.R0, 0, TakeVXLAN.String()))

	g.at("vip")
	g.unless(hostVIP, "local")
	g.vip(kindService, sTuple+tDst)

	g.at("local")
	g.unless(hostLocal|hostNAT|hostVTEP, "server")
	g.fromUs(PassHost.String())
	g.tunnel()
	g.decideAt(PassHost)

	g.at("net") // an address that is not known by itself
	g.load(asm.R1, sPort, asm.DWord)
	g.emit(asm.And.Imm(asm.R1, portNets), asm.JEq.Imm(asm.R1, 0, "server"))
	g.set(sNetKey, netBits+128, asm.Word)
	g.load(asm.R1, sTuple+tFamily, asm.Word)
	g.store(sNetKey+4, asm.R1, asm.Word)
	g.copy16(sNetKey+8, sTuple+tDst)
	g.lookup(g.maps.tables[tableNets], sNetKey)
	g.emit(
		asm.JEq.Imm(asm.R0, 0, "server"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
	)
	g.store(sHost, asm.R1, asm.DWord) // the number above the bits is in nobody's way
	g.unless(hostVIP, TakeRouted.String())
	g.load(asm.R1, sHost, asm.DWord)
	g.emit(asm.RSh.Imm(asm.R1, slotShift), asm.HostTo(asm.BE, asm.R1, asm.Word))
	g.set(sNet, 0, asm.DWord)
	g.set(sNet+8, 0, asm.Word)
	g.store(sNet+12, asm.R1, asm.Word)
	g.vip(kindNet, sNet)

	g.at(TakeVXLAN.String())
	g.unusual(sTuple, usual) // Linux sends what is for a group with a TTL of 1, and it goes no further
	g.decide(TakeVXLAN)
	for _, r := range []Reason{TakeNAT, TakeService, TakeFragment, TakeICMP, TakeTunnelICMP, TakeMalformed, TakeRouted} {
		g.decideAt(r)
	}
	g.at(PassVIP.String())
	if g.hook == hookXDP {
		g.answered(PassVIP)
	} else {
		g.decide(PassVIP)
	}
}

// vip is rule 3. The VIP's ports are those of the kind and the address, or what stands for it, on the stack.
func (g *generator) vip(k kind, address int16) {
	icmp := g.unique("vip_icmp")
	g.load(asm.R1, sTuple+tShape, asm.Word)
	g.emit(
		asm.JEq.Imm(asm.R1, int32(shapeMalformed), TakeMalformed.String()),
		asm.JEq.Imm(asm.R1, int32(shapeLater), TakeFragment.String()),
	)
	g.load(asm.R1, sTuple+tFirst, asm.Word)
	g.emit(asm.JNE.Imm(asm.R1, 0, TakeFragment.String()))
	g.balanced(sTuple, icmp)
	g.inSet(k, address, sTuple+tProto, sTuple+tDstPort, hostVIPRanges, TakeService.String())
	g.jump(PassVIP.String())
	g.at(icmp)
	g.fromUs(PassVIP.String())
	g.inSet(k, address, sQuote+tProto, sQuote+tSrcPort, hostVIPRanges, TakeICMP.String())
	g.tunnel()
	g.jump(PassVIP.String())
}

// tunnel takes an ICMP error that quotes what we put into a tunnel; else it goes on.
func (g *generator) tunnel() {
	g.inPorts(kindTunnel, sQuote+tDst, sQuote+tProto, sQuote+tDstPort, TakeTunnelICMP.String())
}

// server is rules 5 and 6: what servers answer, and errors about what they were sent.
func (g *generator) server() {
	g.at("server")
	g.load(asm.R1, sQuotes, asm.DWord)
	g.emit(asm.JEq.Imm(asm.R1, 0, "answer"))
	g.hostBits(sQuote + tDst)
	g.store(sHost, asm.R1, asm.DWord)
	g.unless(hostServer, PassOther.String())
	g.inSet(kindServer, sQuote+tDst, sQuote+tProto, sQuote+tDstPort, hostServerRanges, TakeServerICMP.String())
	g.decideAt(PassOther)

	g.at("answer")
	g.balanced(sTuple, PassOther.String())
	g.load(asm.R1, sTuple+tShape, asm.Word)
	g.emit(asm.JEq.Imm(asm.R1, int32(shapeMalformed), PassOther.String()))
	g.hostBits(sTuple + tSrc)
	g.store(sHost, asm.R1, asm.DWord)
	g.unless(hostServer, PassOther.String())
	g.load(asm.R1, sTuple+tShape, asm.Word)
	g.emit(asm.JEq.Imm(asm.R1, int32(shapeLater), "piece"))
	g.inSet(kindServer, sTuple+tSrc, sTuple+tProto, sTuple+tSrcPort, hostServerRanges, TakeServer.String())
	g.jump(PassOther.String())
	g.at("piece") // of whatever port, of a protocol without ports by the protocol
	g.hasPorts(sTuple, "piece_whole")
	g.jump(TakeServerFragment.String())
	g.at("piece_whole")
	g.inSet(kindServer, sTuple+tSrc, sTuple+tProto, sTuple+tSrcPort, hostServerRanges, TakeServerFragment.String())
	g.jump(PassOther.String())
	for _, r := range []Reason{TakeServer, TakeServerFragment, TakeServerICMP} {
		g.decideAt(r)
	}
}

// hostBits looks the address up: R1 is its host bits, or 0.
func (g *generator) hostBits(address int16) {
	unknown := g.unique("unknown")
	g.copy16(sHostKey, address)
	g.load(asm.R1, sTuple+tFamily, asm.Word)
	g.store(sHostKey+16, asm.R1, asm.Word)
	g.lookup(g.maps.tables[tableHosts], sHostKey)
	g.emit(
		asm.Mov.Imm(asm.R1, 0),
		asm.JEq.Imm(asm.R0, 0, unknown),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
	)
	g.at(unknown)
}

// unless goes to label when none of the host bits in sHost is set.
func (g *generator) unless(bits int32, label string) {
	g.load(asm.R1, sHost, asm.DWord)
	g.emit(asm.And.Imm(asm.R1, bits), asm.JEq.Imm(asm.R1, 0, label))
}

// fromUs goes to label unless an ICMP error quotes a packet that left from the address the error came to.
func (g *generator) fromUs(label string) {
	g.load(asm.R1, sQuotes, asm.DWord)
	g.emit(asm.JEq.Imm(asm.R1, 0, label))
	for i := int16(0); i < 16; i += 8 {
		g.load(asm.R1, sTuple+tDst+i, asm.DWord)
		g.load(asm.R2, sQuote+tSrc+i, asm.DWord)
		g.emit(asm.JNE.Reg(asm.R1, asm.R2, label))
	}
}

// hasPorts goes to label if the protocol of the tuple at t has no ports.
func (g *generator) hasPorts(t int16, label string) {
	g.oneOf(t, label, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP)
}

// balanced goes to label if there can be no services of the protocol of the tuple at t.
func (g *generator) balanced(t int16, label string) {
	g.oneOf(t, label, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoESP, packet.ProtoAH)
}

// oneOf goes to label if the protocol of the tuple at t is none of these.
func (g *generator) oneOf(t int16, label string, protos ...int32) {
	one := g.unique("one")
	g.load(asm.R1, t+tProto, asm.Word)
	last := len(protos) - 1
	for _, p := range protos[:last] {
		g.emit(asm.JEq.Imm(asm.R1, p, one))
	}
	g.emit(asm.JNE.Imm(asm.R1, protos[last], label))
	g.at(one)
}

// inSet goes to hit if the port is in the set of that kind, address and protocol: first among the single ports, which nearly all sets
// are made of, then, if the address has any, among the ranges. All but kind and ranged are places on the stack.
func (g *generator) inSet(k kind, address, proto, port int16, ranged int32, hit string) {
	g.inPorts(k, address, proto, port, hit)
	miss := g.unique("miss")
	g.unless(ranged, miss)
	g.inRanges(k, address, proto, port, hit)
	g.at(miss)
}

// inPorts goes to hit if the port is one of the single ports of the set.
func (g *generator) inPorts(k kind, address, proto, port int16, hit string) {
	g.copy16(sPortKey, address)
	g.load(asm.R1, port, asm.Half)
	g.store(sPortKey+16, asm.R1, asm.Half)
	g.load(asm.R1, proto, asm.Word)
	g.store(sPortKey+18, asm.R1, asm.Byte)
	g.tag(sPortKey+19, k)
	g.lookup(g.maps.tables[tablePorts], sPortKey)
	g.emit(asm.JNE.Imm(asm.R0, 0, hit))
}

// inRanges goes to hit if the port is in a range of the set. noProto stands for protocol 0.
func (g *generator) inRanges(k kind, address, proto, port int16, hit string) {
	g.set(sRangeKey, rangeBits+16, asm.Word)
	for i := int16(0); i < 16; i += 4 { // the key is aligned to 4 bytes only
		g.load(asm.R1, address+i, asm.Word)
		g.store(sRangeKey+4+i, asm.R1, asm.Word)
	}
	g.tag(sRangeKey+20, k)
	if proto == noProto {
		g.emit(asm.Mov.Imm(asm.R1, 0))
	} else {
		g.load(asm.R1, proto, asm.Word)
	}
	g.store(sRangeKey+21, asm.R1, asm.Byte)
	g.load(asm.R1, port, asm.Half)
	g.store(sRangeKey+22, asm.R1, asm.Half)
	g.lookup(g.maps.tables[tableRanges], sRangeKey)
	g.emit(asm.JNE.Imm(asm.R0, 0, hit))
}

// tag stores kind and the packet's family in one byte.
func (g *generator) tag(at int16, k kind) {
	g.load(asm.R1, sTuple+tFamily, asm.Word)
	g.emit(asm.Or.Imm(asm.R1, int32(k)<<4))
	g.store(at, asm.R1, asm.Byte)
}
