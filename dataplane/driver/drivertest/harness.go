package drivertest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"weir/dataplane/packet"
)

const (
	etherType = 0x88b5          // local experimental (IEEE 802, clause 9.2.4)
	patience  = 5 * time.Second // how long frames may be under way; they are there within microseconds unless the machine is stalled
	window    = 32              // frames under way at once, fewer than any ring holds
)

// harness drives one link and keeps the books of its chunks.
type harness struct {
	*testing.T
	Link
	rand   *rand.Rand
	held   int // chunks in our hands
	next   uint32
	closed bool
	got    [packet.VectorSize]packet.Desc
	buf    []byte
}

func newHarness(t *testing.T, l Link) *harness {
	t.Helper()
	if l.MinFrame == 0 {
		l.MinFrame = 60
	}
	if l.MaxFrame == 0 {
		l.MaxFrame = 1514
	}
	if n := l.Pool.Chunks(); n < 512 {
		t.Fatalf("the suite needs a pool of 512 chunks, the link has %d", n)
	}
	h := &harness{T: t, Link: l, rand: rand.New(rand.NewPCG(1, 2)), buf: make([]byte, 1<<16)}
	t.Cleanup(func() { // a test that has failed must not leave a socket behind
		if !h.closed {
			h.Queue.Close()
		}
	})
	h.balance("opened")
	return h
}

// balance checks that no chunk is lost or doubled.
func (h *harness) balance(when string) {
	h.Helper()
	free, held := h.Pool.Free(), h.Queue.Held()
	if free+held+h.held != h.Pool.Chunks() {
		h.Fatalf("%s: %d chunks free + %d in the queue + %d in our hands, want %d in all", when, free, held, h.held, h.Pool.Chunks())
	}
}

// frame makes the next numbered frame with n bytes in all.
func (h *harness) frame(n int) []byte {
	b := make([]byte, n)
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	for i := 14; i < n; i++ {
		b[i] = byte(h.rand.Uint32())
	}
	if n >= 18 {
		binary.BigEndian.PutUint32(b[14:], h.next)
		h.next++
	}
	return b
}

// frames makes n frames whose lengths cover the link's range, its ends among them.
func (h *harness) frames(n int) [][]byte {
	f := make([][]byte, n)
	for i := range f {
		size := h.MinFrame + h.rand.IntN(h.MaxFrame-h.MinFrame+1)
		switch i % 8 {
		case 0:
			size = h.MinFrame
		case 1:
			size = h.MaxFrame
		}
		f[i] = h.frame(size)
	}
	return f
}

func ours(b []byte) bool { return len(b) >= 14 && binary.BigEndian.Uint16(b[12:]) == etherType }

// take one step of waiting and reports whether there is patience left.
func (h *harness) wait(until time.Time) bool {
	h.Queue.Flush()
	if h.Far != nil {
		h.Far()
	}
	h.balance("flushed")
	if time.Now().After(until) {
		return false
	}
	time.Sleep(20 * time.Microsecond)
	return true
}

// inject brings all frames into the queue; while there is no room for one, whatever is received is handed to got.
func (h *harness) inject(b []byte, got func([]packet.Desc)) {
	h.Helper()
	for end := time.Now().Add(patience); !h.Inject(b); {
		h.receive(h.got[:], got)
		if !h.wait(end) {
			h.Fatalf("the far end could not send a frame of %d bytes within %v", len(b), patience)
		}
	}
}

// receive takes up to len(d) frames from the queue, gives back those that are not ours, and hands the rest to got.
func (h *harness) receive(d []packet.Desc, got func([]packet.Desc)) int {
	h.Helper()
	n := h.Queue.Receive(d)
	if n < 0 || n > len(d) {
		h.Fatalf("Receive gave %d frames for room of %d", n, len(d))
	}
	h.held += n
	h.balance("received")
	keep := d[:0]
	for _, desc := range d[:n] {
		b := h.Pool.Bytes(desc)
		if b == nil {
			h.Fatalf("Receive gave %+v, which does not lie within one chunk", desc)
		}
		if desc.Options != 0 {
			h.Fatalf("Receive gave %+v, options must be zero", desc)
		}
		if ours(b) {
			keep = append(keep, desc)
		} else {
			h.put(desc)
		}
	}
	if len(keep) > 0 && got != nil {
		got(keep)
	}
	return len(keep)
}

