package afxdp

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"weir/dataplane/packet"
)

// kernelTwin is the other side of a socket's four rings, over plain memory: the naive kernel.
type kernelTwin struct {
	fill struct {
		consumer
		addr []uint64
	}
	rx struct {
		producer
		desc []packet.Desc
	}
	tx struct {
		consumer
		desc []packet.Desc
	}
	completion struct {
		producer
		addr []uint64
	}
	arrived []packet.Desc // in rx, in order
	sent    []packet.Desc // taken from tx, not completed
	done    []uint64      // completed
}

// plainSocket is a socket over plain memory, its indices about to wrap, and the kernel's side of it. Its descriptor is open, but no socket.
func plainSocket(t testing.TB, ring int) (*socket, *kernelTwin) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	s, k := &socket{fd: fd, setup: "plain"}, &kernelTwin{}
	shared := func() words {
		w := make([]uint32, 3)
		w[0], w[1] = 1<<32-5, 1<<32-5
		return words{&w[0], &w[1], &w[2]}
	}
	w := shared()
	s.fill.producer, k.fill.consumer = newProducer(w, ring), newConsumer(w, ring)
	w = shared()
	s.rx.consumer, k.rx.producer = newConsumer(w, ring), newProducer(w, ring)
	w = shared()
	s.tx.producer, k.tx.consumer = newProducer(w, ring), newConsumer(w, ring)
	w = shared()
	s.completion.consumer, k.completion.producer = newConsumer(w, ring), newProducer(w, ring)
	s.fill.addr, s.completion.addr = make([]uint64, ring), make([]uint64, ring)
	s.rx.desc, s.tx.desc = make([]packet.Desc, ring), make([]packet.Desc, ring)
	k.fill.addr, k.rx.desc, k.tx.desc, k.completion.addr = s.fill.addr, s.rx.desc, s.tx.desc, s.completion.addr
	return s, k
}

// plainQueue is a queue over such a socket.
func plainQueue(t testing.TB, u *Umem, ring int) (*Queue, *kernelTwin) {
	t.Helper()
	dev, err := newDevice("lo")
	if err != nil {
		t.Skipf("needs a device lo: %v", err)
	}
	q, err := u.add(dev, 0, Options{RingSize: ring})
	if err != nil {
		t.Fatal(err)
	}
	return q, replug(t, q)
}

// replug gives q a fresh socket, as after a device came back.
func replug(t testing.TB, q *Queue) *kernelTwin {
	t.Helper()
	s, k := plainSocket(t, q.options.RingSize)
	q.refill(s)
	q.adopt(s)
	q.setUp(true)
	q.watched = time.Now().Add(time.Hour) // lo's state is not the test's matter
	return k
}

func plainUmem(t testing.TB, chunks int, owners bool) *Umem {
	t.Helper()
	u, err := NewUmem(UmemOptions{Chunks: chunks, Owners: owners})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// receive puts a frame into the next chunk of the fill ring.
func (k *kernelTwin) receive(length uint32) bool {
	if k.rx.room(1) == 0 || k.fill.available(1) == 0 {
		return false
	}
	d := packet.Desc{Addr: k.fill.addr[k.fill.next&k.fill.mask] + kernelHeadroom, Len: length}
	k.fill.next++
	k.fill.publish()
	k.put(d)
	k.arrived = append(k.arrived, d)
	return true
}

func (k *kernelTwin) put(d packet.Desc) {
	k.rx.desc[k.rx.next&k.rx.mask] = d
	k.rx.next++
	k.rx.publish()
}

// take takes everything from the tx ring.
func (k *kernelTwin) take() {
	n := k.tx.available(k.tx.mask + 1)
	for i := range n {
		k.sent = append(k.sent, k.tx.desc[(k.tx.next+i)&k.tx.mask])
	}
	k.tx.next += n
	k.tx.publish()
}

func (k *kernelTwin) complete(addr uint64) bool {
	if k.completion.room(1) == 0 {
		return false
	}
	k.completion.addr[k.completion.next&k.completion.mask] = addr
	k.completion.next++
	k.completion.publish()
	return true
}

// Whatever worker, kernel and device do, in whatever order, no chunk is lost or doubled; and what is received and sent is what the other
// side sent and received, in order. With a kernel that breaks the rules, chunks stay whole all the same.
func TestChunksAreConserved(t *testing.T) {
	for _, honest := range []bool{true, false} {
		name := "honest kernel"
		if !honest {
			name = "kernel with bugs"
		}
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { conserveProperty(t, rt, honest) })
		})
	}
}

