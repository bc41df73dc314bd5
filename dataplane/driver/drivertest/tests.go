package drivertest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

func testRest(h *harness) {
	if n := h.receive(h.got[:], nil); n != 0 {
		h.Errorf("received %d frames that nobody sent", n)
	}
	h.Queue.Flush()
	h.balance("flushed")
	s := h.Queue.Stats()
	if !s.Up || s.Mode == "" {
		h.Errorf("stats %+v: want up, with a mode", s)
	}
	if s.Sent != 0 || s.SendLost != 0 {
		h.Errorf("stats %+v: nothing was sent", s)
	}
}

func testReceive(h *harness) {
	for range 8 {
		want := h.frames(window)
		for i, d := range h.fetch(want) {
			h.same("received", i, h.Pool.Bytes(d), want[i])
			h.put(d)
		}
		h.balance("put back")
	}
}

func testSend(h *harness) {
	for range 8 {
		want := h.frames(window)
		d := make([]packet.Desc, 0, window)
		for _, b := range want {
			d = append(d, h.place(b))
		}
		h.send(d)
		h.expect(want)
	}
	h.silent()
}

func testForward(h *harness) {
	for range 8 {
		want := h.frames(window)
		h.send(h.fetch(want))
		h.expect(want)
	}
	h.silent()
}

func testHeadroom(h *harness) {
	const outer = 70 // VXLAN over IPv6, the longest that a stage prepends
	want := h.frames(window)
	for i, d := range h.fetch(want) {
		var f packet.Frame
		if !f.Open(h.Pool, d) || !f.Prepend(outer) {
			h.Fatalf("frame %d lies at %d of its chunk, want headroom of %d bytes", i, d.Addr%uint64(h.Pool.ChunkSize()), outer)
		}
		for j := range f.Bytes()[:outer] {
			f.Bytes()[j] = 0xee
		}
		h.same("received", i, f.Bytes()[outer:], want[i])
		h.put(f.Desc())
	}
}

func testEmptyVector(h *harness) {
	want := h.frames(1)
	h.inject(want[0], nil)
	for range 3 {
		if n := h.Queue.Receive(nil) + h.Queue.Send(nil); n != 0 {
			h.Errorf("a vector of none moved %d frames", n)
		}
		h.Queue.Flush()
		h.balance("moved nothing")
	}
	d := h.collect(1)
	h.same("received", 0, h.Pool.Bytes(d[0]), want[0])
	h.send(d)
	h.expect(want)
}

func testBursts(h *harness) {
	for n := 1; n <= window; n += 3 {
		want := h.frames(n)
		for _, b := range want {
			h.inject(b, func([]packet.Desc) { h.Fatal("no room for fewer frames than a window") })
		}
		var d []packet.Desc
		for i := 0; i < n; i += 2 { // less room than frames: the rest must wait
			d = append(d, h.collect(min(2, n-i))...)
		}
		h.send(d)
		h.expect(want)
	}
}

func testPoolEmpty(h *harness) {
	var all []uint64
	for {
		chunk, ok := h.Pool.Get()
		if !ok {
			break
		}
		h.held++
		all = append(all, chunk)
	}
	for range window / 2 {
		if !h.Inject(h.frame(h.MinFrame)) {
			break
		}
		if n := h.Queue.Receive(h.got[:]); n > 0 { // a driver may have chunks of its own in a fill ring
			h.held += n
			for _, d := range h.got[:n] {
				all = append(all, d.Addr)
			}
		}
		h.Queue.Flush()
		h.balance("received with an empty pool")
	}
	for _, chunk := range all {
		h.Pool.Put(chunk)
		h.held--
	}
	h.balance("put back")
	time.Sleep(5 * time.Millisecond)
	for end := time.Now().Add(20 * time.Millisecond); h.wait(end); { // what is left of that burst may arrive or be lost
		h.receive(h.got[:], func(d []packet.Desc) {
			for _, desc := range d {
				h.put(desc)
			}
		})
	}
	want := h.frames(window)
	for i, d := range h.fetch(want) {
		h.same("received after", i, h.Pool.Bytes(d), want[i])
		h.put(d)
	}
}

func testSendFull(h *harness) {
	if h.NeverFull {
		h.Skip("this queue takes whatever it is given")
	}
	var want [][]byte
	refused := packet.Desc{}
	for full := false; !full; {
		if h.Pool.Free() == 0 {
			h.Fatalf("Send took %d frames without a Flush; the pool must be larger than the send ring", len(want))
		}
		b := h.frame(h.MinFrame)
		d := h.place(b)
		switch n := h.Queue.Send([]packet.Desc{d}); n {
		case 1:
			h.held--
			want = append(want, b)
		case 0:
			full, refused = true, d
			want = append(want, b)
		default:
			h.Fatalf("Send took %d of 1 frame", n)
		}
		h.balance("sent")
	}
	if len(want) < window+1 {
		h.Errorf("the send ring holds %d frames, want at least %d", len(want)-1, window)
	}
	// What was taken leaves in order, and then there is room again.
	h.Queue.Flush()
	h.balance("flushed")
	h.expect(want[:len(want)-1])
	h.send([]packet.Desc{refused})
	h.expect(want[len(want)-1:])
	h.silent()
}

