package pkttest

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	a4, b4 = netip.MustParseAddrPort("198.18.0.1:1000"), netip.MustParseAddrPort("198.18.9.9:80")
	a6, b6 = netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8:9::9]:80")
)

func every() map[string]Packet {
	data := []byte("odd")
	all := map[string]Packet{}
	for name, ends := range map[string][2]netip.AddrPort{"4": {a4, b4}, "6": {a6, b6}} {
		a, b := ends[0], ends[1]
		quoted := TCP(b, a).Ack(1).Bytes()
		all["tcp"+name] = TCP(a, b).SYN().Seq(1).TCPOptions(2, 4, 5, 180, 1).Payload(data)
		all["flags"+name] = TCP(a, b).Flags(0xff)
		all["udp"+name] = UDP(a, b).Payload(data).TTL(3).TOS(0xb8)
		all["sctp"+name] = SCTP(a, b).VTag(5).Chunk(0, 3, append(make([]byte, 12), data...))
		all["echo"+name] = Echo(a.Addr(), b.Addr(), 1, 2).Payload(data)
		all["reply"+name] = EchoReply(a.Addr(), b.Addr(), 1, 2)
		all["exceeded"+name] = ICMPTimeExceeded(a.Addr(), b.Addr(), quoted)
		all["too big"+name] = ICMPTooBig(a.Addr(), b.Addr(), 1400, quoted)
		all["unreachable"+name] = ICMPPortUnreachable(a.Addr(), b.Addr(), quoted)
		all["raw"+name] = IP(a.Addr(), b.Addr(), 47, data)
		all["ipip"+name] = IP(a.Addr(), b.Addr(), 4, TCP(a4, b4).SYN().Bytes())
	}
	all["options"] = TCP(a4, b4).SYN().Options(131, 7, 4, 198, 18, 1, 1).DF().ID(7)
	all["zero checksum"] = UDP(a4, b4).NoChecksum()
	all["chain"] = TCP(a6, b6).SYN().HopByHop().Routing(1).DestOptions().AH()
	all["atomic"] = TCP(a6, b6).SYN().Fragment(1, 0, false)
	return all
}

// TestBytes lets gopacket and Verify judge what the builder makes.
func TestBytes(t *testing.T) {
	for name, p := range every() {
		t.Run(name, func(t *testing.T) {
			ip := p.Bytes()
			Check(t, ip)
			first := layers.LayerTypeIPv4
			if ip[0]>>4 == 6 {
				first = layers.LayerTypeIPv6
			}
			g := gopacket.NewPacket(ip, first, gopacket.Default)
			if e := g.ErrorLayer(); e != nil && p.proto != 47 {
				t.Errorf("gopacket: %v\n%v", e.Error(), g)
			}
		})
	}
}

