package steer

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// Registers of the generated program. The helpers that it calls keep these; R0 to R5 are free between calls.
const (
	rCtx  = asm.R6 // struct xdp_md or struct __sk_buff
	rData = asm.R7 // first byte of the frame
	rEnd  = asm.R8 // behind its last byte
	rOff  = asm.R9 // offset of the header that is looked at, a number the verifier knows bounds of; at the end the Reason
)

// Stack of the program: offsets from the frame pointer. What is looked up lies in the key's layout (layout.go).
const (
	sMACKey   = -16
	sHostKey  = -40
	sPortKey  = -64
	sRangeKey = -88
	sVNIKey   = -112
	sTuple    = sVNIKey - tupleSize
	sQuote    = sTuple - tupleSize
	sPort     = sQuote - 8  // value found in macs
	sEther    = sQuote - 16 // Ethernet type behind the first tag
	sHost     = sQuote - 24 // host bits of the destination
	sQuotes   = sQuote - 32 // 1: an ICMP error whose quoted packet lies in sQuote
	sReason   = sQuote - 40 // key into the counters
	sTagged   = sQuote - 48 // 1: a tag was found
	sNetKey   = sQuote - 72
	sNet      = sQuote - 88  // number of the prefix that the destination lies in, as in the keys of its ports
	sKind     = sQuote - 96  // why the frame is unusual, a budgetKind
	sQueue    = sQuote - 104 // key into sockets and budgets
	sSocket   = sQuote - 144 // whose a datagram is: struct bpf_sock_tuple
)

// A tuple on the stack, as offsets from its first byte.
const (
	tDst    = 0
	tSrc    = 16
	tPorts  = 32 // source, destination: as on the wire
	tProto  = 36
	tShape  = 40
	tFirst  = 44
	tFamily = 48

	tupleSize = 56
)

// assembler collects instructions. Labels are symbols of the instruction that follows them.
type assembler struct {
	insns asm.Instructions
	label string // pending
	fresh int
}

func (a *assembler) emit(insns ...asm.Instruction) {
	for _, in := range insns {
		if a.label != "" {
			in = in.WithSymbol(a.label)
			a.label = ""
		}
		a.insns = append(a.insns, in)
	}
}

// at puts a label before the next instruction.
func (a *assembler) at(label string) {
	if a.label != "" { // an instruction bears one symbol only
		a.emit(asm.Mov.Imm(asm.R0, 0))
	}
	a.label = label
}

// unique makes a label that occurs once.
func (a *assembler) unique(name string) string {
	a.fresh++
	return fmt.Sprintf("%s_%d", name, a.fresh)
}

func (a *assembler) jump(label string) { a.emit(asm.Ja.Label(label)) }

// load and store move between a register and the stack.
func (a *assembler) load(r asm.Register, at int16, size asm.Size) {
	a.emit(asm.LoadMem(r, asm.RFP, at, size))
}

func (a *assembler) store(at int16, r asm.Register, size asm.Size) {
	a.emit(asm.StoreMem(asm.RFP, at, r, size))
}

func (a *assembler) set(at int16, value int64, size asm.Size) {
	a.emit(asm.Instruction{OpCode: asm.StoreImmOp(size), Dst: asm.RFP, Offset: at, Constant: value}) // StoreImm refuses 8 bytes
}

// copy16 copies an address on the stack.
func (a *assembler) copy16(to, from int16) {
	a.load(asm.R1, from, asm.DWord)
	a.store(to, asm.R1, asm.DWord)
	a.load(asm.R1, from+8, asm.DWord)
	a.store(to+8, asm.R1, asm.DWord)
}

// header points R1 at the frame's byte rOff, or goes to short when fewer than n bytes follow. It spoils R2.
func (a *assembler) header(n int32, short string) {
	a.emit(
		asm.Mov.Reg(asm.R1, rData),
		asm.Add.Reg(asm.R1, rOff),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, n),
		asm.JGT.Reg(asm.R2, rEnd, short),
	)
}

// forget makes the verifier forget all it knows of rOff but that it is at most maxOff: rOff xor an unknown number, twice. So ways through
// the headers that differ in their lengths only become one to it. Without this it does not get through the extension headers within
// its million steps; with it the program costs it 17 thousand (Linux 6.18). It spoils R2.
func (a *assembler) forget() {
	a.load(asm.R2, sMACKey, asm.Word) // the ifindex, unknown to the verifier
	a.emit(
		asm.Xor.Reg(rOff, asm.R2),
		asm.Xor.Reg(rOff, asm.R2),
		asm.And.Imm(rOff, maxOff),
	)
}

// maxOff is beyond any offset that the headers can add up to: twice (48 + 6*2048) bytes and the tags.
const maxOff = 0x7fff

// lookup asks the map fd for the key on the stack: R0 is a pointer to its value, or 0. R1 to R5 are spoiled.
func (a *assembler) lookup(fd int, key int16) {
	a.emit(
		asm.LoadMapPtr(asm.R1, fd),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(key)),
		asm.FnMapLookupElem.Call(),
	)
}

// decide ends the program with a reason.
func (a *assembler) decide(r Reason) {
	a.emit(asm.Mov.Imm(rOff, int32(r)))
	if r.Verdict() == Take {
		a.jump("take")
	} else {
		a.jump("pass")
	}
}

// decideAt is decide behind a label of its own, named after the reason, for all who come to it from elsewhere.
func (a *assembler) decideAt(r Reason) {
	a.at(r.String())
	a.decide(r)
}
