package bench

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Registers of the program that sends. R0 to R5 are free.
const (
	rTime   = asm.R6 // the context, until the frame is looked at
	rSize   = asm.R7
	rNumber = asm.R8
	rFrame  = asm.R9 // the map's value, until the frame is looked at
)

const (
	xdpTX  = 3
	sEnd   = -8 // on the stack: behind the frame's last byte
	sAddrs = -16
	sWhen  = -24

	// Of sourceState.
	oNumber, oLimit, oStart, oGap, oUntil, oSchedule = 0, 8, 16, 24, 32, 40
)

// sourceProgram makes the program that writes a frame of t, all of it but the payload, which is zero from the beginning, and sends it. It
// is [crafter.next] once more.
func sourceProgram(t *Traffic, state, schedule int) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: "weir_pktgen_send", Type: ebpf.XDP, License: "GPL", Instructions: sourceCode(t, state, schedule)})
}

func sourceCode(t *Traffic, state, schedule int) asm.Instructions {
	c := newCrafter(*t, 0)
	largest := c.shapes[0]
	for _, s := range c.shapes {
		if len(s.frame) > len(largest.frame) {
			largest = s
		}
	}
	var p code
	p.emit(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(rFrame, state, 0),
		asm.LoadMem(rNumber, rFrame, oNumber, asm.DWord),
		asm.LoadMem(asm.R1, rFrame, oLimit, asm.DWord),
		asm.JGE.Reg(rNumber, asm.R1, "wait"),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, rFrame, oStart, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, "started"),
		asm.StoreMem(rFrame, oStart, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, rFrame, oUntil, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.StoreMem(rFrame, oUntil, asm.R1, asm.DWord),
	)
	p.at("started")
	p.emit(
		asm.LoadMem(asm.R1, rFrame, oUntil, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "wait"),
		asm.LoadMem(asm.R1, rFrame, oGap, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "due"), // now
		asm.Mul.Reg(asm.R1, rNumber),
		asm.RSh.Imm(asm.R1, gapShift),
		asm.LoadMem(asm.R2, rFrame, oStart, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.JGT.Reg(asm.R1, asm.R0, "wait"),
		asm.Mov.Reg(asm.R0, asm.R1),
	)
	p.at("due")
	p.emit(
		asm.StoreMem(asm.RFP, sWhen, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R1, rNumber),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(rFrame, oNumber, asm.R1, asm.DWord), // only one thread runs it
	)
	if len(c.shapes) == 1 {
		p.emit(asm.Mov.Imm(rSize, int32(len(largest.frame))))
	} else {
		p.emit(
			asm.Mov.Reg(asm.R1, rNumber),
			asm.Mod.Imm(asm.R1, int32(schedule)),
			asm.And.Imm(asm.R1, maxSchedule-1), // for the verifier
			asm.LSh.Imm(asm.R1, 1),
			asm.Add.Reg(asm.R1, rFrame),
			asm.LoadMem(rSize, asm.R1, oSchedule, asm.Half),
			asm.Mov.Reg(asm.R2, rSize),
			asm.Sub.Imm(asm.R2, int32(len(largest.frame))),
			asm.JEq.Imm(asm.R2, 0, "sized"),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnXdpAdjustTail.Call(), // the kernel restores the length before the next frame
		)
		p.at("sized")
	}
	l4 := int16(c.l4)
	p.emit(
		asm.LoadMem(rFrame, asm.R6, ctxData, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, ctxDataEnd, asm.Word),
		asm.LoadMem(rTime, asm.RFP, sWhen, asm.DWord),
		asm.StoreMem(asm.RFP, sEnd, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R1, rFrame),
		asm.Add.Imm(asm.R1, int32(t.headers())),
		asm.JGT.Reg(asm.R1, asm.R2, "abort"),
	)
	// Headers, but for what follows below.
	head := largest.frame[:t.headers()]
	for i := 0; i < len(head); {
		if len(head)-i >= 4 {
			p.emit(asm.StoreImm(rFrame, int16(i), int64(int32(binary.NativeEndian.Uint32(head[i:]))), asm.Word))
			i += 4
			continue
		}
		p.emit(asm.StoreImm(rFrame, int16(i), int64(binary.NativeEndian.Uint16(head[i:])), asm.Half))
		i += 2
	}
	// The flow: R1 what is left of its number, R4 the sum of the addresses, R5 that of the ports.
	p.emit(asm.Mov.Reg(asm.R1, rNumber))
	if t.Attack != NoAttack {
		p.emit(asm.RSh.Imm(asm.R1, 1))
	}
	if t.Shuffle {
		p.mix64()
	}
	p.reduce(asm.Mod, asm.R1, t.Flows)
	p.emit(asm.Mov.Imm(asm.R4, 0), asm.Mov.Imm(asm.R5, 0))
	p.part(t.SrcPorts.Count(), uint64(t.SrcPorts.First), asm.R5, l4, asm.Half)
	addr, size := int16(26), asm.Word
	if !c.v4 {
		addr, size = 30, asm.DWord
	}
	p.part(t.Src.Count(), c.base.src, asm.R4, addr, size)
	p.part(t.DstPorts.Count(), uint64(t.DstPorts.First), asm.R5, l4+2, asm.Half)
	if !c.v4 {
		addr += 8
	}
	p.part(math.MaxUint64, c.base.dst, asm.R4, addr+int16(size.Sizeof()), size)
	p.emit(asm.StoreMem(asm.RFP, sAddrs, asm.R4, asm.DWord))
	if t.Kind == UDP {
		p.datagram(c, &largest)
	} else {
		p.syn(c, &largest)
	}
	if largest.attack != nil {
		p.attack(&largest)
	}
	p.emit(asm.Mov.Imm(asm.R0, xdpTX), asm.Return())
	p.at("wait")
	p.emit(asm.Mov.Imm(asm.R0, xdpDrop), asm.Return())
	p.at("abort")
	p.emit(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return p.insns
}

// datagram writes what depends on the length of a datagram, its stamp and its sums. R4 is the sum of the addresses, and on the stack, R5 that of the ports.
func (p *code) datagram(c *crafter, largest *shape) {
	l4 := int16(c.l4)
	// Lengths, and the sums without them.
	length := len(largest.frame) - c.l4
	if c.v4 {
		p.emit(asm.Mov.Reg(asm.R1, rSize), asm.Sub.Imm(asm.R1, 14))
		p.emit(asm.Add.Reg(asm.R4, asm.R1), asm.Add.Imm(asm.R4, int32(fold(largest.ipSum+uint64(^uint16(len(largest.frame)-14))))))
		p.put(asm.R1, 16, asm.Half)
		p.fold(asm.R4)
		p.emit(asm.Xor.Imm(asm.R4, 0xffff))
		p.put(asm.R4, 24, asm.Half)
	}
	p.emit(
		asm.Mov.Reg(asm.R1, rSize),
		asm.Sub.Imm(asm.R1, int32(c.l4)),
		asm.Add.Reg(asm.R5, asm.R1), // of the UDP header
		asm.Add.Reg(asm.R5, asm.R1), // of the pseudo header
		asm.Add.Imm(asm.R5, int32(fold(largest.l4Sum+2*uint64(^uint16(length))))),
		asm.LoadMem(asm.R2, asm.RFP, sAddrs, asm.DWord),
		asm.Add.Reg(asm.R5, asm.R2),
	)
	if !c.v4 {
		p.put(asm.R1, 18, asm.Half)
		p.emit(asm.Mov.Reg(asm.R1, rSize), asm.Sub.Imm(asm.R1, int32(c.l4)))
	}
	p.put(asm.R1, l4+4, asm.Half)
	// The stamp.
	p.emit(asm.Add.Imm(asm.R5, stampMagic<<8))
	p.addWords(rNumber)
	p.addWords(rTime)
	p.fold(asm.R5)
	p.emit(
		asm.Xor.Imm(asm.R5, 0xffff),
		asm.JNE.Imm(asm.R5, 0, "summed"),
		asm.Mov.Imm(asm.R5, 0xffff), // RFC 768
	)
	p.at("summed")
	p.put(asm.R5, l4+6, asm.Half)
	if len(c.shapes) > 1 {
		// The page bore other sizes before, whose stamps would lie in the payload.
		p.emit(asm.LoadMem(asm.R3, asm.RFP, sEnd, asm.DWord))
		for i, s := range c.shapes {
			clean := fmt.Sprintf("clean_%d", i)
			at := int16(len(s.frame) - stampLen)
			p.emit(
				asm.Mov.Reg(asm.R1, rFrame),
				asm.Add.Imm(asm.R1, int32(len(s.frame))),
				asm.JGT.Reg(asm.R1, asm.R3, clean),
				asm.Mov.Imm(asm.R1, 0),
				asm.StoreMem(rFrame, at, asm.R1, asm.DWord),
				asm.StoreMem(rFrame, at+8, asm.R1, asm.DWord),
				asm.StoreMem(rFrame, at+16, asm.R1, asm.Half),
			)
			p.at(clean)
		}
	}
	p.emit(
		asm.Mov.Reg(asm.R1, rSize),
		asm.Sub.Imm(asm.R1, stampLen),
		asm.And.Imm(asm.R1, 0xfff), // for the verifier
		asm.Add.Reg(asm.R1, rFrame),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, stampLen),
		asm.LoadMem(asm.R3, asm.RFP, sEnd, asm.DWord),
		asm.JGT.Reg(asm.R2, asm.R3, "abort"),
		asm.StoreImm(asm.R1, 0, int64(binary.NativeEndian.Uint16([]byte{stampMagic, 0})), asm.Half),
		asm.HostTo(asm.BE, rNumber, asm.DWord),
		asm.StoreMem(asm.R1, 2, rNumber, asm.DWord),
		asm.HostTo(asm.BE, rTime, asm.DWord),
		asm.StoreMem(asm.R1, 10, rTime, asm.DWord),
	)
}

// attack makes every second datagram one of the attack's. R1 is where its stamp is, and rNumber is in network byte order.
func (p *code) attack(largest *shape) {
	const payload = 14 + 20 + 8 // over IPv4
	end := int32(largest.attack[len(largest.attack)-1].at + 2)
	p.emit(
		asm.LoadMem(asm.R2, asm.RFP, sEnd, asm.DWord),
		asm.Mov.Reg(asm.R3, rFrame),
		asm.Add.Imm(asm.R3, end),
		asm.JGT.Reg(asm.R3, asm.R2, "abort"),
		asm.HostTo(asm.BE, rNumber, asm.DWord),
		asm.Mov.Reg(asm.R2, rNumber),
		asm.And.Imm(asm.R2, 1),
		asm.JEq.Imm(asm.R2, 0, "good"),
		asm.StoreImm(asm.R1, 0, attackMagic, asm.Byte),
		asm.LoadMem(asm.R4, rFrame, 24, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.Xor.Imm(asm.R4, 0xffff),
		asm.Add.Imm(asm.R4, int32(fold(largest.attackSum))),
	)
	for _, w := range largest.attack {
		if w.part == 0 {
			p.emit(asm.StoreImm(rFrame, int16(w.at), int64(binary.NativeEndian.Uint16([]byte{byte(w.value >> 8), byte(w.value)})), asm.Half))
			continue
		}
		p.emit(asm.Mov.Reg(asm.R5, rNumber), asm.RSh.Imm(asm.R5, int32(1+16*(w.part-1))), asm.And.Imm(asm.R5, 0xffff))
		if w.summed() {
			p.emit(asm.Add.Reg(asm.R4, asm.R5))
		}
		p.put(asm.R5, int16(w.at), asm.Half)
	}
	p.fold(asm.R4)
	p.emit(asm.Xor.Imm(asm.R4, 0xffff))
	p.put(asm.R4, 24, asm.Half)
	p.emit(asm.Ja.Label("done"))
	p.at("good")
	p.emit(asm.Mov.Imm(asm.R1, 0))
	for at := int16(payload); at < int16(end); at += 2 {
		p.emit(asm.StoreMem(rFrame, at, asm.R1, asm.Half)) // the page may have been an attack's
	}
	p.at("done")
}

// syn writes the time into the sequence number of a SYN, and its sums. What follows the header is padding, so that no sum depends on the length.
func (p *code) syn(c *crafter, largest *shape) {
	if c.v4 {
		p.emit(asm.Add.Imm(asm.R4, int32(fold(largest.ipSum))))
		p.fold(asm.R4)
		p.emit(asm.Xor.Imm(asm.R4, 0xffff))
		p.put(asm.R4, 24, asm.Half)
	}
	p.emit(
		asm.LoadMem(asm.R2, asm.RFP, sAddrs, asm.DWord),
		asm.Add.Reg(asm.R5, asm.R2),
		asm.Add.Imm(asm.R5, int32(fold(largest.l4Sum))),
		asm.RSh.Imm(rTime, tickShift),
		asm.LSh.Imm(rTime, 32),
		asm.RSh.Imm(rTime, 32),
		asm.Add.Reg(asm.R5, rTime),
	)
	p.put(rTime, int16(c.l4)+4, asm.Word)
	p.fold(asm.R5)
	p.emit(asm.Xor.Imm(asm.R5, 0xffff))
	p.put(asm.R5, int16(c.l4)+16, asm.Half)
}

// code collects instructions.
type code struct {
	insns asm.Instructions
	label string
}

func (p *code) emit(insns ...asm.Instruction) {
	for _, in := range insns {
		if p.label != "" {
			in = in.WithSymbol(p.label)
			p.label = ""
		}
		p.insns = append(p.insns, in)
	}
}

// at puts a label before the next instruction.
func (p *code) at(label string) { p.label = label }

// reduce divides r by n, or takes the rest. It spoils R3.
func (p *code) reduce(op asm.ALUOp, r asm.Register, n uint64) {
	if n == math.MaxUint64 {
		return // larger than any number of a flow
	}
	p.emit(asm.LoadImm(asm.R3, int64(n), asm.DWord), op.Reg(r, asm.R3))
}

// part takes the next part of the flow's number in R1, one of n, adds it to base, adds that to sum and writes it into the frame. It spoils R2 and R3.
func (p *code) part(n, base uint64, sum asm.Register, at int16, size asm.Size) {
	p.emit(asm.Mov.Reg(asm.R2, asm.R1))
	p.reduce(asm.Mod, asm.R2, n)
	p.reduce(asm.Div, asm.R1, n)
	p.emit(asm.LoadImm(asm.R3, int64(base), asm.DWord), asm.Add.Reg(asm.R2, asm.R3))
	if size == asm.DWord { // its lower half, so that the sum does not overflow
		p.emit(asm.Mov.Reg(asm.R3, asm.R2), asm.RSh.Imm(asm.R3, 32), asm.Add.Reg(sum, asm.R3))
		p.emit(asm.Mov.Reg(asm.R3, asm.R2), asm.LSh.Imm(asm.R3, 32), asm.RSh.Imm(asm.R3, 32), asm.Add.Reg(sum, asm.R3))
	} else {
		p.emit(asm.Add.Reg(sum, asm.R2))
	}
	p.put(asm.R2, at, size)
}

// put writes r into the frame in network byte order; r is spoiled.
func (p *code) put(r asm.Register, at int16, size asm.Size) {
	p.emit(asm.HostTo(asm.BE, r, size), asm.StoreMem(rFrame, at, r, size))
}

// addWords adds a number of 64 bits to the sum in R5. It spoils R3.
func (p *code) addWords(r asm.Register) {
	p.emit(asm.Mov.Reg(asm.R3, r), asm.RSh.Imm(asm.R3, 32), asm.Add.Reg(asm.R5, asm.R3))
	p.emit(asm.Mov.Reg(asm.R3, r), asm.LSh.Imm(asm.R3, 32), asm.RSh.Imm(asm.R3, 32), asm.Add.Reg(asm.R5, asm.R3))
}

// fold is [fold] of r, less than 2^48. It spoils R3.
func (p *code) fold(r asm.Register) {
	for range 4 {
		p.emit(asm.Mov.Reg(asm.R3, r), asm.RSh.Imm(asm.R3, 16), asm.And.Imm(r, 0xffff), asm.Add.Reg(r, asm.R3))
	}
}

// mix64 is [mix64] of R1. It spoils R2 and R3.
func (p *code) mix64() {
	xorShift := func(n int32) {
		p.emit(asm.Mov.Reg(asm.R2, asm.R1), asm.RSh.Imm(asm.R2, n), asm.Xor.Reg(asm.R1, asm.R2))
	}
	with := func(op asm.ALUOp, k uint64) { p.emit(asm.LoadImm(asm.R3, int64(k), asm.DWord), op.Reg(asm.R1, asm.R3)) }
	with(asm.Add, 0x9e3779b97f4a7c15)
	xorShift(30)
	with(asm.Mul, 0xbf58476d1ce4e5b9)
	xorShift(27)
	with(asm.Mul, 0x94d049bb133111eb)
	xorShift(31)
}