func conserveProperty(tb *testing.T, rt *rapid.T, honest bool) {
	u := plainUmem(tb, 128, honest)
	defer u.Close()
	q, k := plainQueue(tb, u, 1<<rapid.IntRange(3, 7).Draw(rt, "log2 of the ring"))
	defer q.Close()
	var hands []packet.Desc
	var wantSent []packet.Desc // in tx or taken, in order
	invalid := uint64(0)
	actions := map[string]func(*rapid.T){
		"the kernel receives": func(t *rapid.T) {
			for range rapid.IntRange(1, 40).Draw(t, "frames") {
				if !k.receive(uint32(rapid.IntRange(14, 1792).Draw(t, "length"))) {
					break
				}
			}
		},
		"the kernel sends": func(t *rapid.T) {
			k.take()
			if honest && !slices.Equal(k.sent, wantSent) {
				t.Fatalf("the kernel was given %v, want %v", k.sent, wantSent)
			}
		},
		"the kernel completes": func(t *rapid.T) {
			for range rapid.IntRange(0, len(k.sent)).Draw(t, "frames") {
				i := rapid.IntRange(0, len(k.sent)-1).Draw(t, "which")
				if !k.complete(k.sent[i].Addr &^ uint64(rapid.IntRange(0, 255).Draw(t, "bits that a driver may lose"))) {
					break
				}
				k.done = append(k.done, k.sent[i].Addr)
				k.sent = slices.Delete(k.sent, i, i+1)
				if honest {
					wantSent = slices.Delete(wantSent, i, i+1)
				}
			}
		},
		"the worker receives": func(t *rapid.T) {
			d := make([]packet.Desc, rapid.IntRange(0, 64).Draw(t, "room"))
			d = d[:q.Receive(d)]
			if honest {
				if len(d) > len(k.arrived) || !slices.Equal(d, k.arrived[:len(d)]) {
					t.Fatalf("received %v, want the first of %v", d, k.arrived)
				}
				k.arrived = k.arrived[len(d):]
			}
			hands = append(hands, d...)
		},
		"the worker makes frames": func(t *rapid.T) {
			for range rapid.IntRange(1, 20).Draw(t, "frames") {
				addr, ok := u.pool.Get()
				if !ok {
					break
				}
				hands = append(hands, packet.Desc{Addr: addr + packet.Headroom, Len: 60})
			}
		},
		"the worker sends": func(t *rapid.T) {
			d := slices.Clone(hands[:rapid.IntRange(0, len(hands)).Draw(t, "frames")])
			for i := range d {
				switch rapid.IntRange(0, 9).Draw(t, "fault") {
				case 0:
					d[i].Len = 0
				case 1:
					d[i].Len = 4096
				}
			}
			n := q.Send(d)
			for i := range d[:n] {
				if d[i].Len == 0 || d[i].Len == 4096 {
					invalid++
				} else {
					wantSent = append(wantSent, d[i])
				}
			}
			hands = hands[n:]
		},
		"the worker drops": func(t *rapid.T) {
			for range rapid.IntRange(0, len(hands)).Draw(t, "frames") {
				u.pool.Put(hands[0].Addr)
				hands = hands[1:]
			}
		},
		"the worker flushes": func(t *rapid.T) { q.Flush() },
		"the device goes and comes back": func(t *rapid.T) {
			generation := q.Generation()
			q.disconnect()
			if q.Held() != 0 || q.sending != 0 || q.unsent || q.FD() != -1 || q.Stats().Up {
				t.Fatalf("without a device: holds %d, descriptor %d, stats %+v", q.Held(), q.FD(), q.Stats())
			}
			n := len(hands) // all sent to nowhere
			for i := range hands {
				hands[i].Len = 60
			}
			if took := q.Send(hands); took != n {
				t.Fatalf("without a device, Send takes %d of %d", took, n)
			}
			hands = nil
			q.watched = time.Now().Add(time.Hour)
			q.Flush()
			k, wantSent = replug(tb, q), nil
			if q.Generation() == generation {
				t.Fatal("the generation has not changed")
			}
		},
		"": func(t *rapid.T) {
			conserve(t, u, len(hands))
			if got := q.Stats().InvalidDescriptor; honest && got != invalid {
				t.Fatalf("%d invalid descriptors, want %d", got, invalid)
			}
			p := q.Places()
			if p.Owned != q.Held() || p.Fill+p.Rx+p.Tx+p.Completion+p.Kernel != q.Held() {
				t.Fatalf("places %+v, the queue holds %d", p, q.Held())
			}
			if honest && (p.Kernel != len(k.sent) || p.Rx != len(k.arrived)) {
				t.Fatalf("places %+v; the kernel has %d that it sends and gave us %d to fetch", p, len(k.sent), len(k.arrived))
			}
		},
	}
	if !honest {
		actions["the kernel completes twice"] = func(t *rapid.T) {
			if len(k.done) > 0 {
				k.complete(rapid.SampledFrom(k.done).Draw(t, "chunk"))
			}
		}
		actions["the kernel completes what it likes"] = func(t *rapid.T) { k.complete(rapid.Uint64().Draw(t, "address")) }
		actions["the kernel receives into what it likes"] = func(t *rapid.T) {
			addr := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 1<<18)).Draw(t, "address")
			if k.rx.room(1) > 0 {
				k.put(packet.Desc{Addr: addr, Len: rapid.Uint32().Draw(t, "length")})
			}
		}
	}
	rt.Repeat(actions)
}

