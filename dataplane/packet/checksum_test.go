package packet_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// plainSum is Sum as RFC 1071 section 1 describes it, one word at a time.
func plainSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		sum += word
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func TestSumRFC1071(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7} // section 3: the sum is ddf2
	if got, want := packet.Sum(b), ^uint16(0xddf2); got != want {
		t.Errorf("Sum = %#04x, want %#04x", got, want)
	}
}

func TestSum(t *testing.T) {
	ones := make([]byte, 2048)
	for i := range ones {
		ones[i] = 0xff
	}
	for n := range 200 { // all lengths of all the loops' remainders, with every carry there can be
		if got, want := packet.Sum(ones[:n]), plainSum(ones[:n]); got != want {
			t.Errorf("Sum of %d bytes 0xff = %#04x, want %#04x", n, got, want)
		}
		if got, want := packet.Sum(make([]byte, n)), uint16(0xffff); got != want {
			t.Errorf("Sum of %d bytes zero = %#04x, want %#04x", n, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		// Words that are all ones or all zero carry most.
		b := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte{0x00, 0xff})), 0, 300).Draw(t, "b")
		if got, want := packet.Sum(b), plainSum(b); got != want {
			t.Errorf("Sum = %#04x, want %#04x", got, want)
		}
	})
}

func TestTransportSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segment := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "segment")
		address := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.Just(byte(0xff))), 32, 32).Draw(t, "addresses")
		proto := rapid.Byte().Draw(t, "proto")
		tail := append(binary.BigEndian.AppendUint32(nil, uint32(len(segment))), 0, 0, 0, proto)

		want := plainSum(append(append(append([]byte{}, address[:8]...), tail...), segment...))
		if got := packet.TransportSum4([4]byte(address[:4]), [4]byte(address[4:8]), proto, segment); got != want {
			t.Errorf("TransportSum4 = %#04x, want %#04x", got, want)
		}
		want = plainSum(append(append(append([]byte{}, address...), tail...), segment...))
		if got := packet.TransportSum6([16]byte(address[:16]), [16]byte(address[16:]), proto, segment); got != want {
			t.Errorf("TransportSum6 = %#04x, want %#04x", got, want)
		}
	})
}

// TestUpdate16Exhaustively compares with the full sum for every old value of the word, for some new values and rests of the header.
func TestUpdate16Exhaustively(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	news := []uint16{0x0000, 0x0001, 0x7fff, 0x8000, 0xfffe, 0xffff, uint16(random.Uint32())}
	for _, rest := range []uint32{0x45000000, 0x0000ffff, 0xffffffff, 0x00000001, random.Uint32() | 1} { // never all zero
		for old := range 1 << 16 {
			var b [8]byte
			binary.BigEndian.PutUint32(b[:], rest)
			binary.BigEndian.PutUint16(b[4:], uint16(old))
			before := packet.Sum(b[:])
			for _, now := range news {
				binary.BigEndian.PutUint16(b[4:], now)
				want := packet.Sum(b[:])
				if got := packet.Update16(before, uint16(old), now); got != want {
					t.Fatalf("Update16(%#04x, %#04x, %#04x) = %#04x, full sum is %#04x", before, old, now, got, want)
				}
				if got := packet.ApplyDelta(before, packet.Diff16(0, uint16(old), now)); got != want {
					t.Fatalf("ApplyDelta(%#04x, Diff16(0, %#04x, %#04x)) = %#04x, full sum is %#04x", before, old, now, got, want)
				}
			}
		}
	}
}

// TestApplyDeltaExhaustively takes every checksum with the deltas where carries begin and end, and every delta with such checksums.
func TestApplyDeltaExhaustively(t *testing.T) {
	edges := []uint16{0, 1, 0x00ff, 0x0100, 0x7fff, 0x8000, 0xfeff, 0xfffe, 0xffff, 0x1234}
	check := func(check, d uint16) {
		// In integers, modulo 0xffff; of its two zeros a sum has the one that says "nothing was added but zeros" only then.
		sum := int(^check) + int(d)
		want := uint16(sum % 0xffff)
		if want == 0 && sum != 0 {
			want = 0xffff
		}
		if got := packet.ApplyDelta(check, d); got != ^want {
			t.Fatalf("ApplyDelta(%#04x, %#04x) = %#04x, want %#04x", check, d, got, ^want)
		}
	}
	for all := range 1 << 16 {
		for _, edge := range edges {
			check(uint16(all), edge)
			check(edge, uint16(all))
		}
	}
}

