package afxdp

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// generate sends frames to the port from a thread of its own, as fast as it can, until stop is called: by one packet socket, or by
// AF_XDP in bursts.
func generate(t testing.TB, p *port, size int, bursts bool) (stop func()) {
	t.Helper()
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	var send func() bool
	if bursts {
		send = burstsTo(t, p, size)
	} else {
		_ = unix.SetsockoptInt(p.far.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		b := testFrame(0, size)
		send = func() bool { return p.far.inject(b) }
	}
	var over atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		defer ns.Close()       // the descriptor
		if err := netns.Set(ns); err != nil {
			t.Error(err)
			return
		}
		for !over.Load() {
			if !send() {
				runtime.Gosched()
			}
		}
	})
	return func() { over.Store(true); done.Wait() }
}

// burstsTo opens the other end of the port's veth; the function it returns sends a burst from there.
func burstsTo(t testing.TB, p *port, size int) func() bool {
	t.Helper()
	u := testUmem(t, UmemOptions{Chunks: 8192})
	q, err := Open(u, p.dev.name+"p", 0, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := testFrame(0, size)
	var d [64]packet.Desc
	return func() bool {
		n := 0
		for n < len(d) && u.pool.Free() > 0 {
			addr, _ := u.pool.Get()
			d[n] = packet.Desc{Addr: addr + packet.Headroom, Len: uint32(len(b))}
			copy(u.pool.Bytes(d[n]), b)
			n++
		}
		sent := q.Send(d[:n])
		for _, drop := range d[sent:n] {
			u.pool.Put(drop.Addr)
		}
		q.Flush()
		return sent > 0
	}
}

// BenchmarkForward is the least that a balancer can do: a frame of one port leaves by another, untouched. One iteration is one frame
// forwarded; whatever balances on top of it is compared with it. The generator has the other core; as a packet socket it is the bottleneck.
func BenchmarkForward(b *testing.B) {
	for _, bb := range []struct {
		name, mode string
		bursts     bool
	}{
		{"mode=native/from=af_packet", ModeNative, false},
		{"mode=generic/from=af_packet", ModeGeneric, false},
		{"mode=native/from=af_xdp", ModeNative, true},
		{"mode=generic/from=af_xdp", ModeGeneric, true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			inNamespace(b)
			u := testUmem(b, UmemOptions{Chunks: 16384})
			in, out := openPort(b, u, "va", Options{Mode: bb.mode, RingSize: 2048}), openPort(b, u, "vb", Options{Mode: bb.mode, RingSize: 2048})
			out.far.close() // the frames end in the kernel
			stop := generate(b, in, 60, bb.bursts)
			defer stop()
			var d [packet.VectorSize]packet.Desc
			bursts := 0
			began := time.Now()
			b.ResetTimer()
			for forwarded := 0; forwarded < b.N; {
				n := in.Receive(d[:])
				if n > 0 {
					sent := out.Send(d[:n])
					for _, drop := range d[sent:n] {
						u.pool.Put(drop.Addr)
					}
					forwarded += sent
					bursts++
				}
				in.Flush()
				out.Flush()
			}
			b.StopTimer()
			elapsed := time.Since(began).Seconds()
			s := out.Stats()
			b.ReportMetric(float64(s.Sent)/elapsed/1e6, "Mpps")
			b.ReportMetric(float64(s.Sent)/float64(max(bursts, 1)), "frames/burst")
			b.ReportMetric(float64(s.Wakeups)/float64(max(bursts, 1)), "wakeups/burst")
			r := in.Stats()
			b.ReportMetric(float64(r.RxRingFull+r.FillRingEmpty)/float64(b.N), "lost/frame")
		})
	}
}

// BenchmarkRings is the driver's own share: receive, send, reap and refill over plain memory, per frame. The kernel's side is in it, as a twin.
func BenchmarkRings(b *testing.B) {
	for _, burst := range []int{1, 32, 256} {
		b.Run(map[int]string{1: "burst=1", 32: "burst=32", 256: "burst=256"}[burst], func(b *testing.B) {
			u := plainUmem(b, 4096, false)
			defer u.Close()
			q, k := plainQueue(b, u, 1024)
			defer q.Close()
			d := make([]packet.Desc, burst)
			b.ReportAllocs()
			for done := 0; done < b.N; done += burst {
				for range burst {
					a := k.fill.addr[k.fill.next&k.fill.mask]
					if k.fill.available(1) == 0 {
						b.Fatal("the fill ring is empty")
					}
					k.fill.next++
					k.rx.desc[k.rx.next&k.rx.mask] = packet.Desc{Addr: a + 256, Len: 60}
					k.rx.next++
				}
				k.fill.publish()
				k.rx.publish()
				n := q.Receive(d)
				q.Send(d[:n])
				for range k.tx.available(uint32(n)) {
					k.completion.addr[k.completion.next&k.completion.mask] = k.tx.desc[k.tx.next&k.tx.mask].Addr
					k.completion.next++
					k.tx.next++
				}
				k.tx.publish()
				k.completion.publish()
				q.Flush()
			}
		})
	}
}

// Frames are forwarded while the device that they leave by goes down, comes up, vanishes and comes back; all chunks are still there.
func TestForwardThroughTrouble(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{Chunks: 4096})
	in, out := openPort(t, u, "va", Options{}), openPort(t, u, "vb", Options{})
	stop := generate(t, in, 60, false)
	defer stop()
	var d [packet.VectorSize]packet.Desc
	run := func(duration time.Duration) {
		for end := time.Now().Add(duration); time.Now().Before(end); {
			n := in.Receive(d[:])
			sent := out.Send(d[:n])
			for _, drop := range d[sent:n] {
				u.pool.Put(drop.Addr)
			}
			in.Flush()
			out.Flush()
			conserve(t, u, 0)
		}
	}
	until := func(what string, f func() bool) {
		t.Helper()
		eventually(t, what, func() bool { run(5 * time.Millisecond); return f() })
	}
	for range 2 {
		received := in.Stats().Received
		until("frames are received", func() bool { return in.Stats().Received > received })
		setLink(t, "vb", false)
		until("down", func() bool { return !out.Stats().Up })
		lost := out.Stats().SendLost
		until("frames are lost", func() bool { return out.Stats().SendLost > lost })
		setLink(t, "vb", true)
		until("up", func() bool { return out.Stats().Up })
		before := out.Stats()
		until("frames leave again", func() bool { return out.Stats().Sent > before.Sent+100 })
		out.program.close()
		deleteLink(t, "vb")
		until("gone", func() bool { return out.FD() == -1 })
		addVeth(t, "vb", "vbp")
		until("back", func() bool { return out.Stats().Up })
		out.program = attach(t, "vb", ModeNative)
		out.register(t, out.Queue)
		before = out.Stats()
		until("frames leave again", func() bool { return out.Stats().Sent > before.Sent+100 })
	}
	r, s := in.Stats(), out.Stats()
	if s.InvalidDescriptor+r.InvalidDescriptor != 0 {
		t.Errorf("stats %+v and %+v: want no invalid descriptor", r, s)
	}
	if r.Received < s.Sent+s.SendLost {
		t.Errorf("received %d, but sent %d and lost %d", r.Received, s.Sent, s.SendLost)
	}
}