// Any descriptor at all: it enters the ring if and only if it is a frame within one chunk that nobody else has; and chunks stay whole.
func FuzzSend(f *testing.F) {
	f.Add(uint64(256), uint32(60))
	f.Add(uint64(256), uint32(0))
	f.Add(uint64(256), uint32(1792))
	f.Add(uint64(256), uint32(1793))
	f.Add(uint64(64*2048-1), uint32(1))
	f.Add(uint64(64*2048), uint32(1))
	f.Add(^uint64(0), uint32(1))
	f.Add(^uint64(0)-58, uint32(60))
	f.Fuzz(func(t *testing.T, addr uint64, length uint32) {
		u := plainUmem(t, 64, false)
		defer u.Close()
		q, k := plainQueue(t, u, 8)
		defer q.Close()
		for range u.pool.Free() / 2 {
			u.pool.Get()
		}
		var hands []uint64
		for c := range uint64(64) { // take all that nobody has, by force
			if u.owner[c] == 0 {
				hands = append(hands, c)
			}
		}
		for u.pool.Free() > 0 {
			u.pool.Get()
		}
		d := packet.Desc{Addr: addr, Len: length}
		mine := slices.Contains(hands, addr/2048)
		want := u.pool.Bytes(d) != nil && length > 0 && mine
		if n := q.Send([]packet.Desc{d}); n != 1 {
			t.Fatalf("Send took %d of 1", n)
		}
		k.take()
		if got := len(k.sent) == 1; got != want {
			t.Errorf("%+v entered the ring: %v, want %v", d, got, want)
		}
		left := len(hands)
		if mine {
			left--
		}
		conserve(t, u, left)
		if got, want := q.Stats().InvalidDescriptor, uint64(1-len(k.sent)); got != want {
			t.Errorf("%d invalid descriptors, want %d", got, want)
		}
	})
}

