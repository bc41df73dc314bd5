package bench

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"pgregory.net/rapid"

	"weir/dataplane/packet/pkttest"
)

func needsBPF(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: XDP programs")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Skipf("needs to lock memory: %v", err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		t.Skipf("needs XDP: %v", err)
	}
	p.Close()
}

// TestSourceProgram runs the program that sends, without sending, and compares its frames with the crafter's, byte for byte.
func TestSourceProgram(t *testing.T) {
	needsBPF(t)
	rapid.Check(t, func(r *rapid.T) {
		x := drawTraffic(r, UDP, SYN)
		c := newCrafter(x, 0)
		c.number = rapid.Uint64Range(0, 1<<30).Draw(r, "number") // due by now, when paced
		order := x.Mix.schedule()
		c.at = int(c.number % uint64(len(order)))
		state, err := ebpf.NewMap(sourceMap())
		if err != nil {
			r.Fatal(err)
		}
		defer state.Close()
		start := sourceStart(&x, c.number)
		paced := rapid.Bool().Draw(r, "paced")
		if paced {
			start.Start, start.Gap = 1e9, 3<<gapShift
		}
		if err := state.Put(uint32(0), &start); err != nil {
			r.Fatal(err)
		}
		prog, err := sourceProgram(&x, state.FD(), len(order))
		if err != nil {
			r.Fatalf("%+v", err)
		}
		defer prog.Close()
		page := make([]byte, x.Mix.largest())
		for i := range x.headers() {
			page[i] = 0xff // what a receiver wrote
		}
		for i := range 8 {
			out := make([]byte, 2048)
			o := &ebpf.RunOptions{Data: page, DataOut: out, Repeat: 1}
			action, err := prog.Run(o)
			if err != nil || action != xdpTX {
				r.Fatalf("frame %d: action %d, %v", i, action, err)
			}
			got := o.DataOut
			attacks := x.Attack != NoAttack && c.number&1 != 0
			at := len(got) - stampLen
			if attacks && got[at] == attackMagic { // the rest of the stamp is there, and its time is what the crafter must be told
				got[at] = stampMagic
			}
			_, _, when, ok := readStamp(got)
			if attacks {
				got[at] = attackMagic
			}
			due := int64(1e9 + 3*c.number)
			if x.Kind == SYN {
				when, ok = int64(binary.BigEndian.Uint32(got[x.l4()+4:]))<<tickShift, true
				due = int64(ticks(due)) << tickShift
			}
			if !ok {
				r.Fatalf("frame %d: no stamp: % x", i, got)
			}
			if paced && when != due {
				r.Fatalf("frame %d: due at %d, want %d", i, when, due)
			}
			want := make([]byte, 2048)
			want = want[:c.next(want, when)]
			if !bytes.Equal(got, want) {
				r.Fatalf("frame %d:\n% x\nwant\n% x", i, got, want)
			}
			copy(page, got) // the page comes back
		}
	})
}

// A frame that is not due, or beyond the end, is not sent and not counted.
func TestSourceProgramWaits(t *testing.T) {
	needsBPF(t)
	x := traffic(t, nil)
	now := uint64(newClock().now())
	for _, c := range []struct {
		name   string
		change func(*sourceState)
		want   uint32
		number uint64
	}{
		{"no pace", func(*sourceState) {}, xdpTX, 6},
		{"the first, whose time all others go by", func(s *sourceState) { s.Number, s.Gap, s.Until = 0, 3600e9<<gapShift>>4, 1e9 }, xdpTX, 1},
		{"due", func(s *sourceState) { s.Start, s.Gap = now-5e9, 1e9<<gapShift }, xdpTX, 6},
		{"not due", func(s *sourceState) { s.Start, s.Gap = now, 3600e9<<gapShift>>4 }, xdpDrop, 5},
		{"the end of the time", func(s *sourceState) { s.Start, s.Until = now-5e9, now-1 }, xdpDrop, 5},
		{"the end of the frames", func(s *sourceState) { s.Limit = 5 }, xdpDrop, 5},
	} {
		state, err := ebpf.NewMap(sourceMap())
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		start := sourceStart(&x, 5)
		c.change(&start)
		if err := state.Put(uint32(0), &start); err != nil {
			t.Fatal(err)
		}
		prog, err := sourceProgram(&x, state.FD(), 1)
		if err != nil {
			t.Fatalf("%+v", err)
		}
		defer prog.Close()
		action, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 60), Repeat: 1})
		s := source{state: state}
		if err != nil || action != c.want || s.sent() != c.number {
			t.Errorf("%s: action %d, %d sent, %v; want %d, %d", c.name, action, s.sent(), err, c.want, c.number)
		}
	}
}

