package afxdp

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// mapped is how many rings of AF_XDP sockets the process has mapped.
func mapped(t testing.TB) int {
	t.Helper()
	m, err := ringMappings()
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	return len(m)
}

// receiveOne waits for a frame of ours.
func receiveOne(t testing.TB, q *Queue) packet.Desc {
	t.Helper()
	var d [1]packet.Desc
	eventually(t, "a frame arrives on "+q.dev.name, func() bool {
		q.Flush()
		return q.Receive(d[:]) == 1
	})
	return d[0]
}

// takeOne waits for a frame at the far end while q is flushed.
func takeOne(t testing.TB, q *Queue, f *far) []byte {
	t.Helper()
	b := make([]byte, 4096)
	n := 0
	eventually(t, "a frame leaves by "+q.dev.name, func() (ok bool) {
		q.Flush()
		n, ok = f.take(b)
		return ok
	})
	return b[:n]
}

// carries checks that a frame comes in by p and another goes out.
func carries(t testing.TB, u *Umem, p *port) {
	t.Helper()
	in, out := testFrame(1, 80), testFrame(2, 90)
	if !p.far.inject(in) {
		t.Fatalf("%s: the far end cannot send", p.dev.name)
	}
	d := receiveOne(t, p.Queue)
	if got := u.pool.Bytes(d); !bytes.Equal(got, in) {
		t.Fatalf("%s received %x, want %x", p.dev.name, got, in)
	}
	copy(u.pool.Bytes(packet.Desc{Addr: d.Addr, Len: 90}), out)
	d.Len = 90
	if n := p.Send([]packet.Desc{d}); n != 1 {
		t.Fatalf("%s: Send took %d of 1", p.dev.name, n)
	}
	if got := takeOne(t, p.Queue, p.far); !bytes.Equal(got, out) {
		t.Fatalf("%s sent %x, want %x", p.dev.name, got, out)
	}
	conserve(t, u, 0)
}

func TestForwardWithoutCopy(t *testing.T) {
	for _, mode := range []string{ModeNative, ModeGeneric} {
		t.Run(mode, func(t *testing.T) {
			inNamespace(t)
			u := testUmem(t, UmemOptions{})
			a, b := openPort(t, u, "va", Options{Mode: mode}), openPort(t, u, "vb", Options{Mode: mode})
			if a.Mode() != mode || b.Mode() != mode {
				t.Errorf("modes %s and %s, want %s", a.Mode(), b.Mode(), mode)
			}
			for i := range uint32(1000) { // more than there are entries in a ring
				in := testFrame(i, 60+int(i)%1400)
				if !a.far.inject(in) {
					t.Fatal("the far end cannot send")
				}
				d := receiveOne(t, a.Queue)
				if d.Addr%uint64(u.pool.ChunkSize()) < packet.Headroom {
					t.Fatalf("the frame lies at %d of its chunk, want headroom of %d", d.Addr%2048, packet.Headroom)
				}
				if b.Send([]packet.Desc{d}) != 1 {
					t.Fatal("Send took none")
				}
				if out := takeOne(t, b.Queue, b.far); !bytes.Equal(in, out) {
					t.Fatalf("frame %d: sent %x, want %x", i, out, in)
				}
				conserve(t, u, 0)
			}
			if s := b.Stats(); s.Sent != 1000 || s.SendLost+s.InvalidDescriptor != 0 {
				t.Errorf("stats %+v, want 1000 sent and none lost", s)
			}
		})
	}
}

// A burst costs one system call, and receiving costs none.
func TestWakeups(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	p := openPort(t, u, "va", Options{})
	for i := range uint32(50) {
		p.far.inject(testFrame(i, 60))
	}
	for range 50 {
		u.pool.Put(receiveOne(t, p.Queue).Addr)
	}
	if n := p.Stats().Wakeups; n != 0 {
		t.Errorf("%d system calls to receive 50 frames, want none", n)
	}
	var d []packet.Desc
	for i := range uint32(200) {
		d = append(d, place(t, u, testFrame(i, 60)))
	}
	if n := p.Send(d); n != len(d) {
		t.Fatalf("Send took %d of %d", n, len(d))
	}
	eventually(t, "all is sent", func() bool { return !p.Flush() })
	want, most := uint64(1), uint64(len(d)/32+2)
	n := p.Stats().Wakeups
	budget := unix.SetsockoptInt(p.SocketFD(), unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, 256) == nil
	if budget && n != want || n < want || n > most {
		t.Errorf("%d system calls to send a burst of %d; want %d with a send budget (have it: %v), at most %d without", n, len(d), want, budget, most)
	}
	eventually(t, "all chunks return", func() bool { p.Flush(); return p.sending == 0 })
	if p.Flush(); p.Stats().Wakeups != n {
		t.Error("a flush of nothing calls the kernel")
	}
}

