package packet_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// plainCRC is CRC32c a bit at a time, by the polynomial of RFC 9260 appendix A, least significant bit first. The four bytes at 8 count as zero.
func plainCRC(b []byte) uint32 {
	c := ^uint32(0)
	for i, x := range b {
		if i < 8 || i >= 12 {
			c ^= uint32(x)
		}
		for range 8 {
			odd := c & 1
			c >>= 1
			if odd != 0 {
				c ^= 0x82f63b78
			}
		}
	}
	return ^c
}

func TestSCTPSum(t *testing.T) {
	if got := packet.SCTPSum(make([]byte, 32)); got != 0x8a9136aa { // RFC 3720 B.4: "aa 36 91 8a" for 32 bytes of zero
		t.Errorf("32 zeros: %#08x, want 0x8a9136aa", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 12, 300).Draw(t, "b")
		if got, want := packet.SCTPSum(b), plainCRC(b); got != want {
			t.Errorf("%#08x, bit by bit %#08x", got, want)
		}
		if want := binary.LittleEndian.Uint32(b[8:]) == plainCRC(b); packet.SCTPIntact(b) != want {
			t.Errorf("intact %v, want %v", !want, want)
		}
		binary.LittleEndian.PutUint32(b[8:], plainCRC(b))
		if !packet.SCTPIntact(b) {
			t.Error("not intact with its own checksum")
		}
	})
}

// translated checks what TranslateSCTP does to b, any bytes at all, and is false if b is too short to be a packet.
func translated(t interface{ Errorf(string, ...any) }, b []byte, ports uint32) bool {
	if len(b) < 12 {
		return false
	}
	before, wrong := string(b), binary.LittleEndian.Uint32(b[8:])^packet.SCTPSum(b)
	packet.TranslateSCTP(b, ports)
	if binary.BigEndian.Uint32(b) != ports || string(b[4:8]) != before[4:8] || string(b[12:]) != before[12:] {
		t.Errorf("ports %#08x: % x became % x", ports, before, b)
	}
	if now := binary.LittleEndian.Uint32(b[8:]) ^ packet.SCTPSum(b); now != wrong {
		t.Errorf("%d bytes, ports %#08x: checksum off by %#08x, was off by %#08x", len(b), ports, now, wrong)
	}
	return true
}

// A right checksum becomes the right one, a wrong one stays wrong by the same bits, whatever the length: zeros come in blocks.
func TestTranslateSCTP(t *testing.T) {
	b := make([]byte, 5000)
	for i := range b {
		b[i] = byte(i * 7)
	}
	for _, n := range []int{12, 13, 16, 2047, 2048, 2049, 4096, 4097, 5000} {
		for _, ports := range []uint32{0, 1, 0x80000000, 0xffffffff, binary.BigEndian.Uint32(b)} {
			translated(t, b[:n], ports)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		translated(t, rapid.SliceOfN(rapid.Byte(), 12, 3000).Draw(t, "b"), rapid.Uint32().Draw(t, "ports"))
	})
}

// The kernel's own translation of SCTP packets, byte for byte behind the IP header.
func TestTranslateSCTPAsTheKernelDid(t *testing.T) {
	dir := os.Getenv("WEIR_GOLDEN")
	if dir == "" {
		dir = filepath.Join("..", "..", "testdata", "golden")
	}
	text, err := os.ReadFile(filepath.Join(dir, "ipvs", "packets", "sctp.json"))
	if err != nil {
		t.Skip(err)
	}
	var g struct {
		Steps []struct {
			Packet string
			Expect []struct{ Packet string }
		}
	}
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	for i, s := range g.Steps {
		if len(s.Expect) != 1 {
			continue
		}
		in, err := hex.DecodeString(s.Packet)
		if err != nil {
			t.Fatal(err)
		}
		out, err := hex.DecodeString(s.Expect[0].Packet)
		if err != nil {
			t.Fatal(err)
		}
		in, out = in[20:], out[20:]
		if !packet.SCTPIntact(in) || !packet.SCTPIntact(out) {
			t.Errorf("step %d: the checksum of a recorded packet is said to be wrong", i)
		}
		if packet.TranslateSCTP(in, binary.BigEndian.Uint32(out)); string(in) != string(out) {
			t.Errorf("step %d: % x\nthe kernel sent % x", i, in, out)
		}
	}
}

