package afxdp

import (
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// liveCPUs bounds the numbers of processors; those beyond share.
const liveCPUs = 1024

// liveCode makes the program that sends: it takes the frames of the queue whose number the page begins with, one after the other.
func liveCode(states, current int) asm.Instructions {
	const (
		ctx, state, at, size = asm.R6, asm.R7, asm.R8, asm.R9
		sKey                 = -4
		xdpAborted           = 0
	)
	return asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.LoadMem(asm.R2, ctx, 0, asm.Word), // data
		asm.LoadMem(asm.R3, ctx, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R1, asm.R2),
		asm.Add.Imm(asm.R1, 4),
		asm.JGT.Reg(asm.R1, asm.R3, "abort"),
		asm.LoadMem(size, asm.R2, 0, asm.Word),
		asm.StoreMem(asm.RFP, sKey, size, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, sKey),
		asm.LoadMapPtr(asm.R1, states),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "abort"),
		asm.Mov.Reg(state, asm.R0),
		asm.LoadMem(at, state, oLiveNext, asm.DWord),
		asm.Mov.Reg(asm.R1, at),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(state, oLiveNext, asm.R1, asm.DWord), // one thread runs a state
		asm.And.Imm(at, liveBatch-1),
		// Whose frames these are, for who counts drops. They are sent on this processor before another queue's are.
		asm.FnGetSmpProcessorId.Call(),
		asm.And.Imm(asm.R0, liveCPUs-1),
		asm.LSh.Imm(asm.R0, 2),
		asm.LoadMapValue(asm.R1, current, 0),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.StoreMem(asm.R1, 0, size, asm.Word),

		asm.Mov.Reg(asm.R1, at),
		asm.LSh.Imm(asm.R1, 1),
		asm.Add.Reg(asm.R1, state),
		asm.LoadMem(size, asm.R1, oLiveSizes, asm.Half),
		asm.Mov.Reg(asm.R2, size),
		asm.LoadMem(asm.R1, state, oLivePage, asm.Word),
		asm.Sub.Reg(asm.R2, asm.R1),
		asm.JEq.Imm(asm.R2, 0, "sized"),
		asm.Mov.Reg(asm.R1, ctx),
		asm.FnXdpAdjustTail.Call(),
		asm.JNE.Imm(asm.R0, 0, "abort"),
		asm.JLT.Imm(size, linkHeader, "abort").WithSymbol("sized"),
		asm.JGT.Imm(size, liveFrame, "abort"),
		asm.Mov.Reg(asm.R3, at),
		asm.LSh.Imm(asm.R3, int32(bits.TrailingZeros(liveFrame))),
		asm.Add.Reg(asm.R3, state),
		asm.Add.Imm(asm.R3, oLiveFrames),
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R4, size),
		asm.FnXdpStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "abort"),
		asm.LoadMem(asm.R1, state, oLiveDevice, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpAborted).WithSymbol("abort"),
		asm.Return(),
	}
}

// Where the kernel says what it drops of the frames that a program redirects.
const (
	atFlush = "xdp_devmap_xmit"  // (from_dev, to_dev, sent, drops, err): what the device did not take of a batch
	atFrame = "xdp_redirect_err" // (from_dev, ...): the device cannot have that frame
)

// liveDropsCode makes the program that counts what was dropped at one of these places of the frames that a queue gave to a device, by the device that they are said to
// come from: from is our tap.
func liveDropsCode(where string, states, current, from, ifindexAt int) asm.Instructions {
	const sKey = -4
	drops := asm.Instructions{asm.Mov.Imm(asm.R6, 1)}
	if where == atFlush {
		drops = asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 3*8, asm.DWord),
			asm.LSh.Imm(asm.R6, 32), // an int
			asm.RSh.Imm(asm.R6, 32),
			asm.JEq.Imm(asm.R6, 0, "end"),
		}
	}
	return append(drops, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R2, asm.R2, int16(ifindexAt), asm.Word),
		asm.JNE.Imm(asm.R2, int32(from), "end"),
		asm.FnGetSmpProcessorId.Call(),
		asm.And.Imm(asm.R0, liveCPUs-1),
		asm.LSh.Imm(asm.R0, 2),
		asm.LoadMapValue(asm.R1, current, 0),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.StoreMem(asm.RFP, sKey, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, sKey),
		asm.LoadMapPtr(asm.R1, states),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.LoadMem(asm.R1, asm.R0, oLiveDropped, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R6),
		asm.StoreMem(asm.R0, oLiveDropped, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	}...)
}

// ifindexOffset is where struct net_device has its number, as the kernel's own types tell.
func ifindexOffset() (int, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, fmt.Errorf("the kernel's types: %w", err)
	}
	var dev *btf.Struct
	if err := spec.TypeByName("net_device", &dev); err != nil {
		return 0, fmt.Errorf("the kernel's types: %w", err)
	}
	for _, m := range dev.Members {
		if m.Name == "ifindex" {
			return int(m.Offset.Bytes()), nil
		}
	}
	return 0, fmt.Errorf("the kernel's types: struct net_device has no ifindex")
}
