package vxlan

import (
	"bytes"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

func TestSegmentPeers(t *testing.T) {
	for _, n := range []int{0, 1, 7, 300} {
		o := SegmentOptions{TunnelOptions: options4(), Peers: make([]PeerOptions, n)}
		for i := range o.Peers {
			if i%3 != 1 { // free indices
				o.Peers[i] = PeerOptions{Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), NoFlood: i%3 == 2}
			}
		}
		s, err := NewSegment(o)
		if err != nil {
			t.Fatal(err)
		}
		flood := 0
		for i, p := range o.Peers {
			if !p.Addr.IsValid() {
				if s.Tunnel(AtPeer(uint16(i))) != nil {
					t.Errorf("free index %d has a tunnel", i)
				}
				continue
			}
			a, _ := AddrOf(p.Addr)
			if got, ok := s.Peer(a); !ok || int(got) != i || s.Tunnel(AtPeer(got)).Peer() != got {
				t.Errorf("%v is peer %d, want %d", p.Addr, got, i)
			}
			if i%3 == 0 {
				flood++
			}
		}
		if len(s.Flood) != flood {
			t.Errorf("floods go to %d of %d peers, want %d", len(s.Flood), n, flood)
		}
		if got, ok := s.Peer(Addr{Lo: 1}); ok || got != NoPeer {
			t.Errorf("a stranger is peer %d", got)
		}
		if s.Tunnel(AtPeer(uint16(n))) != nil || s.Tunnel(AtAccess(0)) != nil || s.Tunnel(AtGateway) != nil || s.Tunnel(0) != nil {
			t.Error("a tunnel to where no peer is")
		}
	}
}

func TestPeerOptions(t *testing.T) { // lines 6 and 12
	s := testSegment(t, func(o *SegmentOptions) {
		o.Port = 8472
		o.Peers = append(o.Peers, PeerOptions{Addr: address("192.0.2.3"), Port: 4789, Checksum: true})
	})
	for i, want := range []struct {
		port     uint16
		checksum bool
	}{{8472, false}, {4789, true}} {
		d := decode(t, sent(t, s.Peers[i].Tunnel, inner(), 0))
		if uint16(d.udp.DstPort) != want.port || (d.udp.Checksum != 0) != want.checksum {
			t.Errorf("peer %d: port %d, checksum %#x", i, d.udp.DstPort, d.udp.Checksum)
		}
	}
}

// Checksums are a segment's, unless a peer has them otherwise (lines 11 and 13).
func TestPeerChecksums(t *testing.T) {
	for _, c := range []struct {
		name           string
		segment, never bool // the segment: made over IPv4, made over neither
		peer           PeerOptions
		want4, want6   bool
	}{
		{"the default", false, false, PeerOptions{}, false, true},
		{"the segment's", true, false, PeerOptions{}, true, true},
		{"the segment's, none", false, true, PeerOptions{}, false, false},
		{"but for this peer", true, false, PeerOptions{NoChecksum: true}, false, true},
		{"but for this peer, over IPv6 as well", true, false, PeerOptions{NoChecksum: true, ZeroChecksum6: true}, false, false},
		{"for this peer", false, true, PeerOptions{Checksum: true}, true, true},
	} {
		for _, v6 := range []bool{false, true} {
			s := testSegment(t, func(o *SegmentOptions) {
				c.peer.Addr = peer
				if v6 {
					o.TunnelOptions, c.peer.Addr = options6(), peer6
				}
				o.Checksum, o.ZeroChecksum6, o.Peers = c.segment, c.never, []PeerOptions{c.peer}
			})
			want := c.want4
			if v6 {
				want = c.want6
			}
			if d := decode(t, sent(t, s.Peers[0].Tunnel, inner(), 0)); (d.udp.Checksum != 0) != want {
				t.Errorf("%s, IPv6 %v: checksum %#x, want one: %v", c.name, v6, d.udp.Checksum, want)
			}
		}
	}
}

// The MAC addresses of groups, by the examples of RFC 1112 and RFC 2464.
func TestGroupMAC(t *testing.T) {
	for group, want := range map[string][6]byte{
		"224.0.0.1":       {0x01, 0x00, 0x5e, 0, 0, 1},
		"239.129.2.3":     {0x01, 0x00, 0x5e, 1, 2, 3}, // the 24th bit does not count
		"239.255.255.255": {0x01, 0x00, 0x5e, 0x7f, 0xff, 0xff},
		"ff05::1":         {0x33, 0x33, 0, 0, 0, 1},
		"ff0e::8c1f:1234": {0x33, 0x33, 0x8c, 0x1f, 0x12, 0x34},
	} {
		if got := GroupMAC(address(group)); got != want {
			t.Errorf("%s: % x, want % x", group, got, want)
		}
	}
}

