package afxdp

import (
	"encoding/binary"
	"os/exec"
	"testing"
	"time"

	"weir/dataplane/packet"
)

// sendLive has p send live frames, which its peer takes, or skips.
func (p *port) sendLive(t testing.TB, peer string) {
	t.Helper()
	l, err := NewLive(1)
	if err != nil {
		t.Skipf("needs live frames: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	gro(t, peer, "on")
	p.SendLive(l)
	p.SetLive(true)
}

// gro has a device take XDP frames, or not.
func gro(t testing.TB, name, how string) {
	t.Helper()
	if out, err := exec.Command("ethtool", "-K", name, "gro", how).CombinedOutput(); err != nil {
		t.Skipf("needs ethtool: %v: %s", err, out)
	}
}

// burst sends frames of these sizes, numbered from first on, and takes them at the other end.
func burst(t *testing.T, u *Umem, p *port, first uint32, sizes []int) (got []uint32) {
	t.Helper()
	var d []packet.Desc
	for i, size := range sizes {
		d = append(d, place(t, u, testFrame(first+uint32(i), size)))
	}
	if n := p.Send(d); n != len(d) {
		t.Fatalf("Send took %d of %d", n, len(d))
	}
	conserve(t, u, 0)
	p.Flush()
	b := make([]byte, 4096)
	for i := 0; i < 2000 && len(got) < len(sizes); i++ {
		if n, ok := p.far.take(b); ok {
			number := binary.BigEndian.Uint32(b[14:])
			if want := sizes[number-first]; n != want {
				t.Errorf("frame %d has %d bytes, want %d", number, n, want)
			}
			got = append(got, number)
		}
		p.Flush()
	}
	conserve(t, u, 0)
	return got
}

// TestLiveFrames: bursts of all sizes arrive whole and in order, by live frames if they are large enough, else by the ring.
func TestLiveFrames(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{Owners: true})
	p := openPort(t, u, "va", Options{RingSize: 512})
	p.sendLive(t, "vap")
	first := uint32(1)
	for _, n := range []int{1, 23, 24, 63, 64, 65, 100, 127, 128, 200} {
		var sizes []int
		for i := range n {
			sizes = append(sizes, []int{60, 14 + 46, 1514, 333, 64}[(i+n)%5])
		}
		got := burst(t, u, p, first, sizes)
		for i, number := range got {
			if number != first+uint32(i) {
				t.Fatalf("%d frames: %d is the %dth", n, number-first, i)
			}
		}
		if len(got) != n {
			t.Fatalf("%d of %d frames arrived", len(got), n)
		}
		first += uint32(n)
	}
	if s := p.Stats(); s.SendLost != 0 {
		t.Errorf("%+v", s)
	}
	if p.live.state.next == 0 {
		t.Error("no frame was a live one")
	}
}

// TestLiveFramesThatNobodyTakes: the other end takes no XDP frames. The first batch is lost, and counted; what follows goes by the ring.
func TestLiveFramesThatNobodyTakes(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{Owners: true})
	p := openPort(t, u, "va", Options{RingSize: 512})
	p.sendLive(t, "vap")
	gro(t, "vap", "off")
	sizes := make([]int, 64)
	for i := range sizes {
		sizes[i] = 60
	}
	if got := burst(t, u, p, 1, sizes); len(got) != 0 {
		t.Fatalf("%d arrived", len(got))
	}
	if s := p.Stats(); s.SendLost != 64 {
		t.Errorf("%d lost, want 64", s.SendLost)
	}
	p.live.until = time.Now().Add(time.Hour) // as after many such batches
	if got := burst(t, u, p, 100, sizes); len(got) != 64 {
		t.Errorf("%d of 64 arrived by the ring", len(got))
	}
	gro(t, "vap", "on")
	p.SetLive(false) // what control sees in turn
	p.SetLive(true)
	if got := burst(t, u, p, 200, sizes); len(got) != 64 {
		t.Errorf("%d of 64 arrived when the other end takes them again", len(got))
	}
	if s := p.Stats(); s.SendLost != 64 || s.Live != 64 {
		t.Errorf("%d lost in the end, %d live, want 64 and 64", s.SendLost, s.Live)
	}
}

func TestLiveDoesNotAllocate(t *testing.T) {
	inNamespace(t)
	u := testUmem(t, UmemOptions{})
	p := openPort(t, u, "va", Options{RingSize: 512})
	p.sendLive(t, "vap")
	d := make([]packet.Desc, 64)
	frame := testFrame(1, 60)
	if n := testing.AllocsPerRun(50, func() {
		for i := range d {
			addr, _ := u.pool.Get()
			d[i] = packet.Desc{Addr: addr + packet.Headroom, Len: 60}
			copy(u.pool.Bytes(d[i]), frame)
		}
		p.Send(d)
		p.Flush()
	}); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
}

// TestLiveFramesOfADeviceThatIsDown: what is lost on the way is counted to the last frame, whichever end is down and whenever it is noticed.
func TestLiveFramesOfADeviceThatIsDown(t *testing.T) {
	for _, down := range []string{"va", "vap"} {
		t.Run(down, func(t *testing.T) {
			inNamespace(t)
			u := testUmem(t, UmemOptions{Owners: true})
			p := openPort(t, u, "va", Options{RingSize: 512})
			p.sendLive(t, "vap")
			setLink(t, down, false)
			sent := uint64(0)
			for i := range uint32(3) {
				var d []packet.Desc
				for n := range uint32(64) {
					d = append(d, place(t, u, testFrame(64*i+n, 60)))
				}
				sent += uint64(p.Send(d))
				p.Flush()
				conserve(t, u, 0)
			}
			setLink(t, down, true)
			eventually(t, "the queue is up", func() bool { p.Flush(); return p.Stats().Up })
			eventually(t, "all chunks return", func() bool { p.Flush(); return p.sending == 0 })
			got := uint64(0)
			b := make([]byte, 4096)
			for range 100 {
				if _, ok := p.far.take(b); ok {
					got++
				}
			}
			if s := p.Stats(); s.Sent+s.SendLost != sent || s.Sent < got || s.SendLost == 0 {
				t.Errorf("%d sent, %d arrived: %+v", sent, got, s)
			}
			conserve(t, u, 0)
		})
	}
}