// TestVerifySeesEveryBit flips each bit that a length or a checksum stands for.
func TestVerifySeesEveryBit(t *testing.T) {
	for name, p := range every() {
		ip := p.Bytes()
		v, err := look(ip)
		if err != nil {
			t.Fatal(err)
		}
		from, to := 0, len(ip)
		switch {
		case p.proto == 47 || p.noChecksum: // nothing covers the payload
			to = len(v.header)
		case p.proto == 4:
			to = len(v.header) + 20
		}
		for i := from; i < to; i++ {
			if v.v6 && i < len(v.header) && (i < 4 || i == 7 || i == 6 && len(v.header) > 40 || i >= 40 || p.raw || p.proto == 132 && i >= 8) {
				continue // IPv6 itself has no checksum; the transport's covers addresses and payload length, SCTP's not even those
			}
			for bit := range 8 {
				m := bytes.Clone(ip)
				m[i] ^= 1 << bit
				// A next header that turns into one without a checksum here, or an extension header, cannot be seen.
				if w, err := look(m); err == nil && w.proto != v.proto {
					continue
				}
				if Verify(m) == nil {
					t.Errorf("%s: bit %d of byte %d does not matter\n% x", name, bit, i, m)
					break
				}
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"version", []byte{0x55}, "version 5"},
		{"IPv4 header", TCP(a4, b4).Bytes()[:19], "19 bytes"},
		{"IPv4 cut off", TCP(a4, b4).Bytes()[:39], "total length 40"},
		{"IPv6 cut off", TCP(a6, b6).Bytes()[:59], "payload length 20"},
		{"IPv4 checksum", TCP(a4, b4).BadIPChecksum().Bytes(), "IPv4 header checksum"},
		{"TCP checksum", TCP(a4, b4).BadChecksum().Bytes(), "TCP checksum"},
		{"UDP checksum", UDP(a6, b6).BadChecksum().Bytes(), "UDP checksum"},
		{"no UDP checksum over IPv6", UDP(a6, b6).NoChecksum().Bytes(), "no checksum"},
		{"SCTP checksum", SCTP(a4, b4).BadChecksum().Bytes(), "SCTP checksum"},
		{"ICMP checksum", Echo(a4.Addr(), b4.Addr(), 1, 1).BadChecksum().Bytes(), "ICMP checksum"},
		{"ICMPv6 checksum", Echo(a6.Addr(), b6.Addr(), 1, 1).BadChecksum().Bytes(), "ICMPv6 checksum"},
		{"inner packet", IP(a4.Addr(), b4.Addr(), 4, TCP(a4, b4).BadChecksum().Bytes()).Bytes(), "inner packet: TCP checksum"},
		{"extension header", IP(a6.Addr(), b6.Addr(), 60, []byte{6, 1, 0, 0, 0, 0, 0, 0}).Bytes(), "extension header 60"},
	} {
		if err := Verify(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := Verify(UDP(a6, netip.AddrPortFrom(b6.Addr(), 4789)).NoChecksum().Bytes()); err != nil {
		t.Errorf("VXLAN over IPv6: %v", err)
	}
}

func TestCut(t *testing.T) {
	for name, p := range map[string]Packet{"4": UDP(a4, b4).Size(120), "6": UDP(a6, b6).HopByHop().DestOptions().Size(180)} {
		whole, err := look(p.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var body []byte
		pieces := p.Cut(7, 40, 80)
		for i, ip := range pieces {
			v, err := look(ip)
			if err != nil || v.id != 7 || v.more != (i < 2) || v.offset != i*40 {
				t.Errorf("%s: piece %d: %v %+v", name, i, err, v)
			}
			body = append(body, v.body...)
		}
		if len(pieces) != 3 || !bytes.Equal(body, whole.body) { // look walks through the destination options of the first piece
			t.Errorf("%s: %d pieces hold\n% x, want\n% x", name, len(pieces), body, whole.body)
		}
	}
}

func TestJoin(t *testing.T) {
	for name, p := range map[string]Packet{"4": UDP(a4, b4).ID(7).Size(120), "6": UDP(a6, b6).Size(140)} {
		pieces := p.Cut(7, 40, 80)
		if got := Join(pieces[2], pieces[0], pieces[1]); !bytes.Equal(got, p.Bytes()) {
			t.Errorf("%s: joined to %s, want %s", name, String(got), p)
		}
		if got := Join(p.Bytes()); !bytes.Equal(got, p.Bytes()) {
			t.Errorf("%s: a whole packet became %s", name, String(got))
		}
	}
}

func TestString(t *testing.T) {
	for _, c := range []struct {
		in   Packet
		want string
	}{
		{TCP(a4, b4).SYN().Seq(5).DF(), "198.18.0.1:1000 > 198.18.9.9:80 TCP SYN seq 5 ack 0 win 65535 data 0 ttl 64 len 40 DF"},
		{UDP(a6, b6).TTL(3), "[2001:db8::1]:1000 > [2001:db8:9::9]:80 UDP ttl 3 len 48"},
		{SCTP(a4, b4).Chunk(10, 0, []byte("cook")).Chunk(6, 0, nil).Chunk(200, 0, nil),
			"198.18.0.1:1000 > 198.18.9.9:80 SCTP COOKIE-ECHO ABORT chunk 200 ttl 64 len 48"},
		{ICMPTimeExceeded(a4.Addr(), b4.Addr(), UDP(b4, a4).Payload(make([]byte, 100)).Bytes()[:28]),
			"198.18.0.1 > 198.18.9.9 ICMP type 11 code 0 rest 0x0 quoting (198.18.9.9:80 > 198.18.0.1:1000 UDP ttl 64 len 28) ttl 64 len 56"},
		{IP(a4.Addr(), b4.Addr(), 17, make([]byte, 8)).Fragment(7, 8, true), "198.18.0.1 > 198.18.9.9 UDP ttl 64 len 28 fragment 0x7 at 8+"},
		{IP(a6.Addr(), b6.Addr(), 99, nil).TOS(4), "2001:db8::1 > 2001:db8:9::9 protocol 99 ttl 64 len 40 tos 0x04"},
	} {
		if got := c.in.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	for _, p := range every() { // every prefix, with length fields that do not fit and that do
		ip := p.Bytes()
		for n := range ip {
			if String(ip[:n]) == "" || quote(ip[:n]) == "()" {
				t.Errorf("nothing to say of %d bytes", n)
			}
		}
	}
}

func TestFrame(t *testing.T) {
	src, dst := MAC("02:00:00:00:00:01"), MAC("02:00:00:00:00:02")
	b := UDP(a6, b6).VLAN(200, 100).Frame(src, dst)
	want := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xa8, 0, 200, 0x81, 0, 0, 100, 0x86, 0xdd, 0x60}
	if !bytes.Equal(b[:len(want)], want) {
		t.Errorf("got  % x\nwant % x", b[:len(want)], want)
	}
	if got := len(Pad(UDP(a4, b4).Frame(src, dst), 60)); got != 60 {
		t.Errorf("padded to %d bytes", got)
	}
}

func TestNonsensePanics(t *testing.T) {
	for name, f := range map[string]func(){
		"families":       func() { TCP(a4, b6) },
		"offset":         func() { UDP(a4, b4).Fragment(1, 4, true) },
		"extension":      func() { UDP(a4, b4).HopByHop() },
		"size":           func() { UDP(a4, b4).Size(20) },
		"options":        func() { UDP(a4, b4).Options(131, 9).Bytes() },
		"cut":            func() { UDP(a4, b4).Cut(1, 800) },
		"a gap":          func() { p := UDP(a4, b4).Size(120).Cut(7, 40, 80); Join(p[0], p[2]) },
		"twice":          func() { p := UDP(a6, b6).Size(140).Cut(7, 40, 80); Join(p[0], p[1], p[1], p[2]) },
		"no last":        func() { p := UDP(a6, b6).Size(140).Cut(7, 40); Join(p[0]) },
		"not a piece":    func() { Join(UDP(a4, b4).Bytes(), UDP(a4, b4).Bytes()) },
		"no such header": func() { between(a4, b4, 99).Bytes() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "pkttest: ") {
					t.Errorf("panic %q", s)
				}
			}()
			f()
		})
	}
}
