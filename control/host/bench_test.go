package host_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/control/host"
	"weir/control/host/testnet"
)

// What a worker pays to hand a packet back: the system call, and the kernel's whole way up to where the packet is dropped.
func BenchmarkTUNWrite(b *testing.B) {
	n := testnet.NewT(b, prefix)
	s, err := n.Space("lb")
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{60, 1400} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			tun, err := s.Host().NewTUN(host.TUNOptions{})
			if err != nil {
				b.Skip(err)
			}
			defer tun.Close()
			buf := gopacket.NewSerializeBuffer()
			err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
				&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{198, 18, 0, 2}, DstIP: []byte{198, 18, 0, 1}},
				gopacket.Payload(make([]byte, size-20)))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if errno := tun.Write(buf.Bytes()); errno != 0 {
					b.Fatal(errno)
				}
			}
		})
	}
}

// What control pays for one change of routes.
func BenchmarkRefresh(b *testing.B) {
	for _, routes := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("routes=%d", routes), func(b *testing.B) {
			n := testnet.NewT(b, prefix)
			s, err := n.Space("lb")
			if err != nil {
				b.Fatal(err)
			}
			var batch strings.Builder
			fmt.Fprintln(&batch, "link add wan type bridge\nlink set wan up\naddr add 198.18.0.1/24 dev wan")
			for i := range routes {
				fmt.Fprintf(&batch, "route add 198.19.%d.%d/32 via 198.18.0.2 dev wan onlink\n", i>>8, i&0xff)
			}
			c := s.Command("ip", "-batch", "-")
			c.Stdin = strings.NewReader(batch.String())
			if out, err := c.CombinedOutput(); err != nil {
				b.Skipf("ip -batch: %v: %s", err, out)
			}
			m, err := s.Host().NewMirror([]host.Port{{Interface: "wan"}})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				m.Note(host.Event{Change: host.ChangeAll})
				if _, err := m.Refresh(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
