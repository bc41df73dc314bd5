package steer

import (
	"github.com/cilium/ebpf/asm"

	"weir/dataplane/packet"
)

// hook is where a program stands.
type hook int

const (
	hookXDP hook = iota // before the kernel; what is ours goes into an AF_XDP socket
	hookTC              // ingress, after packet sockets have their copy; what is ours is dropped so that the kernel does not answer
)

// Offsets in struct xdp_md and struct __sk_buff, and actions (include/uapi/linux/bpf.h, pkt_cls.h).
const (
	xdpData, xdpEnd, xdpIfindex, xdpQueue              = 0, 4, 12, 16
	skbLen, skbTagged, skbTCI, skbIfindex, skbD, skbDE = 0, 20, 24, 40, 76, 80

	xdpDrop, xdpPass, xdpRedirect = 1, 2, 4
	tcNext, tcShot                = -1, 2 // next: to whatever other programs stand behind us, then to the stack
)

// tcPull is how many bytes of a packet the tc program reads at most, when the kernel keeps it in pieces. Headers beyond it are cut off.
const tcPull = 512

// fds are the maps that a program refers to.
type fds struct {
	tables    [numTables]int
	sockets   int
	budgets   int
	heartbeat int
	counters  int
	queues    int // slots of the socket map per device
}

// generate writes the program. Its twin is Compiled.explain; the order of questions is the same, and so are the names.
func generate(h hook, m fds) asm.Instructions {
	g := &generator{hook: h, maps: m}
	g.ethernet()
	g.walks()
	g.hosts()
	g.server()
	g.ends()
	return g.insns
}

type generator struct {
	assembler
	hook hook
	maps fds
}

