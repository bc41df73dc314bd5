package steer

import (
	"github.com/cilium/ebpf/asm"

	"weir/dataplane/packet"
)

// walks follows the IP headers, and those that an ICMP error quotes. All ways go on at hosts, with the packet's tuple in sTuple, rOff
// at its transport header if it has one, and sQuotes saying whether sQuote is a packet that was quoted.
func (g *generator) walks() {
	const short, malformed, later, hosts = "pass_short", "malformed", "later", "hosts"

	g.at("ipv4")
	g.forget()
	g.walk4(sTuple, short, malformed, later)
	g.ports(sTuple, 4, malformed, hosts, packet.ProtoICMP, "icmp4")
	g.at("icmp4")
	g.unusual(sTuple, unusualICMP)
	g.header(8, malformed)
	g.emit(
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Byte),
		asm.JEq.Imm(asm.R2, 3, "quote4"),
		asm.JEq.Imm(asm.R2, 4, "quote4"),
		asm.JEq.Imm(asm.R2, 11, "quote4"),
		asm.JNE.Imm(asm.R2, 8, hosts),
	)
	g.at("echo")
	g.unusual(sTuple, unusualPort)
	g.jump(hosts)
	g.at("quote4")
	g.quote(func() { g.walk4(sQuote, hosts, hosts, hosts) })

	g.at("ipv6")
	g.forget()
	g.walk6(sTuple, short, malformed, later)
	g.ports(sTuple, 4, malformed, hosts, packet.ProtoICMPv6, "icmp6")
	g.at("icmp6")
	g.unusual(sTuple, unusualICMP)
	g.header(8, malformed)
	g.emit(
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Byte),
		asm.JLT.Imm(asm.R2, 128, "quote6"),
		asm.JEq.Imm(asm.R2, 128, "echo"),
		asm.JLT.Imm(asm.R2, 133, hosts),
		asm.JLE.Imm(asm.R2, 137, PassARPND.String()),
	)
	g.jump(hosts)
	g.at("quote6")
	g.quote(func() { g.walk6(sQuote, hosts, hosts, hosts) })

	g.at(malformed)
	g.set(sTuple+tShape, int64(shapeMalformed), asm.Word)
	g.jump(hosts)
	g.at(later)
	g.unusual(sTuple, unusualFragment)
	g.set(sTuple+tShape, int64(shapeLater), asm.Word)
}

// quote follows what an ICMP error quotes, behind its 8 bytes of header.
func (g *generator) quote(walk func()) {
	for at := int16(sQuote); at < sQuote+tupleSize; at += 8 {
		g.set(at, 0, asm.DWord)
	}
	g.emit(asm.Add.Imm(rOff, 8))
	g.forget()
	walk()
	whole, quoted := g.unique("whole"), g.unique("quoted")
	g.portsOr(sQuote, quoteMin, "hosts", whole, quoted)
	g.at(whole)
	known := g.unique("known")
	for _, proto := range []int32{packet.ProtoIPIP, packet.ProtoIPv6, packet.ProtoGRE, packet.ProtoESP} {
		g.emit(asm.JEq.Imm(asm.R2, proto, known))
	}
	g.emit(asm.JNE.Imm(asm.R2, packet.ProtoAH, "hosts"))
	g.at(known)
	g.header(quoteMin, "hosts")
	g.at(quoted)
	g.set(sQuotes, 1, asm.DWord)
	g.jump("hosts")
}

// walk4 follows an IPv4 header into the tuple at t and goes on behind it.
func (g *generator) walk4(t int16, short, malformed, later string) {
	whole := g.unique("whole")
	g.header(20, short)
	g.emit(asm.LoadMem(asm.R2, asm.R1, 16, asm.Word))
	g.store(t+tDst+12, asm.R2, asm.Word)
	g.emit(asm.LoadMem(asm.R2, asm.R1, 12, asm.Word))
	g.store(t+tSrc+12, asm.R2, asm.Word)
	g.emit(asm.LoadMem(asm.R2, asm.R1, 9, asm.Byte))
	g.store(t+tProto, asm.R2, asm.Word)
	g.set(t+tFamily, 4, asm.Word)
	g.emit(asm.LoadMem(asm.R2, asm.R1, 8, asm.Byte))
	g.ttl(t)
	g.emit(
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Byte),
		asm.Mov.Reg(asm.R2, asm.R3),
		asm.RSh.Imm(asm.R2, 4),
		asm.JNE.Imm(asm.R2, 4, malformed),
		asm.And.Imm(asm.R3, 0xf),
		asm.JLT.Imm(asm.R3, 5, malformed),
		asm.LSh.Imm(asm.R3, 2),
		asm.LoadMem(asm.R4, asm.R1, 6, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.Add.Reg(rOff, asm.R3),
	)
	g.header(0, malformed)
	g.emit(
		asm.Mov.Reg(asm.R5, asm.R4),
		asm.And.Imm(asm.R5, 0x1fff),
		asm.JNE.Imm(asm.R5, 0, later),
		asm.And.Imm(asm.R4, 0x2000),
		asm.JEq.Imm(asm.R4, 0, whole),
	)
	g.unusual(t, unusualFragment)
	g.set(t+tFirst, 1, asm.Word)
	g.at(whole)
}