// TestDeltaOfTranslation is what the delta is for: "these addresses and ports become those", worked out once, then given to any packet.
func TestDeltaOfTranslation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u32 := rapid.OneOf(rapid.Uint32(), rapid.SampledFrom([]uint32{0, 0xffff, 0xffff0000, 0xffffffff}))
		old, now := [3]uint32{}, [3]uint32{} // source, destination, ports
		delta := uint16(0)
		for i := range old {
			old[i], now[i] = u32.Draw(t, "old"), u32.Draw(t, "now")
			delta = packet.Diff32(delta, old[i], now[i])
		}
		b := rapid.SliceOfN(rapid.Byte(), 20, 80).Draw(t, "segment")
		put := func(v [3]uint32) (src, dst [4]byte) {
			binary.BigEndian.PutUint32(src[:], v[0])
			binary.BigEndian.PutUint32(dst[:], v[1])
			binary.BigEndian.PutUint32(b, v[2])
			return src, dst
		}
		src, dst := put(old)
		before := packet.TransportSum4(src, dst, packet.ProtoTCP, b)
		src, dst = put(now)
		want := packet.TransportSum4(src, dst, packet.ProtoTCP, b)
		if got := packet.ApplyDelta(before, delta); got != want {
			t.Errorf("ApplyDelta(%#04x, %#04x) = %#04x, full sum is %#04x", before, delta, got, want)
		}
		// The checksum of a damaged packet is off by as much as before.
		off := func(a, b uint16) int { return (0xffff + int(a) - int(b)) % 0xffff }
		wrong := before ^ 0x0100
		if got := packet.ApplyDelta(wrong, delta); off(got, want) != off(wrong, before) {
			t.Errorf("%#04x, wrong by %#04x, became %#04x, wrong by %#04x", wrong, off(wrong, before), got, off(got, want))
		}
	})
}

func FuzzUpdate16(f *testing.F) {
	f.Add([]byte{0x00, 0x00}, uint8(0), uint16(0x0000)) // one's complement has two zeros
	f.Add([]byte{0xff, 0xff}, uint8(0), uint16(0xffff))
	f.Add([]byte{0xba, 0xff, 0x12, 0x34}, uint8(1), uint16(0x8000)) // sums to 0xffff with what stands before it
	f.Fuzz(func(t *testing.T, b []byte, word uint8, now uint16) {
		b = append([]byte{0x45, 0x00}, b[:len(b)&^1]...) // no IPv4 header is all zero
		i := 2 + 2*int(word)
		if i >= len(b) {
			t.Skip("word lies outside the buffer")
		}
		before, old := packet.Sum(b), binary.BigEndian.Uint16(b[i:])
		binary.BigEndian.PutUint16(b[i:], now)
		if got, want := packet.Update16(before, old, now), packet.Sum(b); got != want {
			t.Errorf("Update16(%#04x, %#04x, %#04x) = %#04x, full sum is %#04x", before, old, now, got, want)
		}
	})
}

func TestChecksumsDoNotAllocate(t *testing.T) {
	b := pkttest.TCP(client, vip).Size(1500).Bytes()
	var sink uint16
	allocs := testing.AllocsPerRun(100, func() {
		sink ^= packet.Sum(b)
		sink ^= packet.TransportSum4([4]byte(b[12:16]), [4]byte(b[16:20]), packet.ProtoTCP, b[20:])
		sink ^= packet.TransportSum6([16]byte(b[:16]), [16]byte(b[16:32]), packet.ProtoTCP, b[32:])
		sink ^= packet.ApplyDelta(sink, packet.Diff32(packet.Diff16(0, 1, 2), 3, 4))
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 40, 548, 1480} { // a header, a small segment, an ICMP quote, a full segment
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(i)
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			var sink uint16
			for b.Loop() {
				sink ^= packet.Sum(data)
			}
			_ = sink
		})
	}
}
