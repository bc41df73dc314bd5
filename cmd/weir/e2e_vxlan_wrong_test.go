package main_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// forged makes packets that a VTEP might send to the balancer.
type forged struct {
	seg      *overlay
	from, to netip.AddrPort
	flags    byte
	reserved uint32 // 24 bits, then 8
	vni      int
	inner    []byte
}

// forge is a packet that is as it should be, with this frame inside.
func (b *overlayBed) forge(seg *overlay, inner []byte) forged {
	return forged{seg: seg, from: netip.MustParseAddrPort(hostPort(seg.theirs(0), 50000)), to: netip.MustParseAddrPort(hostPort(seg.ours(), b.portOf(seg))),
		flags: 0x08, vni: seg.vni, inner: inner}
}

// datagram is the outer packet, with a UDP checksum.
func (f forged) datagram() pkttest.Packet {
	v := f.vni
	h := []byte{f.flags, byte(f.reserved >> 24), byte(f.reserved >> 16), byte(f.reserved >> 8), byte(v >> 16), byte(v >> 8), byte(v), byte(f.reserved)}
	return pkttest.UDP(f.from, f.to).TTL(64).Payload(append(h, f.inner...))
}

// passed is of packets that the steering program leaves to the kernel, where another may have use for them.
const passed = "passed"

// oddity is a packet with something odd about it.
type oddity struct {
	name string
	drop string // the reason that it is dropped for, or passed; empty: the frame inside is taken
	edit func(f *forged)
	wrap func(p pkttest.Packet) [][]byte // frames' IP packets, instead of the datagram as it is
}

func one(p pkttest.Packet) [][]byte { return [][]byte{p.Bytes()} }

