package control

import (
	"encoding/binary"
	"net/netip"
	"time"

	"weir/dataplane/packet/pkttest"
)

// The stations and VTEPs of testdata/overlay/weir.yaml.
const (
	routerHW  = "02:00:00:00:01:fe"
	wanHW     = "02:00:00:00:01:01"
	underHW   = "02:00:00:00:01:02"
	gate4HW   = "02:00:00:00:51:01"
	gate6HW   = "02:00:00:00:52:01"
	localHW   = "02:00:00:00:51:08" // on acc, 172.16.1.8
	taggedHW  = "02:00:00:00:51:09" // on VLAN 30 of trunk, 172.16.1.9
	remoteHW  = "02:00:00:00:51:07" // behind 192.0.2.22, 172.16.1.7: the server of web
	staticHW  = "02:00:00:00:51:99" // behind 192.0.2.23, by the configuration
	server6HW = "02:00:00:00:52:07" // behind 2001:db8:fe::21, 2001:db8:52::7: the server of web6
	allHW     = "ff:ff:ff:ff:ff:ff"

	probeType = 0x88b5 // of local experiments (IEEE 802)
)

type overlayCase struct {
	name   string
	frames []onPort
}

// timeline gives each frame a millisecond of its own.
func timeline(frames ...onPort) []onPort {
	for i := range frames {
		frames[i].at += time.Duration(i) * time.Millisecond
	}
	return frames
}

func eth(src, dst string, etherType uint16, payload []byte, vlans ...uint16) []byte {
	return pkttest.Pad(pkttest.Ethernet(payload, pkttest.MAC(src), pkttest.MAC(dst), etherType, vlans...), 60)
}

// inside puts the IP packet p into a frame of a station's.
func inside(src, dst string, p pkttest.Packet, vlans ...uint16) []byte {
	return pkttest.Frame(p.Bytes(), pkttest.MAC(src), pkttest.MAC(dst), vlans...)
}

// header is a VXLAN header in front of a frame.
func header(flags byte, vni uint32, frame []byte) []byte {
	h := make([]byte, 8, 8+len(frame))
	h[0] = flags
	binary.BigEndian.PutUint32(h[4:], vni<<8)
	return append(h, frame...)
}

// tunneled is the frame in a tunnel from that VTEP to ours.
func tunneled(from string, vni uint32, frame []byte) pkttest.Packet {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr("192.0.2.1")
	if src.Is6() {
		dst = netip.MustParseAddr("2001:db8:fe::1")
	}
	return pkttest.UDP(netip.AddrPortFrom(src, 50000), netip.AddrPortFrom(dst, 4789)).Payload(header(8, vni, frame))
}

// tunnel puts an outer packet on the underlay's wire.
func tunnel(p pkttest.Packet) onPort {
	return onPort{port: "under", frame: p.Frame(pkttest.MAC("02:00:00:00:02:21"), pkttest.MAC(underHW))}
}

func client4(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("198.18.128.7"), port)
}

func arpFrame(op uint16, srcHW, src, dstHW, dst string, to string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, byte(op)}
	b = append(append(b, pkttest.MAC(srcHW)...), netip.MustParseAddr(src).AsSlice()...)
	b = append(append(b, pkttest.MAC(dstHW)...), netip.MustParseAddr(dst).AsSlice()...)
	return eth(srcHW, to, 0x0806, b)
}

// ndFrame is a neighbour solicitation (135) or advertisement (136) about target, with the sender's address as option.
func ndFrame(typ uint8, flags uint32, srcHW, src, dstHW, dst, target string) []byte {
	option := byte(1)
	if typ == 136 {
		option = 2
	}
	b := append(append(netip.MustParseAddr(target).AsSlice(), option, 1), pkttest.MAC(srcHW)...)
	return inside(srcHW, dstHW, pkttest.ICMP(netip.MustParseAddr(src), netip.MustParseAddr(dst), typ, 0, flags).TTL(255).Payload(b))
}

