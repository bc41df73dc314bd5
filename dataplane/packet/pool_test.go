package packet_test

import (
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/packet"
)

func TestNewPoolRefuses(t *testing.T) {
	for _, c := range []struct{ bytes, chunk int }{{4096, 1024}, {4096, 3000}, {4096, 8192}, {2047, 2048}, {0, 4096}} {
		if p, err := packet.NewPool(make([]byte, c.bytes), c.chunk); err == nil {
			t.Errorf("%d bytes of chunks of %d make a pool of %d", c.bytes, c.chunk, p.Chunks())
		}
	}
}

// TestPoolKeepsEveryChunk takes and returns chunks in any order: each is given out once at a time, and free and held are all there are.
func TestPoolKeepsEveryChunk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{2048, 4096}).Draw(t, "chunk")
		p, err := packet.NewPool(make([]byte, 5*size+100), size)
		if err != nil || p.Chunks() != 5 || p.ChunkSize() != size || len(p.Memory()) != 5*size {
			t.Fatalf("%v: %d chunks of %d in %d bytes", err, p.Chunks(), p.ChunkSize(), len(p.Memory()))
		}
		var held []uint64
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "get") {
				addr, ok := p.Get()
				if ok != (len(held) < 5) {
					t.Fatalf("Get = %v with %d held", ok, len(held))
				}
				for _, h := range held {
					if ok && h == addr {
						t.Fatalf("chunk at %d was given out twice", addr)
					}
				}
				if ok {
					held = append(held, addr)
				}
			} else if n := len(held); n > 0 && rapid.Bool().Draw(t, "all") {
				var d []packet.Desc
				for _, addr := range held {
					d = append(d, packet.Desc{Addr: addr + uint64(rapid.IntRange(0, size-1).Draw(t, "inside"))})
				}
				p.PutAll(d)
				held = nil
			} else if n > 0 {
				p.Put(held[n-1] + uint64(rapid.IntRange(0, size-1).Draw(t, "inside")))
				held = held[:n-1]
			}
			if p.Free()+len(held) != p.Chunks() {
				t.Fatalf("%d free and %d held are not %d", p.Free(), len(held), p.Chunks())
			}
		}
	})
}

// TestFrameStaysInItsChunk opens any descriptor and moves both ends of the frame: it refuses, or the bytes are those of one chunk.
func TestFrameStaysInItsChunk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := packet.NewPool(make([]byte, 3*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		d := packet.Desc{Addr: rapid.Uint64Range(0, 4*2048).Draw(t, "addr"), Len: rapid.Uint32Range(0, 2100).Draw(t, "len")}
		fits := d.Addr < 3*2048 && d.Addr%2048+uint64(d.Len) <= 2048
		var f packet.Frame
		if ok := f.Open(p, d); ok != fits {
			t.Fatalf("Open(%+v) = %v", d, ok)
		} else if !ok {
			return
		}
		if b := p.Bytes(d); len(b) != int(d.Len) || len(f.Bytes()) != len(b) || len(b) > 0 && &f.Bytes()[0] != &b[0] {
			t.Fatalf("frame of %d bytes, %d in the pool", f.Len(), len(b))
		}
		start, end := int(f.Start), int(f.End)
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			n := rapid.IntRange(0, 2100).Draw(t, "n")
			var ok, want bool
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				if ok, want = f.Prepend(n), n <= start; want {
					start -= n
				}
			case 1:
				if ok, want = f.TrimFront(n), n <= end-start; want {
					start += n
				}
			case 2:
				if ok, want = f.SetLen(n), start+n <= 2048; want {
					end = start + n
				}
			}
			if ok != want || int(f.Start) != start || int(f.End) != end || f.Len() != end-start {
				t.Fatalf("%v, %d to %d; want %v, %d to %d", ok, f.Start, f.End, want, start, end)
			}
			if got, want := f.Desc(), (packet.Desc{Addr: d.Addr&^2047 + uint64(start), Len: uint32(end - start)}); got != want {
				t.Fatalf("Desc = %+v, want %+v", got, want)
			}
		}
	})
}