// oddities are the packets that a VTEP must take all the same (RFC 7348 section 5), and those that it must not, each dropped for a
// reason of its own. inner makes a frame with that text and source.
func oddities(seg *overlay, inner func(src string) []byte) (all []oddity) {
	for bit := range 8 {
		if bit != 3 {
			all = append(all, oddity{name: fmt.Sprintf("flag %d", bit), edit: func(f *forged) { f.flags |= 1 << bit }})
		}
	}
	for bit := range 32 {
		all = append(all, oddity{name: fmt.Sprintf("reserved bit %d", bit), edit: func(f *forged) { f.reserved = 1 << bit }})
	}
	ip := pkttest.UDP(netip.MustParseAddrPort(hostPort(tenant4(0), 7)), netip.MustParseAddrPort(hostPort(tenant4(10), 9))).
		Frame(pkttest.MAC(tenantMAC(0)), pkttest.MAC(everyone))
	all = append(all,
		oddity{name: "no UDP checksum", wrap: func(p pkttest.Packet) [][]byte { return one(p.NoChecksum()) }},
		oddity{name: "a UDP checksum"},
		oddity{name: "from port 1", edit: func(f *forged) { f.from = netip.AddrPortFrom(f.from.Addr(), 1) }},
		oddity{name: "bytes behind the datagram", wrap: func(p pkttest.Packet) [][]byte {
			b := p.Bytes()
			if seg.over6 {
				b[5] += 4 // payload length; it stays below 256
			} else {
				b = fixSum4(b, func() { b[3] += 4 })
			}
			return [][]byte{append(b, 1, 2, 3, 4)}
		}},

		oddity{name: "no I flag", drop: "vxlan_flags", edit: func(f *forged) { f.flags = 0 }},
		oddity{name: "all flags but I", drop: "vxlan_flags", edit: func(f *forged) { f.flags = 0xf7 }},
		oddity{name: "no peer", drop: "vxlan_peer", edit: func(f *forged) {
			f.from = netip.MustParseAddrPort(hostPort(map[bool]string{false: "198.18.1.77", true: "2001:db8:1::77"}[seg.over6], 50000))
		}},
		oddity{name: "from ourselves", drop: "vxlan_loop", edit: func(f *forged) { f.from = netip.MustParseAddrPort(hostPort(seg.ours(), 50000)) }},
		oddity{name: "to another VTEP of ours", drop: passed, edit: func(f *forged) {
			other := overlay{over6: !seg.over6, routed: seg.routed}
			f.from, f.to = netip.MustParseAddrPort(hostPort(other.theirs(0), 50000)), netip.AddrPortFrom(netip.MustParseAddr(other.ours()), f.to.Port())
		}},
		oddity{name: "for a VNI that is not ours", drop: passed, edit: func(f *forged) { f.vni ^= 0x8000 }},
		oddity{name: "a wrong UDP checksum", drop: "vxlan_checksum", wrap: func(p pkttest.Packet) [][]byte { return one(p.BadChecksum()) }},
		oddity{name: "a frame of 13 bytes", drop: "vxlan_short", edit: func(f *forged) { f.inner = f.inner[:13] }},
		oddity{name: "no frame", drop: "vxlan_short", edit: func(f *forged) { f.inner = nil }},
		oddity{name: "a datagram longer than its packet", drop: "length", wrap: func(p pkttest.Packet) [][]byte {
			b := p.NoChecksum().Bytes()
			n := len(b) - 8 - 8 - 60
			b[n+5]++
			return [][]byte{b}
		}},
		oddity{name: "a VLAN tag inside", drop: "vxlan_tagged", edit: func(f *forged) {
			f.inner = append(append(f.inner[:12:12], 0x81, 0, 0, 7), f.inner[12:]...)
		}},
		oddity{name: "from a group's MAC", drop: "vxlan_source_mac", edit: func(f *forged) { f.inner = inner("03:00:00:00:00:01") }},
		oddity{name: "from no MAC", drop: "vxlan_source_mac", edit: func(f *forged) { f.inner = inner("00:00:00:00:00:00") }},
		oddity{name: "congestion on what knows no ECN", drop: "vxlan_ecn", edit: func(f *forged) { f.inner = ip },
			wrap: func(p pkttest.Packet) [][]byte { return one(p.TOS(3)) }},
		oddity{name: "a first fragment", drop: "vxlan_fragment", wrap: func(p pkttest.Packet) [][]byte { return p.Cut(77, 32)[:1] }},
		oddity{name: "a later fragment, of whose port nothing is known", drop: passed, wrap: func(p pkttest.Packet) [][]byte { return p.Cut(78, 32)[1:] }},
	)
	if seg.over6 {
		all = append(all, oddity{name: "a header of options", wrap: func(p pkttest.Packet) [][]byte { return one(p.DestOptions()) }})
	} else {
		all = append(all,
			oddity{name: "IPv4 options", wrap: func(p pkttest.Packet) [][]byte { return one(p.Options(1, 1, 1, 0)) }},
			oddity{name: "a source route", drop: "vxlan_source_route", wrap: func(p pkttest.Packet) [][]byte {
				return one(p.Options(0x83, 7, 4, 198, 18, 1, 77, 0))
			}})
	}
	return all
}

// fixSum4 edits an IPv4 packet and makes its header checksum anew.
func fixSum4(b []byte, edit func()) []byte {
	edit()
	b[10], b[11] = 0, 0
	var sum uint32
	for i := 0; i < int(b[0]&15)*4; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	b[10], b[11] = byte(^sum>>8), byte(^sum)
	return b
}

