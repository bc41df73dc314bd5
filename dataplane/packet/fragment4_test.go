package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// cut is all fragments of ip.
func cut(t rapid.TB, ip []byte, mtu int) (pieces [][]byte) {
	for at := 0; at >= 0; {
		b := filled(mtu)
		n, next := packet.Fragment4(b, ip, at, mtu)
		if n == 0 || next >= 0 && next <= at {
			t.Fatalf("Fragment4 at %d = %d, %d", at, n, next)
		}
		pieces = append(pieces, b[:n])
		at = next
	}
	return pieces
}

func TestFragment4(t *testing.T) {
	const data = 60
	udp := pkttest.UDP(client, vip).Payload(make([]byte, data-8)).ID(7).TOS(0x20).TTL(9)
	// A source route is copied into every fragment, a timestamp and a router's NOP only into the first (RFC 791 section 3.1).
	timestamp, route := []byte{68, 8, 5, 0, 0, 0, 0, 0}, []byte{131, 7, 8, 198, 18, 1, 1}
	options := append(append(append([]byte{}, timestamp...), route...), 1)
	piece := func(p pkttest.Packet, from, to int, more bool, options ...byte) []byte {
		body := udp.Bytes()[20:]
		return pkttest.IP(client.Addr(), vip.Addr(), 17, body[from:to]).TOS(0x20).TTL(9).Options(options...).Fragment(7, from, more).Bytes()
	}
	for _, c := range []struct {
		name string
		in   []byte
		mtu  int
		want [][]byte
	}{
		{"fits: as it is", udp.Bytes(), 80, [][]byte{udp.Bytes()}},
		{"one byte too long", udp.Bytes(), 79, [][]byte{piece(udp, 0, 56, true), piece(udp, 56, 60, false)}},
		{"three pieces", udp.Bytes(), 20 + 24, [][]byte{piece(udp, 0, 24, true), piece(udp, 24, 48, true), piece(udp, 48, 60, false)}},
		{"an MTU that is no multiple of 8 is not filled", udp.Bytes(), 20 + 31, [][]byte{piece(udp, 0, 24, true), piece(udp, 24, 48, true), piece(udp, 48, 60, false)}},
		{"options: the first fragment has all, the later ones the copied, and more room", udp.Options(options...).Bytes(), 68,
			[][]byte{piece(udp, 0, 32, true, options...), piece(udp, 32, 60, false, append(append([]byte{}, route...), 0)...)}},
		{"options of which none is copied", udp.Options(timestamp...).Bytes(), 68,
			[][]byte{piece(udp, 0, 40, true, timestamp...), piece(udp, 40, 60, false)}},
		{"a middle fragment is cut further: MF on all", piece(udp, 8, 56, true), 20 + 24, [][]byte{piece(udp, 8, 32, true), piece(udp, 32, 56, true)}},
		{"a last fragment is cut further: MF on all but the last", piece(udp, 8, 60, false), 20 + 32, [][]byte{piece(udp, 8, 40, true), piece(udp, 40, 60, false)}},
		{"bytes behind the total length are not the packet's", pkttest.Pad(udp.Bytes(), 100), 20 + 56, [][]byte{piece(udp, 0, 56, true), piece(udp, 56, 60, false)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := cut(t, c.in, c.mtu)
			if len(got) != len(c.want) {
				t.Fatalf("%d pieces, want %d", len(got), len(c.want))
			}
			for i := range got {
				if !bytes.Equal(got[i], c.want[i]) {
					t.Errorf("%d: got  %s\n   want %s\n% x\n% x", i, pkttest.String(got[i]), pkttest.String(c.want[i]), got[i], c.want[i])
				}
				pkttest.Check(t, got[i])
			}
		})
	}
}