// ethernet is rule 1: device, VLAN, MAC and Ethernet type. It goes on at ipv4 or ipv6 with rOff at the header.
func (g *generator) ethernet() {
	g.emit(asm.Mov.Reg(rCtx, asm.R1))
	for at := int16(sTuple); at < sTuple+tupleSize; at += 8 {
		g.set(at, 0, asm.DWord)
	}
	g.set(sQuotes, 0, asm.DWord)
	g.set(sTagged, 0, asm.DWord)
	g.set(sKind, int64(usual), asm.DWord)
	ifindex := int16(xdpIfindex)
	if g.hook == hookXDP {
		g.emit(asm.LoadMem(rData, rCtx, xdpData, asm.Word), asm.LoadMem(rEnd, rCtx, xdpEnd, asm.Word))
	} else {
		ifindex = skbIfindex
		g.pull()
	}
	g.emit(asm.Mov.Imm(rOff, 0))
	g.header(14, PassShort.String())
	g.emit(
		asm.LoadMem(asm.R4, asm.R1, 0, asm.Word), // destination MAC
		asm.LoadMem(asm.R5, asm.R1, 4, asm.Half),
	)
	g.store(sMACKey+6, asm.R4, asm.Half)
	g.emit(asm.RSh.Imm(asm.R4, 16))
	g.store(sMACKey+8, asm.R4, asm.Half)
	g.store(sMACKey+10, asm.R5, asm.Half)
	g.emit(asm.LoadMem(asm.R3, rCtx, ifindex, asm.Word))
	g.store(sMACKey, asm.R3, asm.Word)
	g.emit(
		asm.LoadMem(asm.R3, asm.R1, 12, asm.Half),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.Mov.Imm(asm.R4, 0), // VLAN
		asm.Mov.Imm(rOff, 14),
	)
	if g.hook == hookTC { // the kernel has taken the outer tag off
		g.emit(
			asm.LoadMem(asm.R1, rCtx, skbTagged, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "intact"),
			asm.LoadMem(asm.R4, rCtx, skbTCI, asm.Word),
			asm.And.Imm(asm.R4, 0xfff),
		)
		g.set(sTagged, 1, asm.DWord)
		g.jump("vlan")
		g.at("intact")
	}
	g.emit(
		asm.JEq.Imm(asm.R3, packet.EtherTypeVLAN, "tag"),
		asm.JNE.Imm(asm.R3, packet.EtherTypeQinQ, "vlan"),
	)
	g.at("tag")
	g.header(4, PassShort.String())
	g.emit(
		asm.LoadMem(asm.R4, asm.R1, 0, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.And.Imm(asm.R4, 0xfff),
		asm.LoadMem(asm.R3, asm.R1, 2, asm.Half),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.Mov.Imm(rOff, 18),
	)
	g.set(sTagged, 1, asm.DWord)
	g.at("vlan")
	g.store(sMACKey+4, asm.R4, asm.Half)
	g.store(sEther, asm.R3, asm.DWord)
	g.station()
	g.load(asm.R3, sEther, asm.DWord)
	g.load(asm.R1, sTagged, asm.DWord)
	g.emit(
		asm.JEq.Imm(asm.R1, 0, "type"),
		asm.JEq.Imm(asm.R3, packet.EtherTypeVLAN, "inner"),
		asm.JNE.Imm(asm.R3, packet.EtherTypeQinQ, "type"),
	)
	g.at("inner") // a stacked tag is looked through
	g.header(4, PassShort.String())
	g.emit(
		asm.LoadMem(asm.R3, asm.R1, 2, asm.Half),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.Add.Imm(rOff, 4),
	)
	g.at("type")
	g.emit(
		asm.JEq.Imm(asm.R3, packet.EtherTypeIPv4, "ipv4"),
		asm.JEq.Imm(asm.R3, packet.EtherTypeIPv6, "ipv6"),
		asm.JEq.Imm(asm.R3, packet.EtherTypeARP, PassARPND.String()),
	)
	g.decideAt(PassNotIP)
	g.decideAt(PassARPND)
	g.decideAt(PassShort)
}

// pull makes the headers readable: a socket buffer may keep them outside its linear part.
func (g *generator) pull() {
	g.emit(
		asm.LoadMem(rData, rCtx, skbD, asm.Word),
		asm.LoadMem(rEnd, rCtx, skbDE, asm.Word),
		asm.LoadMem(asm.R2, rCtx, skbLen, asm.Word),
		asm.JLE.Imm(asm.R2, tcPull, "pull"),
		asm.Mov.Imm(asm.R2, tcPull),
	)
	g.at("pull")
	g.emit(
		asm.Mov.Reg(asm.R3, rEnd),
		asm.Sub.Reg(asm.R3, rData),
		asm.JGE.Reg(asm.R3, asm.R2, "linear"),
		asm.Mov.Reg(asm.R1, rCtx),
		asm.FnSkbPullData.Call(),
		asm.LoadMem(rData, rCtx, skbD, asm.Word), // the buffer may have moved; if it could not be had, what is there must do
		asm.LoadMem(rEnd, rCtx, skbDE, asm.Word),
	)
	g.at("linear")
	g.emit(asm.Mov.Imm(asm.R0, 0))
}

// station looks for device, VLAN and MAC, and failing that for device and VLAN.
func (g *generator) station() {
	g.lookup(g.maps.tables[tableMACs], sMACKey)
	g.emit(asm.JNE.Imm(asm.R0, 0, "station"))
	g.load(asm.R1, sMACKey+4, asm.Half)
	g.emit(asm.Or.Imm(asm.R1, vlanWhole))
	g.store(sMACKey+4, asm.R1, asm.Half)
	g.set(sMACKey+6, 0, asm.Half)
	g.set(sMACKey+8, 0, asm.Word)
	g.lookup(g.maps.tables[tableMACs], sMACKey)
	g.emit(asm.JNE.Imm(asm.R0, 0, "vlan_known"))
	g.load(asm.R1, sTagged, asm.DWord)
	g.emit(asm.JEq.Imm(asm.R1, 0, PassNotOurPort.String()))
	g.set(sMACKey+4, vlanOther|vlanWhole, asm.Half)
	g.lookup(g.maps.tables[tableMACs], sMACKey)
	g.emit(asm.JEq.Imm(asm.R0, 0, PassNotOurPort.String()))
	g.at("vlan_known")
	g.emit(asm.LoadMem(asm.R1, asm.R0, 0, asm.Word))
	g.store(sPort, asm.R1, asm.DWord)
	g.emit(asm.And.Imm(asm.R1, portAccess), asm.JNE.Imm(asm.R1, 0, TakeAccess.String()))
	g.load(asm.R3, sEther, asm.DWord)
	g.emit(asm.JEq.Imm(asm.R3, packet.EtherTypeARP, PassARPND.String()))
	g.decideAt(PassNotOurMAC)
	g.decideAt(PassNotOurPort)
	g.decideAt(TakeAccess)
	g.at("station")
	g.emit(asm.LoadMem(asm.R1, asm.R0, 0, asm.Word))
	g.store(sPort, asm.R1, asm.DWord)
	g.emit(asm.And.Imm(asm.R1, portAccess), asm.JNE.Imm(asm.R1, 0, TakeAccess.String()))
}

// ends counts and acts. Everything comes here with the reason in rOff.
func (g *generator) ends() {
	pass, drop := int32(xdpPass), int32(xdpDrop)
	if g.hook == hookTC {
		pass, drop = tcNext, tcShot
	}
	if g.hook == hookXDP {
		g.at("pass_within") // a budget
		g.count()
		g.queue("passed")
		g.budget("passed")
	}
	g.at("pass")
	g.count()
	g.at("passed")
	g.emit(asm.Mov.Imm(asm.R0, pass), asm.Return())

	g.at("take")
	g.count()
	if g.hook == hookXDP {
		g.queue("lonely")
		g.budget("deliver")
		g.at("deliver")
		g.load(asm.R2, sQueue, asm.Word)
		g.emit(
			asm.LoadMapPtr(asm.R1, g.maps.sockets),
			asm.Mov.Imm(asm.R3, 0), // what comes back if the slot is empty: not a redirect
			asm.FnRedirectMap.Call(),
			asm.JNE.Imm(asm.R0, xdpRedirect, "lonely"),
			asm.Return(),
		)
	}
	g.at("lonely")
	g.emit(
		asm.FnKtimeGetNs.Call(),
		asm.LoadMapValue(asm.R1, g.maps.heartbeat, 0),
		asm.LoadMem(asm.R2, asm.R1, heartbeatBeat, asm.DWord),
		asm.LoadMem(asm.R3, asm.R1, heartbeatGrace, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, PassedStale.String()), // never beaten
		asm.Sub.Reg(asm.R0, asm.R2),
		asm.JSGT.Reg(asm.R0, asm.R3, PassedStale.String()), // signed: a beat of another CPU may lie a little ahead
	)
	if g.hook == hookXDP { // a drop is what tc is there for, not a loss
		g.emit(asm.Mov.Imm(rOff, int32(DroppedNoSocket)))
		g.count()
	}
	g.emit(asm.Mov.Imm(asm.R0, drop), asm.Return())
	g.at(PassedStale.String())
	g.emit(asm.Mov.Imm(rOff, int32(PassedStale)))
	g.count()
	g.emit(asm.Mov.Imm(asm.R0, pass), asm.Return())
}

// count adds one to the counter of the reason in rOff. The counters are per CPU and nothing interrupts one run of a program by another
// on the same CPU, so a plain addition does.
func (g *generator) count() {
	counted := g.unique("counted")
	g.store(sReason, rOff, asm.Word)
	g.lookup(g.maps.counters, sReason)
	g.emit(
		asm.JEq.Imm(asm.R0, 0, counted),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
	)
	g.at(counted)
}