func TestSegmentGroup(t *testing.T) { // line 16: to the group
	s := testSegment(t, func(o *SegmentOptions) { o.Group, o.GroupPort = address("239.1.1.1"), 3 })
	if s.GroupPort != 3 || s.GroupMAC != GroupMAC(address("239.1.1.1")) {
		t.Errorf("the group's port is %d, its MAC % x", s.GroupPort, s.GroupMAC)
	}
	if len(s.Flood) != 1 || s.Flood[0].Peer() != NoPeer {
		t.Fatalf("floods go to %d, want the group", len(s.Flood))
	}
	if d := decode(t, sent(t, s.Flood[0], inner(), 0)); d.ip4.DstIP.String() != "239.1.1.1" {
		t.Errorf("to %v", d.ip4.DstIP)
	}
}

func TestNewSegmentRefuses(t *testing.T) {
	for name, edit := range map[string]func(o *SegmentOptions){
		"no VTEP":                   func(o *SegmentOptions) { o.Local = netip.Addr{} },
		"a peer of another family":  func(o *SegmentOptions) { o.Peers[0].Addr = peer6 },
		"a peer twice":              func(o *SegmentOptions) { o.Peers = append(o.Peers, o.Peers[0]) },
		"ourselves":                 func(o *SegmentOptions) { o.Peers[0].Addr = ours },
		"a group that is none":      func(o *SegmentOptions) { o.Group = address("192.0.2.9") },
		"a group of another family": func(o *SegmentOptions) { o.Group = address("ff05::1") },
		"VNI":                       func(o *SegmentOptions) { o.VNI = 1 << 24 },
	} {
		o := SegmentOptions{TunnelOptions: options4(), Peers: []PeerOptions{{Addr: peer}}}
		edit(&o)
		if _, err := NewSegment(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Lines 29 and 43: many segments, each found by its own VNI and access ports and by no other.
func TestSegments(t *testing.T) {
	var list []*Segment
	for i := range 500 {
		list = append(list, testSegment(t, func(o *SegmentOptions) {
			o.VNI, o.Index = uint32(i*33554+1)&MaxVNI, uint16(i)
			o.Access = []Access{{Port: uint16(i % 3), VLAN: uint16(i), Used: true}, {}, {Port: 7, VLAN: uint16(i), Used: true}}
		}))
	}
	s := segmentsOf(t, list...)
	if len(s.List()) != len(list) {
		t.Errorf("%d listed", len(s.List()))
	}
	for i, want := range list {
		if s.ByVNI(want.VNI) != want {
			t.Errorf("segment %d is not found by its VNI", i)
		}
		for j, a := range want.Access {
			if got, index := s.ByAccess(a.Port, a.VLAN); a.Used && (got != want || int(index) != j) {
				t.Errorf("segment %d is not found by access port %d", i, j)
			}
		}
		if got, _ := s.ByAccess(uint16(i%3+1)%3, uint16(i)); got != nil {
			t.Errorf("segment %d is found by another's access port", i)
		}
	}
	if s.ByVNI(0) != nil || segmentsOf(t).ByVNI(5001) != nil {
		t.Error("a segment that is not there")
	}
	if _, err := NewSegments([]*Segment{list[0], list[1], list[0]}); err == nil {
		t.Error("a VNI twice: no error")
	}
	other := testSegment(t, func(o *SegmentOptions) { o.Access = []Access{{7, 3, true}} })
	if _, err := NewSegments([]*Segment{list[3], other}); err == nil {
		t.Error("an access port twice: no error")
	}
}

func TestEnter(t *testing.T) { // lines 20, 21 and 31
	plain := testSegment(t, func(o *SegmentOptions) { o.Access = []Access{{Used: true}} })
	seven := testSegment(t, func(o *SegmentOptions) {
		o.VNI, o.Access = 7, []Access{{}, {VLAN: 7, Used: true}}
	})
	keeping := testSegment(t, func(o *SegmentOptions) {
		o.VNI, o.Access, o.Policy.KeepTags = 8, []Access{{Port: 1, Used: true}, {Port: 1, VLAN: 7, Used: true}}, true
	})
	s := segmentsOf(t, plain, seven, keeping)
	tcp := func(vlan ...uint16) []byte {
		return pkttest.TCP(client, server).SYN().VLAN(vlan...).Frame(hostA, hostB)
	}
	for _, c := range []struct {
		name    string
		port    uint16
		in      []byte
		segment *Segment
		at      Place
		want    Fault
		out     []byte
	}{
		{"untagged", 0, tcp(), plain, AtAccess(0), FaultNone, tcp()},
		{"priority tag", 0, tcp(0), plain, AtAccess(0), FaultNone, tcp()},
		{"VLAN 7", 0, tcp(7), seven, AtAccess(1), FaultNone, tcp()},
		{"VLAN 8 is nobody's", 0, tcp(8), nil, 0, FaultAccess, nil},
		{"another port", 2, tcp(), nil, 0, FaultAccess, nil},
		{"a tag inside VLAN 7", 0, tcp(7, 9), seven, AtAccess(1), FaultTagged, nil},
		{"a tag inside a priority tag", 0, tcp(0, 9), plain, AtAccess(0), FaultTagged, nil},
		{"kept: untagged", 1, tcp(), keeping, AtAccess(0), FaultNone, tcp()},
		{"kept: VLAN 9", 1, tcp(9), keeping, AtAccess(0), FaultNone, tcp(9)},
		{"kept: a tag inside the port's", 1, tcp(7, 9), keeping, AtAccess(1), FaultNone, tcp(9)},
		{"the source is a group", 0, pkttest.TCP(client, server).Frame(pkttest.MAC("01:00:00:00:00:01"), hostB), plain, AtAccess(0), FaultSourceMAC, nil},
	} {
		f := newChunk(t).parsed(t, c.in)
		f.Port = c.port
		a, fault := s.Enter(f)
		if fault != c.want || a.Segment != c.segment || a.At != c.at {
			t.Errorf("%s: %v, segment %v, at %#x; want %v, %v, %#x", c.name, fault, a.Segment, a.At, c.want, c.segment, c.at)
			continue
		}
		if fault != FaultNone {
			continue
		}
		if !bytes.Equal(f.Bytes(), c.out) {
			t.Errorf("%s:\n% x, want\n% x", c.name, f.Bytes(), c.out)
		}
		kept := f.Headers
		if packet.Parse(f); f.Headers != kept {
			t.Errorf("%s: headers %+v, parsed anew %+v", c.name, kept, f.Headers)
		}
	}
}

func TestTag(t *testing.T) { // line 45: back out of a VLAN's access port
	for _, vlan := range []uint16{0, 1, 7, 4094} {
		f := newChunk(t).parsed(t, inner())
		if !Tag(f, vlan) || !bytes.Equal(f.Bytes(), pkttest.TCP(client, server).SYN().VLAN(vlan).Frame(hostA, hostB)) {
			t.Errorf("VLAN %d: % x", vlan, f.Bytes())
		}
		kept := f.Headers
		if packet.Parse(f); f.Headers != kept {
			t.Errorf("VLAN %d: headers %+v, parsed anew %+v", vlan, kept, f.Headers)
		}
		if Untag(f); !bytes.Equal(f.Bytes(), inner()) || f.VLANs != 0 {
			t.Errorf("VLAN %d: not what it was", vlan)
		}
	}
	pool, _ := packet.NewPool(make([]byte, 2048), 2048)
	var f packet.Frame
	f.Open(pool, packet.Desc{Addr: 3, Len: 60})
	if Tag(&f, 1) || f.Start != 3 {
		t.Error("a tag without headroom")
	}
}

func TestGate(t *testing.T) {
	var g Gate
	count := func(from int64) (n int) { // events of one second, a thousand tried
		for i := range int64(1000) {
			if g.Allow(from + i*1e6) {
				n++
			}
		}
		return n
	}
	if n := count(0); n != 1000 {
		t.Errorf("without a limit %d of 1000", n)
	}
	g.Set(100)
	if n := count(10e9); n < 195 || n > 201 { // a burst of 100, and 100 a second
		t.Errorf("the first second let %d through, want 200", n)
	}
	if n := count(11e9); n < 99 || n > 101 {
		t.Errorf("the second second let %d through, want 100", n)
	}
	g.Set(0)
	if n := count(20e9); n != 0 {
		t.Errorf("a rate of zero let %d through", n)
	}
	g.Set(-1)
	if n := count(30e9); n != 1000 {
		t.Errorf("no limit again: %d of 1000", n)
	}
}

func TestStrangers(t *testing.T) {
	s := NewStrangers([2]uint64{1, 2})
	a4, _ := AddrOf(peer)
	a6, _ := AddrOf(peer6)
	for i := range 5 {
		if fresh := s.Note(3, a4, false, Second(100+i)); fresh != (i == 0) {
			t.Errorf("frame %d of a source: it is new: %v", i, fresh)
		}
	}
	s.Note(3, a6, true, 100)
	s.Note(4, a4, false, 100)
	list, others := s.List()
	want := map[Stranger]bool{{3, peer, 5, 104}: true, {3, peer6, 1, 100}: true, {4, peer, 1, 100}: true}
	for _, x := range list {
		if !want[x] {
			t.Errorf("%+v", x)
		}
	}
	if len(list) != len(want) || others != 0 {
		t.Errorf("%d noted, %d others", len(list), others)
	}
	// However many there are, none is lost from the sum, and memory does not grow.
	for i := range uint64(20000) {
		s.Note(5, Addr{Lo: 1<<24 + i}, false, Second(200+i/200))
	}
	list, sum := s.List()
	for _, x := range list {
		sum += x.Count
	}
	if sum != 20007 || len(list) > strangerRows*strangerRow || len(list) < strangerRows {
		t.Errorf("%d frames in all, want 20007; %d noted", sum, len(list))
	}
}