func testFlush(h *harness) {
	want := h.frames(window)
	var d []packet.Desc
	for _, b := range want {
		d = append(d, h.place(b))
	}
	if n := h.Queue.Send(d); n != len(d) {
		h.Fatalf("Send took %d of %d frames, fewer than the smallest ring", n, len(d))
	}
	h.held -= len(d)
	// Nobody calls anything but Flush, as a worker does before it sleeps.
	for end := time.Now().Add(patience); h.Queue.Flush(); {
		h.balance("flushed")
		if h.Far != nil {
			h.Far()
		}
		if time.Now().After(end) {
			h.Fatalf("pending for %v; stats %+v", patience, h.Queue.Stats())
		}
	}
	if s := h.Queue.Stats(); s.Sent != window {
		h.Errorf("nothing pending, yet %d of %d frames are sent; stats %+v", s.Sent, window, s)
	}
	h.expect(want)
}

func testFD(h *harness) {
	fd := h.Queue.FD()
	if fd < 0 {
		h.Skip("this queue has no descriptor to wait on")
	}
	readable := func(timeout time.Duration) bool {
		fds := []unix.PollFd{{Fd: int32(h.Queue.FD()), Events: unix.POLLIN}}
		for end := time.Now().Add(timeout); ; {
			n, err := unix.Poll(fds, int(max(0, time.Until(end).Milliseconds())))
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				h.Fatalf("poll: %v", err)
			}
			return n == 1 && fds[0].Revents&unix.POLLIN != 0
		}
	}
	for round := range 4 {
		// Run dry; a queue may be readable once more after its last frame, not again and again.
		for end := time.Now().Add(patience); readable(0); {
			h.receive(h.got[:], func(d []packet.Desc) {
				for _, desc := range d {
					h.put(desc)
				}
			})
			if !h.wait(end) {
				h.Fatalf("round %d: readable for %v without a frame", round, patience)
			}
		}
		want := h.frames(3)
		for _, b := range want {
			h.inject(b, nil)
			if h.Far != nil {
				h.Far()
			}
		}
		for i, w := range want {
			if !readable(patience) {
				h.Fatalf("round %d: not readable with %d frames waiting", round, len(want)-i)
			}
			d := h.collect(1)
			h.same("received", i, h.Pool.Bytes(d[0]), w)
			h.put(d[0])
		}
	}
}

func testStats(h *harness) {
	before := h.Queue.Stats()
	const n = 5 * window
	want := h.frames(n)
	for i := 0; i < n; i += window {
		h.send(h.fetch(want[i : i+window]))
		h.expect(want[i : i+window])
	}
	for end := time.Now().Add(patience); h.Queue.Flush() && h.wait(end); {
	}
	s := h.Queue.Stats()
	if got := s.Received - before.Received; got < n || got > n+window { // a real kernel may add frames of its own
		h.Errorf("received %d, want %d; stats %+v", got, n, s)
	}
	if s.Sent-before.Sent != n || s.SendLost != 0 || s.InvalidDescriptor != 0 || s.RxRingFull != 0 {
		h.Errorf("sent %d, want %d, and no losses; stats %+v", s.Sent-before.Sent, n, s)
	}
}

func testAllocs(h *harness) {
	const burst, runs = 4, 7
	d := make([]packet.Desc, burst)
	moved := 0
	for range 4 { // until a measurement finds all frames there; what is late is sent on by the next
		for range (runs + 1) * burst {
			h.inject(h.frame(h.MinFrame), nil)
		}
		time.Sleep(2 * time.Millisecond)
		moved = 0
		allocs := testing.AllocsPerRun(runs, func() {
			n := h.Queue.Receive(d)
			moved += n
			h.Queue.Send(d[:n])
			h.Queue.Flush()
		})
		if allocs != 0 {
			h.Fatalf("Receive, Send and Flush allocate %v times a round", allocs)
		}
		h.balance("moved")
		if moved >= runs*burst {
			break
		}
	}
	if moved < runs*burst {
		h.Errorf("%d frames moved while allocations were counted, want %d: the measurement says nothing", moved, runs*burst)
	}
	for end := time.Now().Add(20 * time.Millisecond); h.wait(end); {
		h.Take(h.buf)
	}
}

func testClose(h *harness) {
	for range window / 2 { // frames in the receive ring
		h.inject(h.frame(h.MinFrame), nil)
	}
	var d []packet.Desc
	for range window / 2 { // and in the send ring
		d = append(d, h.place(h.frame(h.MinFrame)))
	}
	n := h.Queue.Send(d)
	h.held -= n
	for _, desc := range d[n:] {
		h.put(desc)
	}
	h.balance("sent")
	h.close()
	if s := h.Queue.Stats(); s.Up {
		h.Errorf("stats after Close: %+v, want down", s)
	}
}