func (h *harness) put(d packet.Desc) {
	h.Pool.Put(d.Addr)
	h.held--
}

// collect receives until n frames of ours are there and returns their descriptors, which are ours to give back.
func (h *harness) collect(n int) []packet.Desc {
	h.Helper()
	var all []packet.Desc
	for end := time.Now().Add(patience); len(all) < n; {
		if h.receive(h.got[:min(n-len(all), len(h.got))], func(d []packet.Desc) { all = append(all, d...) }) == 0 && !h.wait(end) {
			h.Fatalf("received %d frames within %v, want %d; stats %+v", len(all), patience, n, h.Queue.Stats())
		}
	}
	return all
}

// fetch brings frames through the queue, a window at a time, and returns their descriptors.
func (h *harness) fetch(frames [][]byte) []packet.Desc {
	h.Helper()
	var all []packet.Desc
	for len(frames) > 0 {
		n := min(len(frames), window)
		early := 0 // frames that came while others had no room yet
		for _, b := range frames[:n] {
			h.inject(b, func(d []packet.Desc) { all = append(all, d...); early += len(d) })
		}
		all = append(all, h.collect(n-early)...)
		frames = frames[n:]
	}
	return all
}

// place copies b into a free chunk.
func (h *harness) place(b []byte) packet.Desc {
	h.Helper()
	for end := time.Now().Add(patience); ; {
		if chunk, ok := h.Pool.Get(); ok {
			h.held++
			d := packet.Desc{Addr: chunk + packet.Headroom, Len: uint32(len(b))}
			copy(h.Pool.Bytes(d), b)
			return d
		}
		if !h.wait(end) {
			h.Fatalf("no free chunk within %v; the queue holds %d", patience, h.Queue.Held())
		}
	}
}

// send gives d to the queue, all of it, flushing as long as it takes fewer.
func (h *harness) send(d []packet.Desc) {
	h.Helper()
	for end := time.Now().Add(patience); len(d) > 0; {
		n := h.Queue.Send(d)
		if n < 0 || n > len(d) {
			h.Fatalf("Send took %d of %d frames", n, len(d))
		}
		h.held -= n
		h.balance("sent")
		d = d[n:]
		if len(d) > 0 && !h.wait(end) {
			h.Fatalf("Send took no more within %v, %d left; stats %+v", patience, len(d), h.Queue.Stats())
		}
	}
	h.Queue.Flush()
	h.balance("flushed")
}

// expect takes frames from the far end and compares them with want, in order.
func (h *harness) expect(want [][]byte) {
	h.Helper()
	for i, w := range want {
		h.same("far end", i, h.takeOurs(i), w)
	}
}

// takeOurs takes the next frame of ours from the far end.
func (h *harness) takeOurs(i int) []byte {
	h.Helper()
	for end := time.Now().Add(patience); ; {
		if n, ok := h.Take(h.buf); ok {
			if ours(h.buf[:n]) {
				return h.buf[:n]
			}
			continue
		}
		if !h.wait(end) {
			h.Fatalf("far end: frame %d did not arrive within %v; stats %+v", i, patience, h.Queue.Stats())
		}
	}
}

// silent checks that the far end has nothing more of ours.
func (h *harness) silent() {
	h.Helper()
	for end := time.Now().Add(5 * time.Millisecond); h.wait(end); {
		if n, ok := h.Take(h.buf); ok && ours(h.buf[:n]) {
			h.Fatalf("far end: a frame of %d bytes that nobody sent", n)
		}
	}
}

func (h *harness) same(where string, i int, got, want []byte) {
	h.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	h.Fatalf("%s: frame %d has %d bytes, want %d; they differ from byte %d on:\n got %x\nwant %x", where, i, len(got), len(want), at,
		got[at:min(len(got), at+32)], want[at:min(len(want), at+32)])
}

// close closes the queue once, if the test has not, and checks that it gave back every chunk.
func (h *harness) close() {
	h.Helper()
	if h.closed {
		return
	}
	h.closed = true
	if err := h.Queue.Close(); err != nil {
		h.Fatalf("Close: %v", err)
	}
	if held := h.Queue.Held(); held != 0 {
		h.Errorf("the queue holds %d chunks after Close", held)
	}
	h.balance("closed")
}