func overlayCases() []overlayCase {
	probe := func(src, dst string, vlans ...uint16) []byte {
		return eth(src, dst, probeType, []byte("a probe"), vlans...)
	}
	talk := func(src, dst string, from, to uint16) pkttest.Packet {
		return pkttest.UDP(netip.AddrPortFrom(netip.MustParseAddr(src), from), netip.AddrPortFrom(netip.MustParseAddr(dst), to)).Payload([]byte("hello, station"))
	}
	local, tagged, remote := "172.16.1.8", "172.16.1.9", "172.16.1.7"
	return []overlayCase{
		{"decapsulation", timeline(
			onPort{port: "acc", frame: probe(localHW, allHW)}, // both are heard of once, so each is known
			onPort{port: "trunk", frame: probe(taggedHW, allHW, 30)},
			tunnel(tunneled("192.0.2.22", 5001, inside(remoteHW, localHW, talk(remote, local, 7, 9)))),
			tunnel(tunneled("192.0.2.22", 5001, inside(remoteHW, taggedHW, talk(remote, tagged, 7, 9)))),
			tunnel(tunneled("192.0.2.22", 5001, inside(remoteHW, localHW, talk(remote, local, 7, 9).TOS(2))).TOS(3)), // congestion on the way is carried in
			tunnel(tunneled("192.0.2.22", 5001, eth(remoteHW, localHW, probeType, []byte("a priority tag comes off"), 0))),
			tunnel(tunneled("192.0.2.22", 5001, inside(remoteHW, localHW, talk(remote, local, 7, 9))).NoChecksum()),
		)},
		{"encapsulation", timeline(
			tunnel(tunneled("192.0.2.22", 5001, probe(remoteHW, allHW))),
			onPort{port: "acc", frame: inside(localHW, remoteHW, talk(local, remote, 9, 7))},
			onPort{port: "acc", frame: inside(localHW, remoteHW, talk(local, remote, 9, 8))}, // another flow, another source port
			onPort{port: "acc", frame: inside(localHW, remoteHW, talk(local, remote, 9, 7))}, // the same again
			onPort{port: "trunk", frame: inside(taggedHW, remoteHW, talk(tagged, remote, 9, 7).TOS(1), 30)},
			onPort{port: "acc", frame: inside(localHW, staticHW, talk(local, "172.16.1.99", 9, 7))},
			onPort{port: "acc", frame: inside(localHW, remoteHW, talk(local, remote, 9, 7).Size(1450).DF())},
			onPort{port: "acc", frame: inside(localHW, remoteHW, talk(local, remote, 9, 7).Size(1451).DF())}, // the gateway tells the sender
		)},
		{"flooding", timeline(
			onPort{port: "acc", frame: probe(localHW, allHW)},
			onPort{port: "acc", frame: probe(localHW, "01:00:5e:00:00:fb")},
			onPort{port: "trunk", frame: probe(taggedHW, "02:00:00:00:51:77", 30)}, // nobody knows that one
			tunnel(tunneled("192.0.2.21", 5001, probe(remoteHW, allHW))),           // to access ports alone
			tunnel(tunneled("192.0.2.21", 5001, probe(remoteHW, "02:00:00:00:51:77"))),
		)},
		{"service", timeline(
			onPort{port: "wan", frame: pkttest.TCP(client4(4000), netip.MustParseAddrPort("198.18.9.9:80")).SYN().TCPOptions(2, 4, 5, 180).Frame(pkttest.MAC(routerHW), pkttest.MAC(wanHW))},
			tunnel(tunneled("192.0.2.22", 5001, arpFrame(2, remoteHW, remote, gate4HW, "172.16.1.1", gate4HW))),
			tunnel(tunneled("192.0.2.22", 5001, inside(remoteHW, gate4HW, pkttest.TCP(netip.MustParseAddrPort("172.16.1.7:8080"), client4(4000)).SYN().Ack(1).TCPOptions(2, 4, 5, 180)))),
			onPort{port: "wan", frame: pkttest.TCP(client4(4000), netip.MustParseAddrPort("198.18.9.9:80")).Seq(1).Ack(1).PSH().Payload([]byte("GET / HTTP/1.0\r\n\r\n")).Frame(pkttest.MAC(routerHW), pkttest.MAC(wanHW))},
			tunnel(tunneled("192.0.2.22", 5001, inside(remoteHW, gate4HW, pkttest.TCP(netip.MustParseAddrPort("172.16.1.7:8080"), client4(4000)).Seq(1).Ack(19).PSH().Payload([]byte("HTTP/1.0 200 OK\r\n\r\n"))))),
			onPort{port: "wan", frame: pkttest.TCP(client4(4000), netip.MustParseAddrPort("198.18.9.9:80")).Seq(19).Ack(20).Size(1451).DF().Frame(pkttest.MAC(routerHW), pkttest.MAC(wanHW))}, // told of 1450
			tunnel(tunneled("192.0.2.22", 5001, arpFrame(1, remoteHW, remote, "00:00:00:00:00:00", "172.16.1.1", allHW))),                                                                     // who is the gateway?
			onPort{port: "acc", frame: inside(localHW, gate4HW, pkttest.Echo(netip.MustParseAddr(local), netip.MustParseAddr("172.16.1.1"), 7, 1).Payload([]byte("are you there?")))},
			onPort{port: "acc", frame: arpFrame(2, localHW, local, gate4HW, "172.16.1.1", gate4HW)}, // and who is it that asks?
		)},
		{"service6", timeline(
			onPort{port: "wan", frame: pkttest.TCP(netip.MustParseAddrPort("[2001:db8:c::7]:4000"), netip.MustParseAddrPort("[2001:db8:9::9]:80")).SYN().TCPOptions(2, 4, 5, 160).Frame(pkttest.MAC(routerHW), pkttest.MAC(wanHW))},
			tunnel(tunneled("2001:db8:fe::21", 5002, ndFrame(136, 0x60000000, server6HW, "2001:db8:52::7", gate6HW, "2001:db8:52::1", "2001:db8:52::7"))),
			tunnel(tunneled("2001:db8:fe::21", 5002, inside(server6HW, gate6HW, pkttest.TCP(netip.MustParseAddrPort("[2001:db8:52::7]:8080"), netip.MustParseAddrPort("[2001:db8:c::7]:4000")).SYN().Ack(1).TCPOptions(2, 4, 5, 160)))),
			onPort{port: "wan", frame: pkttest.TCP(netip.MustParseAddrPort("[2001:db8:c::7]:4000"), netip.MustParseAddrPort("[2001:db8:9::9]:80")).Seq(1).Ack(1).Size(1430).Frame(pkttest.MAC(routerHW), pkttest.MAC(wanHW))},
			onPort{port: "wan", frame: pkttest.TCP(netip.MustParseAddrPort("[2001:db8:c::7]:4000"), netip.MustParseAddrPort("[2001:db8:9::9]:80")).Seq(1).Ack(1).Size(1431).Frame(pkttest.MAC(routerHW), pkttest.MAC(wanHW))},
			tunnel(tunneled("2001:db8:fe::21", 5002, ndFrame(135, 0, server6HW, "2001:db8:52::7", "33:33:ff:00:00:01", "ff02::1:ff00:1", "2001:db8:52::1"))),
			tunnel(tunneled("2001:db8:fe::21", 5002, inside(server6HW, gate6HW, pkttest.Echo(netip.MustParseAddr("2001:db8:52::7"), netip.MustParseAddr("2001:db8:52::1"), 7, 1).Payload([]byte("are you there?"))))),
		)},
		{"wrong", wrongPackets(probe)},
	}
}

