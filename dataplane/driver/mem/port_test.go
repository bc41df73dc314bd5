package mem

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/driver/drivertest"
	"weir/dataplane/packet"
)

func newPool(t testing.TB, chunks int) *packet.Pool {
	t.Helper()
	p, err := packet.NewPool(make([]byte, chunks*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Link {
		pool := newPool(t, 512)
		p, err := NewPort(pool, Options{Ring: 64})
		if err != nil {
			t.Fatal(err)
		}
		return drivertest.Link{Queue: p, Pool: pool, Inject: p.Inject, Take: p.Take, MinFrame: 14, MaxFrame: p.MaxFrame()}
	})
}

func TestEveryFrameWakesTheWorker(t *testing.T) {
	drivertest.Wakeups(t, func(t *testing.T) (drivertest.Link, func(bool)) {
		pool := newPool(t, 512)
		p, err := NewPort(pool, Options{Ring: 64})
		if err != nil {
			t.Fatal(err)
		}
		return drivertest.Link{Queue: p, Pool: pool, Inject: p.Inject}, nil
	})
}

func TestOptionsAreChecked(t *testing.T) {
	for _, ring := range []int{-1, 3, 100, 1 << 17} {
		if _, err := NewPort(newPool(t, 16), Options{Ring: ring}); err == nil || !strings.Contains(err.Error(), fmt.Sprint(ring)) {
			t.Errorf("ring of %d: error %v, want one that names it", ring, err)
		}
	}
}

func TestTakeCutsToItsBuffer(t *testing.T) {
	pool := newPool(t, 16)
	p, err := NewPort(pool, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Inject(make([]byte, p.MaxFrame()+1)) {
		t.Error("a frame longer than a chunk holds was taken")
	}
	p.Inject([]byte("0123456789"))
	var d [1]packet.Desc
	p.Send(d[:p.Receive(d[:])])
	b := []byte("....")
	if n, ok := p.Take(b); n != 10 || !ok || string(b) != "0123" {
		t.Errorf("took %d bytes, %v, %q; want 10, true, 0123", n, ok, b)
	}
}

func TestDescriptorsThatNameNoFrame(t *testing.T) {
	pool := newPool(t, 16)
	p, err := NewPort(pool, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	chunk, _ := pool.Get()
	for _, d := range []packet.Desc{
		{Addr: chunk + 2000, Len: 100},        // beyond its chunk
		{Addr: 1 << 40, Len: 60},              // beyond the pool
		{Addr: 1<<64 - 8, Len: 60},            // wraps
		{Addr: uint64(16*2048 - 1), Len: 100}, // the last byte and on
	} {
		if d.Addr < 16*2048 {
			pool.Put(chunk) // make room for one to come back
			chunk, _ = pool.Get()
		}
		if n := p.Send([]packet.Desc{d}); n != 1 {
			t.Errorf("%+v: Send took %d, want it taken and lost", d, n)
		}
		if d.Addr < 16*2048 {
			chunk, _ = pool.Get()
		}
	}
	if s := p.Stats(); s.Sent != 0 || s.SendLost != 4 || s.InvalidDescriptor != 4 {
		t.Errorf("stats %+v, want four lost and invalid", s)
	}
}

// The ring against a slice, over any order of pushing and taking, and across the wrap of its indices.
func TestRingIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 5).Draw(t, "log2 size")
		var r ring
		r.init(size, 16)
		start := rapid.SampledFrom([]uint32{0, 1, 1<<32 - 3}).Draw(t, "start")
		r.head.Store(start)
		r.tail.Store(start)
		r.seenHead, r.seenTail = start, start
		var want [][]byte
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "frame")
				ok := len(want) < size && len(b) <= 16
				if got := r.push(b); got != ok {
					t.Fatalf("push of %d bytes with %d of %d in it: %v, want %v", len(b), len(want), size, got, ok)
				}
				if ok {
					want = append(want, b)
				}
			},
			"take": func(t *rapid.T) {
				ready := int(r.ready())
				if ready > len(want) || ready == 0 && len(want) > 0 {
					t.Fatalf("%d ready, want some of %d", ready, len(want))
				}
				n := rapid.IntRange(0, ready).Draw(t, "n")
				for i := range n {
					if got := r.front(uint32(i)); !bytes.Equal(got, want[i]) {
						t.Fatalf("front(%d) is %x, want %x", i, got, want[i])
					}
				}
				r.advance(uint32(n))
				want = want[n:]
			},
		})
	})
}