func TestLinkDownAndUp(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	a, b := openPort(t, u, "va", Options{}), openPort(t, u, "vb", Options{})
	carries(t, u, a)
	fd, generation := a.SocketFD(), a.Generation()
	for range 2 {
		setLink(t, "va", false)
		lostBefore := a.Stats().SendLost
		sent := uint64(0)
		eventually(t, "the queue sees the link down", func() bool { // under traffic: ENETDOWN
			if d := place(t, u, testFrame(1, 60)); a.Send([]packet.Desc{d}) == 0 {
				u.pool.Put(d.Addr)
			} else {
				sent++
			}
			return a.Flush() && !a.Stats().Up
		})
		stuck := a.sending // in the send ring, from before the queue knew
		for i := range uint32(600) {
			if n := a.Send([]packet.Desc{place(t, u, testFrame(i, 60))}); n != 1 {
				t.Fatalf("with the link down, Send took %d of 1", n)
			}
			a.Flush()
		}
		if lost := a.Stats().SendLost - lostBefore; lost != 600+sent-uint64(stuck) {
			t.Errorf("%d frames lost, want %d of %d, as %d wait in the ring", lost, 600+sent-uint64(stuck), 600+sent, stuck)
		}
		conserve(t, u, 0)
		carries(t, u, b) // the other port does not mind
		setLink(t, "va", true)
		eventually(t, "the queue sees the link up", func() bool { a.Flush(); return a.Stats().Up })
		eventually(t, "what waited has left", func() bool { a.Flush(); return a.sending == 0 })
		for drained, buf := false, make([]byte, 2048); !drained; {
			_, ok := a.far.take(buf)
			drained = !ok
		}
		carries(t, u, a)
	}
	if a.SocketFD() != fd || a.Generation() != generation {
		t.Error("the socket was made anew; a link that goes down and up must not need a new XSKMAP entry")
	}
}

// The other end goes down: the device is up, has no carrier, and drops what it is given.
func TestNoCarrier(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	a := openPort(t, u, "va", Options{})
	carries(t, u, a)
	setLink(t, "vap", false)
	sent := uint64(1)
	eventually(t, "the queue sees that the carrier is gone", func() bool {
		d := place(t, u, testFrame(1, 60))
		if a.Send([]packet.Desc{d}) == 0 {
			u.pool.Put(d.Addr)
		} else {
			sent++
		}
		a.Flush()
		return !a.Stats().Up
	})
	conserve(t, u, 0)
	setLink(t, "vap", true)
	eventually(t, "the queue sees the carrier", func() bool { a.Flush(); return a.Stats().Up })
	eventually(t, "all chunks return", func() bool { a.Flush(); return a.sending == 0 })
	if s := a.Stats(); s.Sent+s.SendLost != sent || s.SendLost == 0 {
		t.Errorf("stats %+v: want %d sent and lost together, some of them lost", s, sent)
	}
	a.far.close()
	a.far = openFar(t, "vap")
	carries(t, u, a)
}

// A worker that sleeps until the carrier is back drives the sending of what is in the ring by waiting. All of that is lost, and counted.
func TestSleepingWithoutCarrier(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	a := openPort(t, u, "va", Options{})
	carries(t, u, a)
	sent := a.Stats().Sent
	setLink(t, "vap", false)
	eventually(t, "the kernel says that the carrier is gone", func() bool { return a.dev.flags()&unix.IFF_RUNNING == 0 })
	const frames = 100
	var d []packet.Desc
	for i := range uint32(frames) {
		d = append(d, place(t, u, testFrame(i, 60)))
	}
	if n := a.Send(d); n != frames {
		t.Fatalf("Send took %d of %d", n, frames)
	}
	a.watched = time.Time{} // the first refused frame is evidence enough, now
	a.Flush()
	if left := a.tx.left(); a.Stats().Up || left == 0 {
		t.Fatalf("up %v, %d frames wait in the ring; want a link that is down and some", a.Stats().Up, left)
	}
	eventually(t, "waiting has emptied the ring", func() bool {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(a.FD()), Events: unix.POLLIN}}, 0)
		a.Flush()
		return a.tx.left() == 0 && a.sending == 0
	})
	if s := a.Stats(); s.SendLost != frames || s.Sent != sent {
		t.Errorf("%d frames are lost and %d sent, want all %d lost", s.SendLost, s.Sent-sent, frames)
	}
	conserve(t, u, 0)
}

