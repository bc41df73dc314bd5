package steer

import (
	"github.com/cilium/ebpf/asm"

	"weir/dataplane/packet"
)

// budgetKind is why a frame is unusual: it costs the worker or the kernel more than others do, and anybody can send as many as he likes. What a queue has no budget for is
// dropped here, before it takes room in the ring that the others need. The worker, which may have several queues, has a budget of its own and looks more closely.
type budgetKind int64

const (
	usual           budgetKind = iota
	unusualFragment            // or behind an extension header of IPv6, AH aside
	unusualICMP
	unusualTTL  // the TTL or hop limit is used up
	unusualPort // to a VIP, and nobody's: the kernel answers, which costs ten times what we do with others

	numBudgets = iota - 1
)

const (
	budgetSize  = numBudgets * 8 // a value of the budgets map: when the next frame of each kind is due; that of unusualPort is the first
	budgetBurst = 100_000_000    // nanoseconds' worth of frames that may come at once
	passCost    = 10             // what a frame of unusualPort takes up, in others
)

var _ [numBudgets & (numBudgets - 1)]struct{} = [0]struct{}{} // a power of two, so that the verifier sees what a kind is an index into

// unusual marks the frame as of a kind, if t is the frame's own tuple and not one that it quotes.
func (g *generator) unusual(t int16, k budgetKind) {
	if t == sTuple {
		g.set(sKind, int64(k), asm.DWord)
	}
}

// ttl marks the frame if the TTL in R2 is used up.
func (g *generator) ttl(t int16) {
	if t != sTuple {
		return
	}
	left := g.unique("ttl")
	g.emit(asm.JGT.Imm(asm.R2, 1, left))
	g.unusual(t, unusualTTL)
	g.at(left)
}

// answered ends the program for what is the kernel's, though for a VIP. What the kernel would only answer has a budget: echo requests, TCP's SYNs, and UDP for which there is no
// socket. All else may be the host's own, whose address the VIP may be.
func (g *generator) answered(r Reason) {
	const tuple = sSocket // struct bpf_sock_tuple
	g.load(asm.R1, sKind, asm.DWord)
	g.emit(asm.JNE.Imm(asm.R1, int32(usual), "bounded"))
	g.load(asm.R1, sTuple+tProto, asm.Word)
	g.emit(asm.JEq.Imm(asm.R1, packet.ProtoUDP, "udp"), asm.JNE.Imm(asm.R1, packet.ProtoTCP, "free"))
	g.header(14, "free")
	g.emit(
		asm.LoadMem(asm.R2, asm.R1, 13, asm.Byte),
		asm.And.Imm(asm.R2, int32(packet.TCPSyn|packet.TCPAck)),
		asm.JNE.Imm(asm.R2, int32(packet.TCPSyn), "free"),
	)
	g.jump("answer_bounded")

	g.at("udp")
	g.load(asm.R1, sTuple+tFamily, asm.Word)
	g.emit(asm.JEq.Imm(asm.R1, 6, "udp6"))
	for i, at := range []int16{tSrc + 12, tDst + 12, tPorts} {
		g.load(asm.R1, sTuple+at, asm.Word)
		g.store(tuple+int16(4*i), asm.R1, asm.Word)
	}
	g.emit(asm.Mov.Imm(asm.R3, 12))
	g.jump("socket")
	g.at("udp6")
	g.copy16(tuple, sTuple+tSrc)
	g.copy16(tuple+16, sTuple+tDst)
	g.load(asm.R1, sTuple+tPorts, asm.Word)
	g.store(tuple+32, asm.R1, asm.Word)
	g.emit(asm.Mov.Imm(asm.R3, 36))
	g.at("socket")
	g.emit(
		asm.Mov.Reg(asm.R1, rCtx),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(tuple)),
		asm.Mov.Imm(asm.R4, -1), // BPF_F_CURRENT_NETNS
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkLookupUdp.Call(),
		asm.JEq.Imm(asm.R0, 0, "answer_bounded"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.FnSkRelease.Call(),
	)
	g.at("free")
	g.decide(r)
	g.at("answer_bounded")
	g.unusual(sTuple, unusualPort)
	g.at("bounded")
	g.emit(asm.Mov.Imm(rOff, int32(r)))
	g.jump("pass_within")
}

// queue puts the frame's queue into sQueue, or goes to none where there are so many that it has no number.
func (g *generator) queue(none string) {
	g.emit(asm.LoadMem(asm.R3, rCtx, xdpQueue, asm.Word), asm.JGE.Imm(asm.R3, int32(g.maps.queues), none))
	g.load(asm.R2, sPort, asm.DWord)
	g.emit(asm.RSh.Imm(asm.R2, slotShift), asm.Mul.Imm(asm.R2, int32(g.maps.queues)), asm.Add.Reg(asm.R2, asm.R3))
	g.store(sQueue, asm.R2, asm.Word)
}

// budget goes to deliver, but drops a frame of a kind whose budget is used up. It is the generic cell rate algorithm (ITU-T I.371): due is when the
// next frame would come if they came evenly, and how far it may be ahead of the clock is the burst. Only one CPU at a time receives on a queue.
func (g *generator) budget(deliver string) {
	const rEvery, rDue = rData, rEnd // the frame is not looked at any more
	ours, due, within := g.unique("ours"), g.unique("due"), g.unique("within")
	g.load(asm.R1, sKind, asm.DWord)
	g.emit(
		asm.JEq.Imm(asm.R1, int32(usual), deliver),
		asm.LoadMapValue(asm.R1, g.maps.heartbeat, 0),
		asm.LoadMem(rEvery, asm.R1, heartbeatUnusual, asm.DWord),
		asm.JEq.Imm(rEvery, 0, deliver),
	)
	g.lookup(g.maps.budgets, sQueue)
	g.emit(asm.JEq.Imm(asm.R0, 0, deliver), asm.Mov.Reg(rDue, asm.R0))
	g.load(asm.R1, sKind, asm.DWord)
	g.emit(
		asm.JNE.Imm(asm.R1, int32(unusualPort), ours),
		asm.Mul.Imm(rEvery, passCost),
	)
	g.at(ours)
	g.emit(
		asm.And.Imm(asm.R1, numBudgets-1),
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Reg(rDue, asm.R1),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, rDue, 0, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R0, due),
		asm.Mov.Reg(asm.R1, asm.R0),
	)
	g.at(due)
	g.emit(
		asm.Add.Reg(asm.R1, rEvery),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Sub.Reg(asm.R2, asm.R0),
		asm.JLE.Imm(asm.R2, budgetBurst, within),
		asm.JLE.Reg(asm.R2, rEvery, within), // less than one in a burst
		asm.Mov.Imm(rOff, int32(DroppedUnusual)),
	)
	g.count()
	g.emit(asm.Mov.Imm(asm.R0, xdpDrop), asm.Return())
	g.at(within)
	g.emit(asm.StoreMem(rDue, 0, asm.R1, asm.DWord))
	g.jump(deliver)
}
