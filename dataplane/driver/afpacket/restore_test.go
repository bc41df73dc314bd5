package afpacket

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"weir/dataplane/packet"
)

// sum is RFC 1071 by the letter: 16-bit words, end-around carry, complement.
func sum(words ...[]byte) uint16 {
	s := uint32(0)
	for _, b := range words {
		for i := 0; i < len(b); i += 2 {
			w := uint32(b[i]) << 8
			if i+1 < len(b) {
				w |= uint32(b[i+1])
			}
			s += w
			s = s&0xffff + s>>16
		}
	}
	return ^uint16(s)
}

// partial turns a whole packet of gopacket's into what the kernel hands over when it leaves the checksum to the hardware: the field
// holds the pseudo header's sum, not complemented.
func partial(frame []byte, start, offset int, pseudo []byte) []byte {
	b := bytes.Clone(frame)
	binary.BigEndian.PutUint16(b[start+offset:], ^sum(pseudo))
	return b
}

// Every packet that gopacket can make whole is made whole again from its partial form.
func TestChecksumsAreFinished(t *testing.T) {
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	ip4 := &layers.IPv4{Version: 4, TTL: 64, SrcIP: net.IP{198, 18, 0, 1}, DstIP: net.IP{198, 18, 0, 2}}
	ip4options := &layers.IPv4{Version: 4, TTL: 64, SrcIP: net.IP{198, 18, 0, 1}, DstIP: net.IP{198, 18, 0, 2},
		Options: []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}}
	ip6 := &layers.IPv6{Version: 6, HopLimit: 64, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2")}
	for _, tt := range []struct {
		name   string
		ip     gopacket.NetworkLayer
		l4     gopacket.SerializableLayer
		offset int
		tunnel bool // behind VXLAN, whose own checksum is none
	}{
		{"TCP over IPv4", ip4, &layers.TCP{SrcPort: 1, DstPort: 80, DataOffset: 5, SYN: true}, 16, false},
		{"TCP over IPv4 with options", ip4options, &layers.TCP{SrcPort: 1, DstPort: 80, ACK: true}, 16, false},
		{"UDP over IPv4", ip4, &layers.UDP{SrcPort: 1, DstPort: 53}, 6, false},
		{"TCP over IPv6", ip6, &layers.TCP{SrcPort: 1, DstPort: 80, FIN: true}, 16, false},
		{"UDP over IPv6", ip6, &layers.UDP{SrcPort: 1, DstPort: 53}, 6, false},
		{"ICMPv6", ip6, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, 2, false},
		{"TCP over IPv4 in VXLAN", ip4, &layers.TCP{SrcPort: 1, DstPort: 80}, 16, true},
		{"UDP over IPv6 in VXLAN", ip6, &layers.UDP{SrcPort: 1, DstPort: 53}, 6, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				payload := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "payload")
				proto := map[int]layers.IPProtocol{16: layers.IPProtocolTCP, 6: layers.IPProtocolUDP, 2: layers.IPProtocolICMPv6}[tt.offset]
				e := *eth
				var src, dst net.IP
				switch ip := tt.ip.(type) {
				case *layers.IPv4:
					ip.Protocol, e.EthernetType, src, dst = proto, layers.EthernetTypeIPv4, ip.SrcIP, ip.DstIP
				case *layers.IPv6:
					ip.NextHeader, e.EthernetType, src, dst = proto, layers.EthernetTypeIPv6, ip.SrcIP.To16(), ip.DstIP.To16()
				}
				tt.l4.(interface {
					SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
				}).SetNetworkLayerForChecksum(tt.ip)
				buf := gopacket.NewSerializeBuffer()
				if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, &e,
					tt.ip.(gopacket.SerializableLayer), tt.l4, gopacket.Payload(payload)); err != nil {
					rt.Fatal(err)
				}
				want := bytes.Clone(buf.Bytes())
				start := ethernetHeader + 40
				if ip, ok := tt.ip.(*layers.IPv4); ok {
					start = ethernetHeader + int(ip.IHL)*4
				}
				length := len(payload) + map[int]int{16: 20, 6: 8, 2: 4}[tt.offset] // gopacket pads the frame to 60 bytes, with zeros
				if tt.tunnel {
					buf := gopacket.NewSerializeBuffer()
					outer := *eth
					outer.EthernetType = layers.EthernetTypeIPv4
					if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: false}, &outer,
						&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}},
						&layers.UDP{SrcPort: 50000, DstPort: 4789}, &layers.VXLAN{ValidIDFlag: true, VNI: 5001}, gopacket.Payload(want)); err != nil {
						rt.Fatal(err)
					}
					want, start = bytes.Clone(buf.Bytes()), start+50
				}
				if binary.BigEndian.Uint16(want[start+tt.offset:]) == 0 {
					binary.BigEndian.PutUint16(want[start+tt.offset:], 0xffff) // gopacket writes the other zero
				}
				pseudo := append(append(append([]byte(nil), src...), dst...), byte(length>>8), byte(length), 0, byte(proto))
				got := partial(want, start, tt.offset, pseudo)
				if !finishChecksum(got, start, tt.offset) || !bytes.Equal(got, want) {
					rt.Fatalf("finished\n%x, want\n%x", got, want)
				}
			})
		})
	}
}