// TestSinkProgram gives the program that counts stamped frames, and others.
func TestSinkProgram(t *testing.T) {
	needsBPF(t)
	state, prog, err := sinkProgram()
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer state.Close()
	defer prog.Close()
	s := &sink{name: "test", state: state}
	a, b := netip.MustParseAddrPort("198.18.0.2:1"), netip.MustParseAddrPort("198.18.9.9:2")
	clock := newClock()
	frame := func(age int64, magic byte) []byte {
		payload := make([]byte, 40)
		putStamp(payload[40-stampLen:], 0, 1, clock.now()-age)
		payload[40-stampLen] = magic
		return pkttest.UDP(a, b).Payload(payload).Frame(macA, macB)
	}
	var frames, size uint64
	for _, x := range []struct {
		name    string
		frame   []byte
		want    uint32
		sampled int64 // ns old, 0: none
	}{
		{"a frame of 1 ms", frame(1e6, stampMagic), xdpDrop, 1e6},
		{"a frame of 1 s", frame(1e9, stampMagic), xdpDrop, 1e9},
		{"a frame of another host's clock", frame(-1e12, stampMagic), xdpDrop, 0},
		{"a frame of yesterday", frame(86400e9, stampMagic), xdpDrop, 0},
		{"another magic", frame(1e6, 0), xdpPass, 0},
		{"a short one", make([]byte, 20), xdpPass, 0},
		{"a frame of an attack", frame(1e6, attackMagic), xdpDrop, 0},
		{"no stamp", pkttest.TCP(a, b).SYN().Payload(bytes.Repeat([]byte{stampMagic}, 18)).Frame(macA, macB), xdpPass, 0},
	} {
		before, after := newHistogram(), newHistogram()
		if _, _, err := s.read(before); err != nil {
			t.Fatal(err)
		}
		action, err := prog.Run(&ebpf.RunOptions{Data: x.frame, Repeat: 1})
		if err != nil || action != x.want {
			t.Errorf("%s: action %d, %v; want %d", x.name, action, err, x.want)
		}
		if _, _, _, stamped := readStamp(x.frame); stamped {
			frames, size = frames+1, size+uint64(len(x.frame)+fcs)
		}
		gotFrames, gotSize, err := s.read(after)
		if err != nil || gotFrames != frames || gotSize != size {
			t.Errorf("%s: %d frames of %d bytes, %v; want %d of %d", x.name, gotFrames, gotSize, err, frames, size)
		}
		added := after.TotalCount() - before.TotalCount()
		if added != int64(min(x.sampled, 1)) {
			t.Errorf("%s: %d samples of latency", x.name, added)
		}
		// The clock goes on meanwhile, on a busy machine by much; never back.
		if x.sampled > 0 && after.Max() < x.sampled*99/100 {
			t.Errorf("%s: took %d ns, want %d at least", x.name, after.Max(), x.sampled)
		}
	}
}

func TestBuckets(t *testing.T) {
	last := -1
	for _, ns := range []uint64{0, 1, 63, 64, 127, 128, 129, 130, 255, 256, 1000, 1e6, 1e9, 1<<36 - 1} {
		i := bucket(ns)
		if i < last || i >= sinkBuckets || bucketStart(i) > ns || bucketStart(i+1) <= ns {
			t.Errorf("%d ns is in bucket %d, %d to %d", ns, i, bucketStart(i), bucketStart(i+1))
		}
		last = i
	}
	for i := range sinkBuckets {
		if bucket(bucketStart(i)) != i {
			t.Fatalf("bucket %d begins at %d, which is in %d", i, bucketStart(i), bucket(bucketStart(i)))
		}
	}
}