// takesWhatItMust sends odd packets to a segment. What is taken comes to the ports and no further; what is not is counted by its reason, and
// nothing is learned of it.
func takesWhatItMust(t *testing.T, b *overlayBed, d *daemon) {
	for _, seg := range b.segments {
		if len(seg.access) == 0 {
			continue
		}
		t.Run(seg.String(), func(t *testing.T) {
			d, w := d.with(t), b.watch(t, seg)
			fd := packetSocket(t, b.servers[0], "eth0", 0)
			defer unix.Close(fd)
			ports := []string{"access0", "access1"}[:len(seg.access)]
			all := oddities(seg, func(src string) []byte { return probe(everyone, src, "odd") })
			source := func(i int) string { return fmt.Sprintf("02:00:00:00:67:%02x", i) }
			for i, x := range all {
				f := b.forge(seg, probe(everyone, source(i), fmt.Sprint("odd ", i)))
				if x.edit != nil {
					x.edit(&f)
				}
				packets := [][]byte{f.datagram().Bytes()}
				if x.wrap != nil {
					packets = x.wrap(f.datagram())
				}
				before := d.now()
				for _, p := range packets {
					_, err := unix.Write(fd, pkttest.Frame(p, pkttest.MAC(serverMAC(0)), pkttest.MAC(lanMAC)))
					must(t, err)
				}
				if x.drop == "" {
					eventually(t, dialLimit, x.name+" is taken", func() bool { return len(w.counts(fmt.Sprint("odd ", i))) == len(ports) })
					continue
				}
				if x.drop != passed {
					before.Drops[x.drop] += uint64(len(packets))
					for deadline := time.Now().Add(dialLimit); d.now().Drops[x.drop] != before.Drops[x.drop] && time.Now().Before(deadline); {
						time.Sleep(time.Millisecond)
					}
				}
				for reason, n := range d.now().Drops {
					if want := before.Drops[reason]; n != want && reason != "no_station" { // what other segments' stations broadcast
						t.Errorf("%s: %s counts %d, not %d", x.name, reason, n, want)
					}
				}
			}
			w.settle()
			for i, x := range all {
				want := ports
				if x.drop != "" {
					want = nil
				}
				w.came(fmt.Sprint("odd ", i), x.name, want...)
				w.send("access0", source(i), "02:00:00:00:67:ff", fmt.Sprint("learned ", i))
			}
			w.settle()
			for i, x := range all {
				want := append([]string{"host0", "host1", "vtep0", "vtep1"}, ports[1:]...) // nothing was learned
				if x.drop == "" {
					want = []string{"host0", "vtep0"}
				}
				w.came(fmt.Sprint("learned ", i), x.name+": the way back", want...)
			}
		})
	}
}

// leavesOthersAlone has the kernel of the balancer's host be a VTEP itself, of another VNI on the same UDP port.
func leavesOthersAlone(t *testing.T, b *overlayBed, d *daemon) {
	for _, over6 := range []bool{false, true} {
		seg := &overlay{vni: 7001, over6: over6, routed: true}
		if over6 {
			seg.vni++
		}
		t.Run(seg.String(), func(t *testing.T) {
			x := *b
			x.bed = b.with(t)
			x.vtep(seg, b.lb, seg.ours(), seg.theirs(0))
			x.vtep(seg, b.servers[0], seg.theirs(0), seg.ours())
			dev := fmt.Sprintf("br%d", seg.vni)
			for i, s := range []*testnet.Space{b.lb, b.servers[0]} {
				must(t, s.IP(fmt.Sprintf("addr add 192.0.2.%d/24 dev %s", 1+i, dev)))
				defer func() {
					must(t, s.IP("link del "+dev))
					must(t, s.IP(fmt.Sprintf("link del vx%d", seg.vni)))
				}()
			}
			before := d.with(t).settled()
			in(t, b.lb, "ping", "-n", "-c30", "-i0.01", "-W2", "-M", "do", "-s", fmt.Sprint(seg.mtu()-28), "192.0.2.2")
			in(t, b.servers[0], "ping", "-n", "-c30", "-i0.01", "-W2", "192.0.2.1")
			after := d.with(t).settled() // stations of the balancer's segments look after their neighbours now and then
			if n := after.Steering["take_vxlan"] - before.Steering["take_vxlan"]; n > 30 {
				t.Errorf("of 60 packets for the kernel, and few others, the balancer took %d", n)
			}
		})
	}
}
