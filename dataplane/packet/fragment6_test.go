package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// cut6 is all fragments of ip.
func cut6(t rapid.TB, ip []byte, id uint32, mtu int) (pieces [][]byte) {
	for at := 0; at >= 0; {
		b := filled(max(mtu, 48))
		n, next := packet.Fragment6(b, ip, id, at, mtu)
		if n == 0 || next >= 0 && next <= at {
			t.Fatalf("Fragment6 at %d = %d, %d", at, n, next)
		}
		pieces = append(pieces, b[:n])
		at = next
	}
	return pieces
}

func TestFragment6(t *testing.T) {
	udp := pkttest.UDP(client6, vip6).Payload(make([]byte, 52)).TOS(0x20).TTL(9) // 60 bytes of payload
	gre := pkttest.IP(client6.Addr(), vip6.Addr(), 47, make([]byte, 60))
	for _, c := range []struct {
		name string
		in   []byte
		mtu  int
		want [][]byte
	}{
		{"fits: as it is", udp.Bytes(), 100, [][]byte{udp.Bytes()}},
		{"one byte too long", udp.Bytes(), 99, udp.Cut(7, 48)},
		{"three pieces", udp.Bytes(), 48 + 24, udp.Cut(7, 24, 48)},
		{"an MTU that is no multiple of 8 is not filled", udp.Bytes(), 48 + 31, udp.Cut(7, 24, 48)},
		{"8 bytes are the least", udp.Bytes(), 48 + 8, udp.Cut(7, 8, 16, 24, 32, 40, 48, 56)},
		{"the next header is the packet's own", gre.Bytes(), 48 + 32, gre.Cut(7, 32)},
		{"bytes behind the payload length are not the packet's", pkttest.Pad(udp.Bytes(), 130), 48 + 40, udp.Cut(7, 40)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := cut6(t, c.in, 7, c.mtu)
			if len(got) != len(c.want) {
				t.Fatalf("%d pieces, want %d", len(got), len(c.want))
			}
			for i := range got {
				if !bytes.Equal(got[i], c.want[i]) {
					t.Errorf("%d: got  %s\n   want %s\n% x\n% x", i, pkttest.String(got[i]), pkttest.String(c.want[i]), got[i], c.want[i])
				}
			}
		})
	}
}

func TestFragment6Refuses(t *testing.T) {
	ip := pkttest.UDP(client6, vip6).Payload(make([]byte, 52)).Bytes()
	for _, c := range []struct {
		name       string
		in         []byte
		b, at, mtu int
	}{
		{"IPv4", pkttest.UDP(client, vip).Size(100).Bytes(), 100, 0, 68},
		{"no header", ip[:39], 100, 0, 68},
		{"nothing", nil, 100, 0, 68},
		{"cut off", ip[:99], 100, 0, 68},
		{"an MTU without room for 8 bytes", ip, 100, 0, 55},
		{"an MTU below the header's length", ip, 100, 0, 10},
		{"a negative MTU", ip, 100, 0, -1},
		{"offset at the end", ip, 100, 60, 68},
		{"offset beyond the end", ip, 100, 64, 68},
		{"offset between words", ip, 100, 12, 68},
		{"offset below zero", ip, 100, -8, 68},
		{"buffer too short for the piece", ip, 63, 0, 68},
		{"buffer too short for the headers", ip, 47, 0, 68},
		{"buffer too short for the whole", ip, 99, 0, 100},
	} {
		if n, next := packet.Fragment6(make([]byte, c.b), c.in, 7, c.at, c.mtu); n != 0 || next != -1 {
			t.Errorf("%s: Fragment6 = %d, %d", c.name, n, next)
		}
	}
}

// TestFragment6Reassembles puts together what was cut for a link of any MTU.
func TestFragment6Reassembles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ip := pkttest.UDP(client6, vip6).TOS(rapid.Uint8().Draw(t, "class")).Size(56 + rapid.IntRange(0, 3000).Draw(t, "more")).Bytes()
		id, mtu := rapid.Uint32().Draw(t, "id"), rapid.IntRange(56, 1600).Draw(t, "mtu")
		pieces := cut6(t, ip, id, mtu)
		for i, piece := range pieces {
			if err := pkttest.Verify(piece); err != nil || len(piece) > mtu {
				t.Errorf("a piece of %d bytes for an MTU of %d: %v", len(piece), mtu, err)
			}
			if len(pieces) == 1 {
				continue
			}
			if piece[6] != 44 || binary.BigEndian.Uint32(piece[44:]) != id || (piece[43]&1 == 0) != (i == len(pieces)-1) {
				t.Errorf("piece %d of %d has the fragment header % x", i, len(pieces), piece[40:48])
			}
			if i < len(pieces)-1 && len(piece)+8 <= mtu {
				t.Errorf("piece %d of %d bytes is not filled: the MTU is %d", i, len(piece), mtu)
			}
		}
		if got := pkttest.Join(pieces...); !bytes.Equal(got, ip) {
			t.Errorf("%d pieces make %s, not the packet again", len(pieces), pkttest.String(got))
		}
	})
}

func FuzzFragment6(f *testing.F) {
	f.Add(pkttest.UDP(client6, vip6).Size(200).Bytes(), 0, 100)
	f.Add(pkttest.UDP(client6, vip6).HopByHop().Size(200).Bytes(), 40, 100)
	f.Add(pkttest.UDP(client6, vip6).Size(200).Bytes()[:199], 8, 56)
	f.Fuzz(func(t *testing.T, ip []byte, at, mtu int) {
		b := make([]byte, 2048)
		n, next := packet.Fragment6(b, ip, 7, at, mtu)
		if n < 0 || n > len(b) || n > mtu && n != 0 || next != -1 && (next <= at || next&7 != 0) {
			t.Errorf("Fragment6 = %d, %d", n, next)
		}
		if n > 0 && int(binary.BigEndian.Uint16(b[4:])) != n-40 {
			t.Errorf("payload length %d of %d bytes", binary.BigEndian.Uint16(b[4:]), n)
		}
	})
}