// The device of a port is deleted and made again: the queue comes back by itself, with a new socket; the other port goes on all
// the while. Whether the first socket of the memory is lost, the one that joined, or both, makes no difference.
func TestDeviceDeletedAndMadeAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose []int
		live bool
	}{
		{name: "the first", lose: []int{0}},
		{name: "the one that joined", lose: []int{1}},
		{name: "all", lose: []int{0, 1}},
		{name: "all, with live frames", lose: []int{0, 1}, live: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t)
			u := testUmem(t, UmemOptions{})
			ports := []*port{openPort(t, u, "va", Options{}), openPort(t, u, "vb", Options{})}
			if tt.live {
				ports[0].sendLive(t, "vap")
				ports[1].sendLive(t, "vbp")
			}
			rings := mapped(t)
			for range 2 {
				for _, i := range tt.lose {
					p := ports[i]
					generation := p.Generation()
					for i := range uint32(2 * liveLeast) { // frames in all rings
						p.far.inject(testFrame(i, 60))
						p.Send([]packet.Desc{place(t, u, testFrame(i, 60))})
					}
					p.program.close()
					deleteLink(t, p.dev.name)
					eventually(t, "the queue sees the device gone", func() bool { p.Flush(); return p.FD() == -1 })
					if p.Held() != 0 || p.SocketFD() != -1 || p.Generation() == generation || p.Stats().Up {
						t.Errorf("without device: holds %d, descriptor %d, generation %d then %d, stats %+v", p.Held(), p.SocketFD(), generation, p.Generation(), p.Stats())
					}
					conserve(t, u, 0)
					lost := p.Stats().SendLost
					if n := p.Send([]packet.Desc{place(t, u, testFrame(0, 60))}); n != 1 || p.Stats().SendLost != lost+1 {
						t.Errorf("without device: Send took %d, lost %d; want 1 and 1", n, p.Stats().SendLost-lost)
					}
				}
				for i, p := range ports {
					if len(tt.lose) == 1 && i != tt.lose[0] {
						carries(t, u, p)
					}
				}
				for _, i := range tt.lose {
					p := ports[i]
					name, generation := p.dev.name, p.Generation()
					addVeth(t, name, name+"p")
					eventually(t, "the queue is back", func() bool { p.Flush(); return p.Stats().Up })
					if p.Generation() == generation {
						t.Error("the generation has not changed")
					}
					p.program, p.far = attach(t, name, ModeNative), openFar(t, name+"p")
					p.register(t, p.Queue)
				}
				for _, p := range ports {
					carries(t, u, p)
				}
				if now := mapped(t); now != rings {
					t.Errorf("%d rings are mapped, want %d", now, rings)
				}
			}
		})
	}
}

// A device that comes back unusable is not used; the queue says why, and takes it as soon as it can.
func TestDeviceComesBackUnusable(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	p := openPort(t, u, "va", Options{})
	p.program.close()
	deleteLink(t, "va")
	eventually(t, "the queue sees the device gone", func() bool { p.Flush(); return p.FD() == -1 })
	setMTU := func(mtu int) {
		l, err := netlink.LinkByName("va")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			t.Fatal(err)
		}
	}
	addVeth(t, "va", "vap")
	setMTU(3000)
	eventually(t, "the queue says what is wrong", func() bool { p.Flush(); return p.Err() != nil || p.FD() >= 0 })
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "MTU 3000") {
		t.Errorf("%v, want an error that names the MTU", err)
	}
	conserve(t, u, 0)
	setMTU(1500)
	eventually(t, "the queue is back", func() bool { p.Flush(); return p.Stats().Up })
	if err := p.Err(); err != nil {
		t.Errorf("the queue is back, but says %v", err)
	}
}

func TestNothingStaysMapped(t *testing.T) {
	inNamespace(t)
	before := mapped(t)
	u := testUmem(t, UmemOptions{})
	p := openPort(t, u, "va", Options{})
	if n := mapped(t) - before; n != 4 {
		t.Errorf("an open queue has %d rings mapped, want 4", n)
	}
	// The queue is taken: each way of setting up says so, and leaves nothing behind.
	for _, own := range []bool{false, true} {
		other := testUmem(t, UmemOptions{OwnSetup: own})
		for _, mode := range []string{ModeNative, ModeAuto} {
			_, err := Open(other, "va", 0, Options{Mode: mode})
			if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "va queue 0") {
				t.Errorf("own set-up %v, %s: %v, want EBUSY that names the queue", own, mode, err)
			}
			conserve(t, other, 0)
		}
	}
	if n := mapped(t) - before; n != 4 {
		t.Errorf("after failed attempts %d rings are mapped, want 4", n)
	}
	if err := p.Queue.Close(); err != nil {
		t.Error(err)
	}
	if n := mapped(t) - before; n != 0 {
		t.Errorf("%d rings are mapped after Close, want none", n)
	}
	q, err := Open(u, "va", 0, Options{RingSize: 256}) // at once: the kernel is still busy with the last one
	if err != nil {
		t.Fatal(err)
	}
	p.Queue = q
	p.register(t, q)
	carries(t, u, p)
}

