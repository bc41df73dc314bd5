package packet

// Frame is one frame of a Pool, opened up. Offsets into it count from the first byte of its chunk, not of the frame, so they hold when
// the frame grows or shrinks at its front.
type Frame struct {
	Headers        // written by Parse
	chunk   []byte // all of the chunk: headroom, frame, tailroom
	addr    uint64 // of the chunk in the pool
	Start   uint16 // offset of the frame's first byte
	End     uint16 // offset behind the frame's last byte
	Port    uint16 // index of the port that received it
}

// Open points f at the frame that d names. It reports false, and leaves f alone, if d does not lie within one chunk of the pool.
func (f *Frame) Open(p *Pool, d Desc) bool {
	base := d.Addr &^ uint64(p.size-1)
	start := d.Addr - base
	end := start + uint64(d.Len)
	if end > uint64(p.size) || base >= uint64(len(p.mem)) {
		return false
	}
	f.chunk = p.mem[base : base+uint64(p.size) : base+uint64(p.size)]
	f.addr, f.Start, f.End = base, uint16(start), uint16(end)
	return true
}

// Desc names the frame as it is now.
func (f *Frame) Desc() Desc {
	return Desc{Addr: f.addr + uint64(f.Start), Len: uint32(f.End) - uint32(f.Start)}
}

// Chunk is all of the frame's chunk; the offsets in Headers index it.
func (f *Frame) Chunk() []byte { return f.chunk }

// Bytes is the frame, from its first byte to its last.
func (f *Frame) Bytes() []byte { return f.chunk[f.Start:f.End] }

// Len is the frame's length in bytes.
func (f *Frame) Len() int { return int(f.End) - int(f.Start) }

// Prepend makes the frame n bytes longer at its front. It reports false, and leaves the frame alone, when the headroom is shorter.
// The new bytes are whatever lay there.
func (f *Frame) Prepend(n int) bool {
	if n > int(f.Start) {
		return false
	}
	f.Start -= uint16(n)
	return true
}

// TrimFront makes the frame n bytes shorter at its front. It reports false, and leaves the frame alone, when it has fewer.
func (f *Frame) TrimFront(n int) bool {
	if n > f.Len() {
		return false
	}
	f.Start += uint16(n)
	return true
}

// SetLen cuts or extends the frame at its end to n bytes. It reports false, and leaves the frame alone, when the chunk cannot hold
// them. Bytes that are added are whatever lay there.
func (f *Frame) SetLen(n int) bool {
	if n < 0 || int(f.Start)+n > len(f.chunk) {
		return false
	}
	f.End = f.Start + uint16(n)
	return true
}
