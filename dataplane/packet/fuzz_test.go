package packet_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weir/dataplane/packet"
)

// sane fails the test unless the headers that Parse left lie where they may.
func sane(t *testing.T, f *packet.Frame, fault packet.Fault) {
	t.Helper()
	h := f.Headers
	if fault >= packet.FaultCount {
		t.Fatalf("fault %d does not exist", fault)
	}
	for _, off := range []uint16{h.L3, h.L4, h.L3End} {
		if off < f.Start || off > f.End {
			t.Fatalf("%v: offset %d lies outside of the frame, %d to %d", fault, off, f.Start, f.End)
		}
	}
	v4, v6 := h.Kind&packet.KindIPv4 != 0, h.Kind&packet.KindIPv6 != 0
	if v4 && v6 || v4 && h.L3+20 > f.End || v6 && h.L3+40 > f.End {
		t.Fatalf("%v: kind %#x at %d of %d", fault, h.Kind, h.L3, f.End)
	}
	if h.Kind&packet.KindTransport != 0 && (!v4 && !v6 || h.L4+4 > h.L3End) {
		t.Fatalf("%v: kind %#x, but L4 %d to %d", fault, h.Kind, h.L4, h.L3End)
	}
	if h.Kind&packet.KindFirstFragment != 0 && h.Kind&packet.KindLaterFragment != 0 {
		t.Fatalf("%v: kind %#x is two fragments", fault, h.Kind)
	}
	if h.Kind&packet.KindQuote != 0 {
		header := uint16(20)
		if v6 {
			header = 40
		}
		if h.Kind&packet.KindICMPError == 0 || h.QuoteL3 != h.L4+8 || h.QuoteL4 < h.QuoteL3+header || h.QuoteL4+8 > h.L3End {
			t.Fatalf("quote at %d and %d of %+v", h.QuoteL3, h.QuoteL4, h)
		}
	}
	if fault != packet.FaultNone {
		return
	}
	if h.L3 > h.L4 || h.L4 > h.L3End {
		t.Fatalf("L3 %d, L4 %d, L3End %d", h.L3, h.L4, h.L3End)
	}
	if h.Kind&packet.KindTransport == 0 {
		return
	}
	size := map[uint8]uint16{packet.ProtoTCP: 20, packet.ProtoUDP: 8, packet.ProtoSCTP: 12, packet.ProtoICMP: 8, packet.ProtoICMPv6: 8}[h.Proto]
	if size == 0 || h.L4+size > h.L3End {
		t.Fatalf("protocol %d from %d to %d is no whole header", h.Proto, h.L4, h.L3End)
	}
}

// answers lets the builders loose on f, as the engine may on every frame without a fault.
func answers(t *testing.T, f *packet.Frame) {
	t.Helper()
	ip := f.Chunk()[f.L3:f.L3End]
	b := make([]byte, 2048)
	packet.MayAnswer(f)
	packet.Reset(b, f)
	packet.EchoReply(append([]byte{}, ip...))
	packet.ICMPError4(b, 1, [4]byte{}, [4]byte{}, 3, 4, 1400, ip)
	packet.ICMPError6(b, [16]byte{}, [16]byte{}, 2, 0, 1400, ip)
	for at, n := 0, 0; at >= 0; {
		if n, at = packet.Fragment4(b, ip, at, 68); n > len(b) {
			t.Fatalf("a fragment of %d bytes", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range corpus() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newFrames(t)
		frame := s.open(t, b)
		before := bytes.Clone(s.pool.Memory())
		fault := packet.Parse(frame)
		sane(t, frame, fault)
		if !bytes.Equal(s.pool.Memory(), before) {
			t.Fatal("Parse wrote to the frame")
		}
		if fault == packet.FaultNone {
			answers(t, frame)
		}
		// What lies around the frame must not matter.
		first := frame.Headers
		for i := range before {
			if i < packet.Headroom || i >= packet.Headroom+len(b) {
				s.pool.Memory()[i] = 0xff
			}
		}
		if again := packet.Parse(frame); again != fault || frame.Headers != first {
			t.Fatalf("%v became %v by bytes outside of the frame:\n%s", fault, again, cmp.Diff(first, frame.Headers))
		}
	})
}

// TestParsePrefixes cuts every frame of the corpus everywhere: a cut in the padding changes nothing but the end, one in the packet is a
// fault or makes an ICMP error, an unknown protocol, or a frame that is not IP shorter by its own length field, which these have not.
func TestParsePrefixes(t *testing.T) {
	for name, b := range corpus() {
		t.Run(name, func(t *testing.T) {
			s := newFrames(t)
			whole := headers(s.parsed(t, b))
			for n := range len(b) + 1 {
				f := s.open(t, b[:n])
				fault := packet.Parse(f)
				sane(t, f, fault)
				isIP := whole.Kind&(packet.KindIPv4|packet.KindIPv6) != 0
				if cut := n < int(whole.L3End); cut && isIP && fault == packet.FaultNone {
					t.Errorf("%d of %d bytes have no fault", n, whole.L3End)
				} else if !cut && (fault != packet.FaultNone || headers(f) != whole) {
					t.Errorf("cut to %d bytes, behind the packet's end at %d: %v\n%s", n, whole.L3End, fault, cmp.Diff(whole, headers(f)))
				}
			}
		})
	}
}

// TestParseShortened does the same with packets whose length fields tell of the cut: no header may be read beyond what they say.
func TestParseShortened(t *testing.T) {
	for name, b := range corpus() {
		t.Run(name, func(t *testing.T) {
			s := newFrames(t)
			whole := headers(s.parsed(t, b))
			l3 := int(whole.L3)
			for n := l3 + 20; n < int(whole.L3End); n++ {
				m := bytes.Clone(b) // all bytes stay: what lies behind the packet is as good as padding
				switch {
				case whole.Kind&packet.KindIPv4 != 0:
					edit(m, l3+2, byte((n-l3)>>8), byte(n-l3))
					reseal(m)
				case whole.Kind&packet.KindIPv6 != 0 && n >= l3+40:
					edit(m, l3+4, byte((n-l3-40)>>8), byte(n-l3-40))
				default:
					continue
				}
				f := s.open(t, m)
				fault := packet.Parse(f)
				sane(t, f, fault)
				if got := headers(f).L3End; int(got) != n && fault != packet.FaultHeaderLen {
					t.Errorf("%v: L3End is %d, the packet ends at %d", fault, got, n)
				}
			}
		})
	}
}