// wrongPackets come to be dropped, each under another name, or are the kernel's.
func wrongPackets(probe func(src, dst string, vlans ...uint16) []byte) []onPort {
	whole := probe(remoteHW, localHW)
	raw := func(b []byte) pkttest.Packet {
		return pkttest.UDP(netip.MustParseAddrPort("192.0.2.21:50000"), netip.MustParseAddrPort("192.0.2.1:4789")).Payload(b)
	}
	marked := pkttest.UDP(netip.MustParseAddrPort("172.16.1.7:7"), netip.MustParseAddrPort("172.16.1.8:9"))
	return timeline(
		tunnel(raw(header(8, 5001, whole[:13]))),
		tunnel(tunneled("192.0.2.77", 5001, whole)),
		tunnel(tunneled("192.0.2.1", 5001, whole)),
		tunnel(tunneled("192.0.2.21", 5001, whole).BadChecksum()),
		tunnel(tunneled("192.0.2.21", 5001, probe("01:00:00:00:51:07", localHW))),
		tunnel(tunneled("192.0.2.21", 5001, probe("00:00:00:00:00:00", localHW))),
		tunnel(tunneled("192.0.2.21", 5001, probe(remoteHW, localHW, 5))),
		tunnel(tunneled("192.0.2.21", 5001, inside(remoteHW, localHW, marked)).TOS(3)),
		tunnel(tunneled("192.0.2.21", 5001, probe(staticHW, localHW))), // is behind another VTEP, the configuration says
		tunnel(tunneled("192.0.2.21", 5001, probe(remoteHW, staticHW))),
		tunnel(tunneled("192.0.2.21", 5001, probe(localHW, allHW))),
		tunnel(tunneled("192.0.2.21", 5001, probe(remoteHW, localHW))), // its station has just moved to where the frame comes from
		tunnel(tunneled("192.0.2.21", 5001, inside(remoteHW, gate4HW, marked))),
		tunnel(tunneled("192.0.2.21", 5001, eth(remoteHW, gate4HW, probeType, []byte("nothing for a gateway")))),
		tunnel(tunneled("192.0.2.21", 5001, whole).Options(131, 7, 4, 198, 18, 0, 1)),
		tunnel(tunneled("192.0.2.21", 5001, pkttest.Pad(whole, 64)).Fragment(7, 0, true)),
		tunnel(tunneled("192.0.2.21", 5001, whole).BadIPChecksum()),
		onPort{port: "acc", frame: probe(localHW, "02:00:00:00:51:01", 5)}, // a VLAN of nobody's
		onPort{port: "trunk", frame: probe("01:00:00:00:51:09", allHW, 30)},
		onPort{port: "acc", frame: eth(localHW, remoteHW, probeType, make([]byte, 1480))}, // fits into no tunnel, and is no packet to be answered
		tunnel(raw(header(0, 5001, whole))),                                               // without the I flag, or of another VNI: a kernel might have a device for it, but there is none behind a replay
		tunnel(tunneled("192.0.2.21", 5009, whole)),
	)
}
