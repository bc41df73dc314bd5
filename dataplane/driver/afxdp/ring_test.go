package afxdp

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// A ring between two of ours, over plain memory: what one produces the other consumes, as the kernel would. The twin is a slice.
func TestRingAgainstQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 6).Draw(t, "log2 of the size")
		start := rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(1<<32-200, 1<<32-1), rapid.Uint32()).Draw(t, "first index")
		producerWord, consumerWord, flags := start, start, uint32(0)
		w := words{&producerWord, &consumerWord, &flags}
		p, c := newProducer(w, size), newConsumer(w, size)
		entries := make([]uint64, size)
		var twin []uint64
		value := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"produce": func(t *rapid.T) {
				want := rapid.Uint32Range(0, uint32(size)+2).Draw(t, "entries")
				n := p.room(want)
				if free := uint32(size - len(twin)); n != min(want, free) {
					t.Fatalf("room(%d) = %d with %d of %d entries free", want, n, free, size)
				}
				for i := range n {
					entries[(p.next+i)&p.mask] = value
					twin = append(twin, value)
					value++
				}
				p.next += n
				p.publish()
				if left := p.left(); left != uint32(len(twin)) {
					t.Fatalf("%d entries left, want %d", left, len(twin))
				}
			},
			"consume": func(t *rapid.T) {
				want := rapid.Uint32Range(0, uint32(size)+2).Draw(t, "entries")
				n := c.available(want)
				if n != min(want, uint32(len(twin))) {
					t.Fatalf("available(%d) = %d with %d entries", want, n, len(twin))
				}
				for i := range n {
					if got := entries[(c.next+i)&c.mask]; got != twin[i] {
						t.Fatalf("entry %d is %d, want %d", i, got, twin[i])
					}
				}
				twin = twin[n:]
				c.next += n
				c.publish()
			},
		})
	})
}

// Two goroutines and the race detector: an entry that is visible by its index is visible as a whole.
func TestRingOrder(t *testing.T) {
	const size, total = 64, 200_000
	start := ^uint32(0) - total/2 // wraps half way
	producerWord, consumerWord, flags := start, start, uint32(0)
	w := words{&producerWord, &consumerWord, &flags}
	entries := make([]uint64, size)
	p, c := newProducer(w, size), newConsumer(w, size)
	go func() {
		for sent := uint64(0); sent < total; {
			n := p.room(uint32(min(17, total-sent)))
			for i := range n {
				entries[(p.next+i)&p.mask] = sent
				sent++
			}
			p.next += n
			p.publish()
			if n == 0 {
				runtime.Gosched()
			}
		}
	}()
	for got := uint64(0); got < total; {
		n := c.available(23)
		for i := range n {
			if e := entries[(c.next+i)&c.mask]; e != got {
				t.Fatalf("entry %d, want %d", e, got)
			}
			got++
		}
		c.next += n
		c.publish()
		if n == 0 {
			runtime.Gosched()
		}
	}
}

func TestNeedsWakeup(t *testing.T) {
	var producerWord, consumerWord, flags uint32
	p := newProducer(words{&producerWord, &consumerWord, &flags}, 4)
	if p.needsWakeup() {
		t.Error("no flag: needs a wakeup")
	}
	flags = unix.XDP_RING_NEED_WAKEUP
	if !p.needsWakeup() {
		t.Error("flag: needs no wakeup")
	}
}

func TestPlainRingsAreInert(t *testing.T) {
	r := plainRings()
	for range 3 {
		if n := r.rx.available(8) + r.completion.available(8) + r.tx.room(8) + r.fill.room(8); n != 0 {
			t.Fatalf("%d entries can be moved, want none", n)
		}
	}
}