// walk6 follows an IPv6 header and up to maxExtensions extension headers into the tuple at t and goes on behind them. R5 is the next
// header throughout. The loop is unrolled.
func (g *generator) walk6(t int16, short, malformed, later string) {
	g.header(40, short)
	for i := range int16(2) {
		g.emit(asm.LoadMem(asm.R2, asm.R1, 24+8*i, asm.DWord))
		g.store(t+tDst+8*i, asm.R2, asm.DWord)
		g.emit(asm.LoadMem(asm.R2, asm.R1, 8+8*i, asm.DWord))
		g.store(t+tSrc+8*i, asm.R2, asm.DWord)
	}
	g.emit(asm.LoadMem(asm.R5, asm.R1, 6, asm.Byte))
	g.store(t+tProto, asm.R5, asm.Word)
	g.set(t+tFamily, 6, asm.Word)
	g.emit(asm.LoadMem(asm.R2, asm.R1, 7, asm.Byte))
	g.ttl(t)
	g.emit(
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Byte),
		asm.RSh.Imm(asm.R2, 4),
		asm.JNE.Imm(asm.R2, 6, malformed),
		asm.Add.Imm(rOff, 40),
	)
	done := g.unique("done")
	for n := range maxExtensions + 1 {
		generic, auth, fragment, next := g.unique("generic"), g.unique("auth"), g.unique("fragment"), g.unique("next")
		if n == maxExtensions { // one more would be one too many
			generic, auth, fragment = malformed, malformed, malformed
		}
		g.emit(
			asm.JEq.Imm(asm.R5, extHopByHop, generic),
			asm.JEq.Imm(asm.R5, extRouting, generic),
			asm.JEq.Imm(asm.R5, extDestination, generic),
			asm.JEq.Imm(asm.R5, extAuth, auth),
			asm.JEq.Imm(asm.R5, extFragment, fragment),
		)
		g.jump(done)
		if n == maxExtensions {
			break
		}
		g.at(fragment)
		g.unusual(t, unusualFragment)
		g.header(8, malformed)
		g.emit(asm.LoadMem(asm.R5, asm.R1, 0, asm.Byte))
		g.store(t+tProto, asm.R5, asm.Word)
		g.emit(
			asm.LoadMem(asm.R4, asm.R1, 2, asm.Half),
			asm.HostTo(asm.BE, asm.R4, asm.Half),
			asm.Add.Imm(rOff, 8),
			asm.Mov.Reg(asm.R3, asm.R4),
			asm.And.Imm(asm.R3, 0xfff8),
			asm.JNE.Imm(asm.R3, 0, later),
			asm.And.Imm(asm.R4, 1),
			asm.JEq.Imm(asm.R4, 0, next),
		)
		g.set(t+tFirst, 1, asm.Word)
		g.jump(next)

		g.at(auth)
		g.header(8, malformed)
		g.emit(
			asm.LoadMem(asm.R5, asm.R1, 0, asm.Byte),
			asm.LoadMem(asm.R2, asm.R1, 1, asm.Byte),
			asm.Add.Imm(asm.R2, 2),
			asm.LSh.Imm(asm.R2, 2),
			asm.Add.Reg(rOff, asm.R2),
		)
		g.jump(next)

		g.at(generic)
		g.unusual(t, unusualFragment)
		g.header(8, malformed)
		g.emit(
			asm.LoadMem(asm.R5, asm.R1, 0, asm.Byte),
			asm.LoadMem(asm.R2, asm.R1, 1, asm.Byte),
			asm.Add.Imm(asm.R2, 1),
			asm.LSh.Imm(asm.R2, 3),
			asm.Add.Reg(rOff, asm.R2),
		)
		g.at(next)
		g.forget()
	}
	g.at(done)
	g.store(t+tProto, asm.R5, asm.Word)
}

// ports reads the ports of a protocol that has them, of whose header n bytes must be there, and goes to then; a packet of protocol icmp
// goes to its label; any other to then, too.
func (g *generator) ports(t int16, n int32, malformed, then string, icmp int32, label string) {
	g.load(asm.R2, t+tProto, asm.Word)
	g.emit(asm.JEq.Imm(asm.R2, icmp, label))
	g.portsOr(t, n, malformed, then, then)
}

// portsOr reads the ports and goes to found, or to none if the protocol, which is then in R2, has none.
func (g *generator) portsOr(t int16, n int32, malformed, none, found string) {
	has := g.unique("ports")
	g.load(asm.R2, t+tProto, asm.Word)
	g.emit(
		asm.JEq.Imm(asm.R2, packet.ProtoTCP, has),
		asm.JEq.Imm(asm.R2, packet.ProtoUDP, has),
		asm.JNE.Imm(asm.R2, packet.ProtoSCTP, none),
	)
	g.at(has)
	g.header(n, malformed)
	g.emit(asm.LoadMem(asm.R2, asm.R1, 0, asm.Word))
	g.store(t+tPorts, asm.R2, asm.Word)
	g.jump(found)
}
