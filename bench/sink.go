package bench

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// sink receives by an XDP program: it counts a stamped frame, notes how long it took, and drops it, as it drops those of an attack. Other frames go to the kernel, which
// answers ARP. There is no thread of ours.
type sink struct {
	name    string
	mode    string
	program *ebpf.Program
	state   *ebpf.Map // one value a CPU
	link    link.Link
}

// Latencies are counted in buckets of 1/64 of their power of two.
const (
	subBits     = 6
	highestBit  = 35 // 68 s
	sinkBuckets = (highestBit-subBits+1)<<subBits + 1<<subBits
)

// sinkState is what the program counts.
type sinkState struct {
	Frames, Bytes uint64
	Buckets       [sinkBuckets]uint64
}

// bucket is where the program counts a latency, and bucketStart the least latency of one.
func bucket(ns uint64) int {
	e := 0
	for ns>>e >= 2<<subBits {
		e++
	}
	return e<<subBits + int(ns>>e)
}

func bucketStart(i int) uint64 {
	if i < 2<<subBits {
		return uint64(i)
	}
	e := i>>subBits - 1
	return uint64(i-e<<subBits) << e
}

func openSink(name, mode string) (*sink, error) {
	dev, err := device(name)
	if err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	s := &sink{name: name}
	if s.state, s.program, err = sinkProgram(); err != nil {
		return nil, fmt.Errorf("%s: XDP program that counts: %w", name, err)
	}
	if s.link, s.mode, err = attach(s.program, name, dev.Index, mode); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func sinkProgram() (*ebpf.Map, *ebpf.Program, error) {
	state, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: uint32(binary.Size(sinkState{})), MaxEntries: 1})
	if err != nil {
		return nil, nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "weir_pktgen_sink", Type: ebpf.XDP, License: "GPL", Instructions: sinkCode(state.FD())})
	if err != nil {
		state.Close()
	}
	return state, program, err
}

// read adds up what all CPUs counted. Latencies are those of the middle of each bucket, within 0.8 %.
func (s *sink) read(h *hdrhistogram.Histogram) (frames, bytes uint64, err error) {
	var states []sinkState
	if err := s.state.Lookup(uint32(0), &states); err != nil {
		return 0, 0, fmt.Errorf("%s: map: %w", s.name, err)
	}
	for i := range states {
		frames += states[i].Frames
		bytes += states[i].Bytes
		if h == nil {
			continue
		}
		for j, n := range states[i].Buckets {
			if n > 0 {
				_ = h.RecordValues(min(max(int64(bucketStart(j)+bucketStart(j+1))/2, 1), highestLatency), int64(n)) // within its range
			}
		}
	}
	return frames, bytes, nil
}

func (s *sink) close() error {
	errs := closeAll(s.program, s.state)
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	return errors.Join(errs...)
}

// sinkCode is [readStamp], [bucket] and the counting.
func sinkCode(state int) asm.Instructions {
	const (
		rLen = asm.R7
		rNow = asm.R8

		stamp = -24 // on the stack; its magic byte is at the first address, number and time are not aligned
		key   = -32
	)
	var p code
	p.emit(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, ctxData, asm.Word),
		asm.LoadMem(rLen, asm.R6, ctxDataEnd, asm.Word),
		asm.Sub.Reg(rLen, asm.R2),
		asm.JLT.Imm(rLen, 14+stampLen, "pass"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, rLen),
		asm.Sub.Imm(asm.R2, stampLen),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stamp),
		asm.Mov.Imm(asm.R4, stampLen),
		asm.FnXdpLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.RFP, stamp+2, asm.Half),
		asm.JNE.Imm(asm.R1, 0, "pass"),
		asm.LoadMem(asm.R1, asm.RFP, stamp, asm.Byte),
		asm.JEq.Imm(asm.R1, attackMagic, "drop"),
		asm.JNE.Imm(asm.R1, stampMagic, "pass"),
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Reg(rNow, asm.R0),
		asm.StoreImm(asm.RFP, key, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, state),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R0, 8, asm.DWord),
		asm.Add.Reg(asm.R1, rLen),
		asm.Add.Imm(asm.R1, fcs),
		asm.StoreMem(asm.R0, 8, asm.R1, asm.DWord),
		// The time lies at an odd multiple of two: four halves.
		asm.Mov.Imm(asm.R1, 0),
	)
	for i := range int16(4) {
		p.emit(
			asm.LoadMem(asm.R2, asm.RFP, stamp+10+2*i, asm.Half),
			asm.HostTo(asm.BE, asm.R2, asm.Half),
			asm.LSh.Imm(asm.R1, 16),
			asm.Or.Reg(asm.R1, asm.R2),
		)
	}
	p.emit(
		asm.Sub.Reg(rNow, asm.R1),
		asm.Mov.Reg(asm.R1, rNow),
		asm.RSh.Imm(asm.R1, highestBit+1),
		asm.JNE.Imm(asm.R1, 0, "drop"), // negative or too long: the clock of another host
		asm.Mov.Imm(asm.R2, 0),         // the power of two
	)
	for i := 32; i > 0; i /= 2 {
		less := fmt.Sprintf("less_%d", i)
		p.emit(
			asm.Mov.Reg(asm.R1, rNow),
			asm.RSh.Imm(asm.R1, int32(i)),
			asm.JLT.Imm(asm.R1, 1<<subBits, less),
			asm.Mov.Reg(rNow, asm.R1),
			asm.Add.Imm(asm.R2, int32(i)),
		)
		p.at(less)
	}
	p.emit(
		asm.LSh.Imm(asm.R2, subBits),
		asm.Add.Reg(rNow, asm.R2),
		asm.JGE.Imm(rNow, sinkBuckets, "drop"), // for the verifier
		asm.LSh.Imm(rNow, 3),
		asm.Add.Reg(asm.R0, rNow),
		asm.LoadMem(asm.R1, asm.R0, 16, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 16, asm.R1, asm.DWord),
	)
	p.at("drop")
	p.emit(asm.Mov.Imm(asm.R0, xdpDrop), asm.Return())
	p.at("pass")
	p.emit(asm.Mov.Imm(asm.R0, xdpPass), asm.Return())
	return p.insns
}