func TestFragment4Refuses(t *testing.T) {
	udp := pkttest.UDP(client, vip).Payload(make([]byte, 52))
	ip := udp.Bytes()
	for _, c := range []struct {
		name       string
		in         []byte
		b, at, mtu int
	}{
		{"DF", udp.DF().Bytes(), 100, 0, 68},
		{"IPv6", pkttest.UDP(client6, vip6).Size(100).Bytes(), 100, 0, 68},
		{"no header", ip[:19], 100, 0, 68},
		{"nothing", nil, 100, 0, 68},
		{"cut off", ip[:79], 100, 0, 68},
		{"a header of four words", edit(udp.Bytes(), 0, 0x44), 100, 0, 68},
		{"a total length below the header's", edit(udp.Bytes(), 2, 0, 19), 100, 0, 68},
		{"an MTU without room for 8 bytes", ip, 100, 0, 27},
		{"an MTU below the header's length", ip, 100, 0, 10},
		{"a negative MTU", ip, 100, 0, -1},
		{"offset at the end", ip, 100, 60, 68},
		{"offset beyond the end", ip, 100, 64, 68},
		{"offset between words", ip, 100, 12, 68},
		{"offset below zero", ip, 100, -8, 68},
		{"buffer too short for the piece", ip, 67, 0, 68},
		{"buffer too short for the header", ip, 19, 0, 68},
		{"buffer too short for the whole", ip, 79, 0, 80},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n, next := packet.Fragment4(make([]byte, c.b), c.in, c.at, c.mtu); n != 0 || next != -1 {
				t.Errorf("Fragment4 = %d, %d", n, next)
			}
		})
	}
}

// TestFragment4Reassembles puts together what was cut, twice on its way, through links of any MTU: as a host would, and in order by gopacket,
// which takes no options and no last fragment below 8 bytes.
func TestFragment4Reassembles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pkttest.UDP(client, vip).ID(rapid.Uint16().Draw(t, "id"))
		options := rapid.Bool().Draw(t, "options")
		if options {
			p = p.Options(68, 4, 5, 0)
		}
		ip := p.Size(40 + rapid.IntRange(0, 3000).Draw(t, "more")).Bytes()
		want := ip[int(ip[0]&15)*4:]
		pieces, mtu := [][]byte{ip}, 0
		for range rapid.IntRange(1, 2).Draw(t, "links") {
			mtu = rapid.IntRange(68, 1500).Draw(t, "mtu")
			var next [][]byte
			for _, piece := range pieces {
				next = append(next, cut(t, piece, mtu)...)
			}
			pieces = next
		}

		got, seen := make([]byte, len(want)), 0
		d := ip4defrag.NewIPv4Defragmenter()
		for i, piece := range pieces {
			if err := pkttest.Verify(piece); err != nil || len(piece) > mtu {
				t.Errorf("a piece of %d bytes for an MTU of %d: %v\nin %s", len(piece), mtu, err, pkttest.String(piece))
			}
			h := gopacket.NewPacket(piece, layers.LayerTypeIPv4, gopacket.NoCopy).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			seen += copy(got[int(h.FragOffset)*8:], h.Payload)
			if more := h.Flags&layers.IPv4MoreFragments != 0; more == (i == len(pieces)-1) {
				t.Errorf("piece %d of %d: more fragments = %v", i, len(pieces), more)
			}
			if options || len(h.Payload) < 8 {
				continue
			}
			whole, err := d.DefragIPv4(h)
			if err != nil || (whole != nil) != (i == len(pieces)-1) {
				t.Errorf("gopacket after piece %d of %d: %v, %v", i, len(pieces), whole, err)
			} else if whole != nil && !bytes.Equal(whole.Payload, want) {
				t.Errorf("gopacket made another packet of %d pieces", len(pieces))
			}
		}
		if seen != len(want) || !bytes.Equal(got, want) {
			t.Errorf("%d pieces with %d bytes do not make the packet of %d again", len(pieces), seen, len(want))
		}
	})
}

func FuzzFragment4(f *testing.F) {
	f.Add(pkttest.UDP(client, vip).Size(200).Bytes(), 0, 68)
	f.Add(pkttest.UDP(client, vip).Options(131, 7, 4, 198, 18, 1, 1).Size(200).Bytes(), 40, 100)
	f.Add(pkttest.UDP(client, vip).Fragment(1, 65528, true).Size(48).Bytes(), 8, 36)
	f.Add(edit(pkttest.UDP(client, vip).Options(131, 7, 4, 198, 18, 1, 1).Size(200).Bytes(), 21, 200), 40, 100)
	f.Fuzz(func(t *testing.T, ip []byte, at, mtu int) {
		b := make([]byte, 2048)
		n, next := packet.Fragment4(b, ip, at, mtu)
		if n < 0 || n > len(b) || n > mtu && n != 0 || next != -1 && (next <= at || next&7 != 0) {
			t.Errorf("Fragment4 = %d, %d", n, next)
		}
		if n > 0 && (at > 0 || next >= 0) && int(binary.BigEndian.Uint16(b[2:])) != n {
			t.Errorf("total length %d of %d bytes", binary.BigEndian.Uint16(b[2:]), n)
		}
	})
}