// RFC 9260 appendix A and gopacket agree on the CRC32c of an SCTP packet; the kernel leaves the field at whatever it was.
func TestSCTPChecksumIsFinished(t *testing.T) {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolSCTP, SrcIP: net.IP{198, 18, 0, 1}, DstIP: net.IP{198, 18, 0, 2}}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
		ip, &layers.SCTP{SrcPort: 7, DstPort: 9, VerificationTag: 0xdeadbeef}, gopacket.Payload("INIT of sorts...."))
	if err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	const start = 34
	zero := bytes.Clone(b[start:])
	clear(zero[8:12])
	want := bytes.Clone(b)
	binary.LittleEndian.PutUint32(want[start+8:], crc32.Checksum(zero, crc32.MakeTable(crc32.Castagnoli)))
	copy(b[start+8:], "junk")
	if !finishChecksum(b, start, sctpOffset) || !bytes.Equal(b, want) {
		t.Errorf("finished %x, want %x", b[start:], want[start:])
	}
}

func FuzzFinishChecksum(f *testing.F) {
	f.Add(udpFrame(1), 34, 6)
	f.Add(udpFrame(1), 34, 26-1)
	f.Add(make([]byte, 60), 59, 0)
	f.Add(make([]byte, 61), 33, 16)
	f.Add(make([]byte, 60), -1, 8)
	f.Add([]byte{}, 0, 0)
	f.Fuzz(func(t *testing.T, b []byte, start, offset int) {
		start, offset = int(uint16(start))+vlanTag*(start&1), int(uint16(offset)) // as they come from the ring
		before := bytes.Clone(b)
		width := 2
		if offset == sctpOffset {
			width = 4
		}
		if !finishChecksum(b, start, offset) {
			if !bytes.Equal(b, before) {
				t.Fatal("refused, and changed the frame")
			}
			if start >= ethernetHeader && start+offset+width <= len(b) {
				t.Fatalf("refused a field at %d+%d of %d bytes", start, offset, len(b))
			}
			return
		}
		if !bytes.Equal(b[:start+offset], before[:start+offset]) || !bytes.Equal(b[start+offset+width:], before[start+offset+width:]) {
			t.Fatal("changed more than the field")
		}
		if width == 2 {
			want := sum(before[start:])
			if want == 0 {
				want = 0xffff
			}
			if got := binary.BigEndian.Uint16(b[start+offset:]); got != want {
				t.Fatalf("wrote %#04x, RFC 1071 says %#04x", got, want)
			}
		}
	})
}

// FuzzRestore hands the queue a slot of any bytes: it gives out a frame that fits, or counts exactly one reason.
func FuzzRestore(f *testing.F) {
	slot := func(status uint32, length, snap uint32, mac uint16, tci uint16, vnet [vnetBytes]byte, frame []byte) []byte {
		b := make([]byte, 256)
		e := binary.NativeEndian
		e.PutUint32(b, status)
		e.PutUint32(b[4:], length)
		e.PutUint32(b[8:], snap)
		e.PutUint16(b[12:], mac)
		e.PutUint16(b[24:], tci)
		e.PutUint16(b[26:], packet.EtherTypeQinQ)
		copy(b[max(0, min(int(mac)-vnetBytes, 240)):], vnet[:])
		copy(b[min(int(mac), 250):], frame)
		return b
	}
	udp := udpFrame(9)
	f.Add(slot(unix.TP_STATUS_USER, 60, 60, slotHead, 0, [10]byte{}, udp))
	f.Add(slot(unix.TP_STATUS_USER|unix.TP_STATUS_VLAN_VALID, 60, 60, slotHead, 100, [10]byte{}, udp))
	f.Add(slot(unix.TP_STATUS_USER|unix.TP_STATUS_VLAN_VALID|unix.TP_STATUS_VLAN_TPID_VALID, 60, 60, slotHead, 100, [10]byte{needsSum, 0, 0, 0, 0, 0, 34, 0, 6, 0}, udp))
	f.Add(slot(unix.TP_STATUS_USER, 60, 60, slotHead, 0, [10]byte{needsSum, 0, 0, 0, 0, 0, 0xff, 0xff, 6, 0}, udp))
	f.Add(slot(unix.TP_STATUS_USER, 4000, 180, slotHead, 0, [10]byte{0, 1}, udp))
	f.Add(slot(unix.TP_STATUS_USER, 60, 60, 3, 0, [10]byte{}, udp))
	f.Add(slot(unix.TP_STATUS_USER, 250, 250, slotHead, 0, [10]byte{}, udp))
	f.Add(slot(unix.TP_STATUS_USER, 0xffffffff, 0xffffffff, 0xffff, 0, [10]byte{}, udp))
	f.Fuzz(func(t *testing.T, b []byte) {
		slot := append(make([]byte, 0, 256), b[:min(len(b), 256)]...)[:256]
		q := &Queue{rx: rxRing{room: 150}}
		h := *q.rx.header(slot) // the kernel's writing is over, so a copy does
		to := make([]byte, 152)
		n := q.restore(to, slot, h.Status, &h)
		c := q.Counters()
		reasons := c.TooLong + c.Merged + c.Outgoing + c.Inconsistent
		if n == 0 && reasons != 1 || n > 0 && reasons != 0 || n < 0 || n > len(to) {
			t.Fatalf("%d bytes, %+v", n, c)
		}
		if n == 0 || c.Summed > 0 {
			return
		}
		want := slot[h.Mac:][:h.Snaplen]
		if h.Status&unix.TP_STATUS_VLAN_VALID != 0 { // by the kernel's own account: tpid and tci behind the addresses
			tpid := uint16(0x8100)
			if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				tpid = h.Vlan_tpid
			}
			want = append(append(append([]byte(nil), want[:12]...), byte(tpid>>8), byte(tpid), byte(h.Vlan_tci>>8), byte(h.Vlan_tci)), want[12:]...)
		}
		if !bytes.Equal(to[:n], want) {
			t.Fatalf("restored %x, want %x", to[:n], want)
		}
	})
}