func TestRefused(t *testing.T) {
	inNamespace(t)
	addVeth(t, "va", "vap")
	addVeth(t, "vb", "vbp")
	setMTU := func(mtu int) {
		l, _ := netlink.LinkByName("va")
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct { // no subtests: they would run on other threads, in other namespaces
		name  string
		mtu   int
		umem  UmemOptions
		port  string
		queue int
		o     Options
		want  string
	}{
		{name: "no such device", port: "vx", want: "no such device"},
		{name: "no such queue", port: "va", queue: 7, want: "queue 7"},
		{name: "a negative queue", port: "va", queue: -1, want: "queue number -1"},
		{name: "a name too long", port: "a-name-that-is-too-long", want: "interface name"},
		{name: "zero copy on veth", port: "va", o: Options{Mode: ModeZerocopy}, want: "not supported"},
		{name: "MTU above a small chunk", mtu: 1800, port: "va", want: "chunks of 4096"},
		{name: "MTU above any chunk", mtu: 3600, umem: UmemOptions{ChunkSize: 4096}, port: "va", want: "at most 3500"},
		{name: "a large MTU in a large chunk", mtu: 3500, umem: UmemOptions{ChunkSize: 4096}, port: "va"},
		{name: "a usual MTU", mtu: 1700, port: "va"},
	} {
		if tt.mtu != 0 {
			setMTU(tt.mtu)
		}
		u := testUmem(t, tt.umem)
		q, err := Open(u, tt.port, tt.queue, tt.o)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if err == nil {
			q.Close()
		}
		conserve(t, u, 0)
		setMTU(1500)
	}
	u := testUmem(t, UmemOptions{})
	q, err := Open(u, "va", 0, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := Open(u, "vb", 0, Options{Mode: ModeZerocopy}); err == nil {
		t.Error("zero copy besides a port in copy mode succeeds, want an error")
	}
	if err := u.Close(); err == nil {
		t.Error("Close of a memory with an open queue succeeds, want an error")
	}
}

// A port that cannot do zero copy makes the others leave it. No device here can, so the state is made by hand; what is tested is that all
// sockets are made anew in copy mode and carry on.
func TestLeavingZerocopy(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	a := openPort(t, u, "va", Options{})
	a.Queue.socket.zerocopy = true
	generation := a.Generation()
	b := openPort(t, u, "vb", Options{Mode: ModeNative})
	if a.Generation() == generation || a.zerocopy {
		t.Error("the port that was open has not been opened again")
	}
	a.register(t, a.Queue)
	carries(t, u, a)
	carries(t, u, b)
	a.Queue.socket.zerocopy, a.options.Mode = true, ModeZerocopy
	addVeth(t, "vc", "vcp")
	if _, err := Open(u, "vc", 0, Options{Mode: ModeGeneric}); err == nil || !strings.Contains(err.Error(), "va insists") {
		t.Errorf("%v, want an error that names the port that insists on zero copy", err)
	}
	a.Queue.socket.zerocopy = false
}

// What the kernel drops before us has a name.
func TestKernelStats(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{Chunks: 1024})
	p := openPort(t, u, "va", Options{RingSize: 64})
	const burst = 200
	for i := range uint32(burst) {
		p.far.inject(testFrame(i, 60))
	}
	time.Sleep(10 * time.Millisecond)
	s, k := p.Stats(), p.KernelStats()
	if got := s.RxRingFull + s.FillRingEmpty; got != burst-64 {
		t.Errorf("%d frames to a queue of 64 that does not receive: %d lost, want %d; %+v", burst, got, burst-64, k)
	}
	var d [packet.VectorSize]packet.Desc
	n := p.Receive(d[:])
	if n != 64 {
		t.Errorf("received %d, want 64", n)
	}
	for _, d := range d[:n] {
		u.pool.Put(d.Addr)
	}
	p.Flush()
	for i := range d {
		d[i] = packet.Desc{Addr: d[i].Addr}
	}
	before := p.Stats().InvalidDescriptor
	p.Send([]packet.Desc{{Addr: place(t, u, testFrame(1, 60)).Addr}, {Addr: place(t, u, testFrame(1, 60)).Addr, Len: 1793}})
	eventually(t, "all is sent", func() bool { return !p.Flush() })
	if got := p.Stats().InvalidDescriptor - before; got != 2 || p.KernelStats().TxInvalid != 0 {
		t.Errorf("%d invalid descriptors, want 2, and none that the kernel saw: %+v", got, p.KernelStats())
	}
	p.Queue.Close()
	if after := p.KernelStats(); after.RxRingFull+after.FillRingEmpty < burst-64 {
		t.Errorf("after Close the losses are forgotten: %+v, before %+v", after, k)
	}
	if s := p.Stats(); s.Received != 64 {
		t.Errorf("received %d, want 64", s.Received)
	}
}
