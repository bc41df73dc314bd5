// Package packet knows bytes: the memory frames live in, where a frame's headers are, and its checksums.
//
// A worker owns one [Pool], cut into chunks of equal size. A chunk holds one frame with headroom before it. A [Desc] names a frame
// in the pool, as an AF_XDP descriptor does; a [Frame] is a Desc opened up, with what [Parse] learned of it. Nothing here allocates
// after [NewPool], and nothing here panics whatever the bytes are.
package packet

import (
	"fmt"
	"math/bits"
)

const (
	// Headroom is kept free before each frame that we place ourselves, in bytes. AF_XDP leaves as much (XDP_PACKET_HEADROOM).
	Headroom = 256
	// VectorSize is the most frames that go through the stages together.
	VectorSize = 256
)

// Desc names a frame in a Pool. It has the layout of the kernel's struct xdp_desc.
type Desc struct {
	Addr    uint64 // of the frame's first byte, counted from the pool's
	Len     uint32 // in bytes
	Options uint32 // zero; the kernel skips descriptors with bits it does not know
}

// Pool is the frame memory of one worker and the stack of its free chunks. Only its worker touches it.
//
// A chunk belongs to exactly one of: the free stack, a driver's ring, the worker's vector. Drivers take and return chunks through
// Get and Put, so free + (what the drivers hold) + (what the worker holds) equals Chunks at any time.
type Pool struct {
	mem  []byte
	size uint32   // of a chunk, a power of two
	log  uint8    // its binary logarithm
	free []uint32 // chunk numbers; the last is given out first, as it is the likeliest to be in a cache
}

// NewPool cuts mem into chunks of chunkSize bytes (2048 or 4096) that are all free. mem is the caller's to map and unmap.
func NewPool(mem []byte, chunkSize int) (*Pool, error) {
	if chunkSize != 2048 && chunkSize != 4096 {
		return nil, fmt.Errorf("packet: chunk size %d: must be 2048 or 4096", chunkSize)
	}
	n := len(mem) / chunkSize
	if n == 0 || n > 1<<24 {
		return nil, fmt.Errorf("packet: pool of %d bytes: must hold 1 to %d chunks of %d", len(mem), 1<<24, chunkSize)
	}
	p := &Pool{mem: mem[:n*chunkSize], size: uint32(chunkSize), log: uint8(bits.TrailingZeros(uint(chunkSize))), free: make([]uint32, n)}
	for i := range p.free {
		p.free[i] = uint32(n - 1 - i)
	}
	return p, nil
}

// Reset makes those chunks free that are said to be, and no others: what a former owner of the memory has out stays out.
func (p *Pool) Reset(free func(chunk uint32) bool) {
	p.free = p.free[:0]
	for c := p.Chunks() - 1; c >= 0; c-- {
		if free(uint32(c)) {
			p.free = append(p.free, uint32(c))
		}
	}
}

// Chunks is the number of chunks of the pool, free or not.
func (p *Pool) Chunks() int { return len(p.mem) / int(p.size) }

// Free is the number of chunks that are free now.
func (p *Pool) Free() int { return len(p.free) }

// ChunkSize is the size of each chunk in bytes.
func (p *Pool) ChunkSize() int { return int(p.size) }

// Memory is all of the pool, as AF_XDP registers it.
func (p *Pool) Memory() []byte { return p.mem }

// Get takes a free chunk and returns its address, that of its first byte. It reports false when none is free.
func (p *Pool) Get() (addr uint64, ok bool) {
	n := len(p.free) - 1
	if n < 0 {
		return 0, false
	}
	c := p.free[n]
	p.free = p.free[:n]
	return uint64(c) << (p.log & 63), true
}

// Put frees the chunk that addr lies in; addr may point anywhere into it. Putting a chunk twice is a bug of the caller's that the
// stack cannot always see; it panics when the stack would overflow.
func (p *Pool) Put(addr uint64) {
	n := len(p.free)
	p.free = p.free[:n+1]
	p.free[n] = uint32(addr >> (p.log & 63))
}

// PutAll is Put for each of a burst of frames.
func (p *Pool) PutAll(d []Desc) {
	n := len(p.free)
	p.free = p.free[:n+len(d)]
	free, log := p.free[n:][:len(d)], p.log&63
	for i := range d {
		free[i] = uint32(d[i].Addr >> log)
	}
}

// Bytes are the bytes of the frame that d names, or nil if d does not lie within one chunk of the pool.
func (p *Pool) Bytes(d Desc) []byte {
	end := d.Addr + uint64(d.Len)
	if end > uint64(len(p.mem)) || end < d.Addr || d.Len > 0 && d.Addr&^uint64(p.size-1) != (end-1)&^uint64(p.size-1) {
		return nil
	}
	return p.mem[d.Addr:end:end]
}