func TestRecycler(t *testing.T) {
	pool := newPool(t, 8)
	r := NewRecycler(pool)
	frames := []string{"first", "second", "third"}
	for round := range 3 {
		for _, f := range frames {
			if r.Prepare([]byte(f)) == nil {
				t.Fatal("no chunk")
			}
		}
		var d [2]packet.Desc
		var got []string
		for r.Prepared() > 0 {
			n := r.Receive(d[:])
			for _, desc := range d[:n] {
				got = append(got, string(pool.Bytes(desc)))
			}
			if pool.Free()+r.Held()+n != pool.Chunks() {
				t.Errorf("%d free + %d held + %d ours, want %d", pool.Free(), r.Held(), n, pool.Chunks())
			}
			if k := r.Send(d[:n]); k != n || r.Flush() {
				t.Errorf("Send took %d of %d", k, n)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(frames) || r.Receive(d[:]) != 0 {
			t.Errorf("round %d: received %v, want %v", round, got, frames)
		}
	}
	for r.Prepare(make([]byte, 60)) != nil {
	}
	if r.Prepared() != pool.Chunks() || r.Prepare(nil) != nil {
		t.Errorf("prepared %d, want all %d chunks", r.Prepared(), pool.Chunks())
	}
	var d [3]packet.Desc
	r.Send(d[:r.Receive(d[:])])
	if r.Prepare(make([]byte, 2048-packet.Headroom+1)) != nil {
		t.Error("a frame longer than a chunk holds was taken")
	}
	if err := r.Close(); err != nil || pool.Free() != pool.Chunks() || r.FD() != -1 {
		t.Errorf("Close: %v, %d of %d chunks free", err, pool.Free(), pool.Chunks())
	}
	if s := r.Stats(); s.Received != 12 || s.Sent != 12 {
		t.Errorf("stats %+v, want 12 received and sent", s)
	}
}

func TestRecyclerAllocatesNothing(t *testing.T) {
	r := NewRecycler(newPool(t, 512))
	frame, d := make([]byte, 60), make([]packet.Desc, 64)
	if n := testing.AllocsPerRun(100, func() {
		for range 64 {
			r.Prepare(frame)
		}
		r.Send(d[:r.Receive(d)])
		r.Flush()
	}); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
}

// What a driver costs a benchmark of the pipeline, in ns a frame.
func BenchmarkForward(b *testing.B) {
	for _, vector := range []int{1, 32, 256} {
		for _, size := range []int{60, 1514} {
			b.Run(fmt.Sprintf("port/vector=%d/bytes=%d", vector, size), func(b *testing.B) {
				p, err := NewPort(newPool(b, 512), Options{Ring: 256})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				frame, d := make([]byte, size), make([]packet.Desc, vector)
				b.ReportAllocs()
				for done := 0; b.Loop(); done++ {
					if done%vector != 0 {
						continue // one iteration is one frame
					}
					for range vector {
						p.Inject(frame)
					}
					p.Send(d[:p.Receive(d)])
					for range vector {
						p.Take(frame)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("recycler/vector=%d", vector), func(b *testing.B) {
			r := NewRecycler(newPool(b, 4096))
			frame, d := make([]byte, 60), make([]packet.Desc, vector)
			b.ReportAllocs()
			for done := 0; b.Loop(); done++ {
				if done%vector != 0 {
					continue
				}
				if r.Prepared() == 0 {
					b.StopTimer()
					for r.Prepare(frame) != nil {
					}
					b.StartTimer()
				}
				r.Send(d[:r.Receive(d)])
			}
		})
	}
}