func TestOwnersPanic(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(q *Queue, k *kernelTwin, d packet.Desc)
	}{
		{"a frame is sent twice", func(q *Queue, k *kernelTwin, d packet.Desc) { q.Send([]packet.Desc{d, d}) }},
		{"a frame is put back after it was sent", func(q *Queue, k *kernelTwin, d packet.Desc) {
			q.Send([]packet.Desc{d})
			q.pool.Put(d.Addr)
			for k.receive(60) {
			}
			q.Receive(make([]packet.Desc, 8))
			q.Flush()
		}},
		{"the kernel completes a frame twice", func(q *Queue, k *kernelTwin, d packet.Desc) {
			q.Send([]packet.Desc{d})
			k.complete(d.Addr)
			k.complete(d.Addr)
			q.sending++ // or it would not look
			q.Flush()
		}},
		{"the kernel receives into a chunk that it does not have", func(q *Queue, k *kernelTwin, d packet.Desc) {
			k.put(d)
			q.Receive(make([]packet.Desc, 8))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := plainUmem(t, 64, true)
			q, k := plainQueue(t, u, 8)
			d := place(t, u, testFrame(1, 60))
			defer func() {
				if r, ok := recover().(string); !ok || !strings.Contains(r, "chunk at") {
					t.Errorf("recovered %q, want a panic that names the chunk", r)
				}
			}()
			tt.do(q, k, d)
		})
	}
}

// One index store and no system call a burst, as long as the kernel does not ask for one.
func TestNoWakeupUnlessAsked(t *testing.T) {
	u := plainUmem(t, 64, true)
	defer u.Close()
	q, k := plainQueue(t, u, 16)
	defer q.Close()
	q.Send([]packet.Desc{place(t, u, testFrame(1, 60))})
	if !q.Flush() {
		t.Error("the kernel has not taken the frame: Flush reports false, want true")
	}
	if n := q.Stats().Wakeups; n != 0 {
		t.Errorf("%d system calls, want none: the flag is clear", n)
	}
	k.take()
	if q.Flush() {
		t.Error("the kernel has taken the frame: Flush reports true, want false")
	}
	k.complete(k.sent[0].Addr)
	q.Flush()
	conserve(t, u, 0)
}

func TestMovingFramesDoesNotAllocate(t *testing.T) {
	u := plainUmem(t, 256, false)
	defer u.Close()
	q, k := plainQueue(t, u, 64)
	defer q.Close()
	d := make([]packet.Desc, 32)
	moved := 0
	if n := testing.AllocsPerRun(500, func() {
		for range 32 {
			k.receive(60)
		}
		n := q.Receive(d)
		moved += q.Send(d[:n])
		q.Flush()
		n = int(k.tx.available(64))
		for i := range uint32(n) {
			k.complete(k.tx.desc[(k.tx.next+i)&k.tx.mask].Addr)
		}
		k.tx.next += uint32(n)
		k.tx.publish()
		q.watched = time.Time{} // ask after the device every time
		q.idle = true
		q.Flush()
		k.arrived = k.arrived[:0]
	}); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
	if moved < 500*32 {
		t.Errorf("%d frames moved, want %d: the measurement says nothing", moved, 500*32)
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string // part of the error
	}{
		{Options{}, ""},
		{Options{Mode: ModeGeneric}, ""},
		{Options{Mode: "fast"}, "must be auto"},
		{Options{Attached: "offload"}, "must be native or generic"},
		{Options{Mode: ModeZerocopy, Attached: ModeGeneric}, "native mode"},
		{Options{RingSize: 1000}, "power of two"},
		{Options{RingSize: 32}, "power of two"},
		{Options{RingSize: 1 << 16}, "power of two"},
		{Options{RingSize: -64}, "power of two"},
	} {
		err := tt.o.complete()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want an error with %q", tt.o, err, tt.want)
		}
	}
	for _, o := range []UmemOptions{{ChunkSize: 1024}, {Chunks: -1}, {Chunks: 1 << 25}, {Chunks: 3}, {Headroom: -1}, {Headroom: 1024}} {
		if u, err := NewUmem(o); err == nil {
			u.Close()
			t.Errorf("NewUmem(%+v) succeeds, want an error", o)
		}
	}
}

func TestReleaseAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44-fc-v669": true, "6.4.0": true, "6.3.9": false, "5.15.0-91-generic": false, "7.0-rc1": true, "10.1": true, "": false, "x": false,
	} {
		if got := releaseAtLeast(release, 6, 4); got != want {
			t.Errorf("%q is at least 6.4: %v, want %v", release, got, want)
		}
	}
}
