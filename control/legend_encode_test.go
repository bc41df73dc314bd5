package control

import (
	"encoding/json"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"weir/dataplane/steer"
)

// TestLegendIsEncodedAsJSON holds encode to encoding/json, byte by byte.
func TestLegendIsEncodedAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := func() netip.Addr {
			return rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("198.18.1.10"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:198.18.1.9")}).Draw(t, "address")
		}
		port := func() uint16 { return rapid.Uint16().Draw(t, "port") }
		l := &legend{Version: legendVersion, Table: "00f0", File: rapid.String().Draw(t, "file")}
		for range rapid.IntRange(0, 3).Draw(t, "backends") {
			a := addr()
			x := legendBackend{ID: rapid.Uint32().Draw(t, "id"), Name: rapid.SampledFrom([]string{"", "web1", "a\"b", "<&>", "\u00e4\u2028", "\xff"}).Draw(t, "name"),
				Protocol: rapid.Uint8().Draw(t, "protocol"), VIP: netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")), VIPPort: [2]uint16{port(), port()},
				VIPVNI: uint32(rapid.IntRange(0, 1).Draw(t, "vip_vni")), Address: addr(), Port: port(), VNI: uint32(rapid.IntRange(0, 1).Draw(t, "vni")), Removed: rapid.Bool().Draw(t, "removed")}
			for range rapid.IntRange(0, 2).Draw(t, "servers") {
				x.Servers = append(x.Servers, steer.Server{Addr: addr(), Protocol: 6, Port: port()})
			}
			for range rapid.IntRange(0, 2).Draw(t, "nats") {
				x.NATs = append(x.NATs, legendNAT{steer.NAT{Addr: addr(), From: port(), To: port()}, rapid.Bool().Draw(t, "configured")})
			}
			for range rapid.IntRange(0, 2).Draw(t, "tunnels") {
				x.Tunnels = append(x.Tunnels, steer.Tunnel{Server: addr(), Protocol: 47})
			}
			l.Backends = append(l.Backends, x)
		}
		if rapid.Bool().Draw(t, "list") && l.Backends == nil {
			l.Backends = []legendBackend{}
		}
		got, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}