func FuzzTranslateSCTP(f *testing.F) {
	f.Add(pkttest.SCTP(client, vip).Chunk(1, 0, make([]byte, 16)).Bytes()[20:], uint32(4000<<16|5000))
	f.Add(make([]byte, 12), uint32(1))
	f.Add(make([]byte, 2049), uint32(0x80000000)) // one byte more than a block of zeros
	f.Fuzz(func(t *testing.T, b []byte, ports uint32) {
		if !translated(t, b, ports) {
			t.Skip("shorter than the common header")
		}
	})
}

func TestSCTPFlags(t *testing.T) {
	for _, c := range []struct {
		name   string
		chunks []byte // all that follows the common header
		want   uint8
	}{
		{"nothing", nil, packet.SCTPNoChunk},
		{"a chunk header cut off", []byte{1, 0, 0}, packet.SCTPNoChunk},
		{"INIT", []byte{1, 0, 0, 4}, packet.SCTPInit},
		{"the length of a first chunk is not judged", []byte{1, 0, 0xff, 0xff}, packet.SCTPInit},
		{"INIT ACK", []byte{2, 0, 0, 4}, packet.SCTPInitAck},
		{"SACK stays what it is", []byte{3, 0, 0, 4}, 3},
		{"SHUTDOWN COMPLETE", []byte{14, 0, 0, 4}, packet.SCTPShutdownComplete},
		{"AUTH, which IPVS does not know, is DATA", []byte{15, 0, 0, 4}, packet.SCTPData},
		{"ASCONF too", []byte{0xc1, 0, 0, 4}, packet.SCTPData},
		{"type 255 too", []byte{0xff, 0, 0, 4}, packet.SCTPData},
		{"COOKIE ACK alone", []byte{11, 0, 0, 4}, packet.SCTPCookieAck},
		{"COOKIE ACK and ABORT", []byte{11, 0, 0, 4, 6, 0, 0, 4}, packet.SCTPCookieAck | packet.SCTPAbortBehind},
		{"COOKIE ACK and DATA", []byte{11, 0, 0, 4, 0, 0, 0, 4}, packet.SCTPCookieAck},
		{"COOKIE ECHO, padded, and ABORT", []byte{10, 0, 0, 5, 'c', 0, 0, 0, 6, 0, 0, 4}, packet.SCTPCookieEcho | packet.SCTPAbortBehind},
		{"an ABORT where the padding should be", []byte{10, 0, 0, 5, 'c', 6, 0, 0, 4}, packet.SCTPCookieEcho},
		{"an ABORT cut off", []byte{11, 0, 0, 4, 6, 0, 0}, packet.SCTPCookieAck},
		{"an ABORT third", []byte{11, 0, 0, 4, 0, 0, 0, 4, 6, 0, 0, 4}, packet.SCTPCookieAck},
		{"a chunk shorter than its header has nothing behind it", []byte{11, 0, 0, 3, 6, 0, 0, 4}, packet.SCTPCookieAck},
		{"a chunk that ends beyond the packet", []byte{10, 0, 0xff, 0xff, 6, 0, 0, 4}, packet.SCTPCookieEcho},
		{"DATA and ABORT: may not be, and is not looked for", []byte{0, 0, 0, 4, 6, 0, 0, 4}, packet.SCTPData},
	} {
		f := newFrames(t).parsed(t, frame(pkttest.SCTP(client, vip).Payload(c.chunks)))
		if f.Flags != c.want {
			t.Errorf("%s: %#02x, want %#02x", c.name, f.Flags, c.want)
		}
	}
}

func TestSCTPDoesNotAllocate(t *testing.T) {
	b := pkttest.SCTP(client, vip).Size(1500).Bytes()[20:]
	ports, intact := uint32(0), true
	if n := testing.AllocsPerRun(100, func() {
		ports += 0x10001
		packet.TranslateSCTP(b, ports)
		intact = intact && packet.SCTPIntact(b)
	}); n != 0 || !intact {
		t.Errorf("%v allocations, intact %v", n, intact)
	}
}

func BenchmarkTranslateSCTP(b *testing.B) {
	for _, n := range []int{28, 200, 576, 1480} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			p := pkttest.SCTP(client, vip).Size(n + 20).Bytes()[20:]
			b.ReportAllocs()
			for i := uint32(1); b.Loop(); i++ {
				packet.TranslateSCTP(p, i)
			}
		})
	}
}
