package main_test

import (
	"fmt"
	"strings"
	"testing"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// TestVXLANOfVLANs has one port with a VLAN of each of two segments, whose stations have the same addresses. The test makes the tags itself:
// they stay on the port, and none goes into a tunnel.
func TestVXLANOfVLANs(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			segments := []*overlay{{vni: 5001}, {vni: 6002, over6: true, gate6: true}}
			b := newOverlayBed(t, o, vxlanPort, segments...)
			trunk := b.space("trunk")
			must(t, b.net.Veth(testnet.End{Space: trunk, Name: "eth0"}, testnet.End{Space: b.lb, Name: "trunk"}))
			text := b.config(nil)
			for vlan := 100; vlan <= 200; vlan += 100 {
				text = strings.Replace(text, "access: []", fmt.Sprintf("access: [{port: trunk, vlan: %d}]", vlan), 1)
			}
			d := b.start(strings.Replace(text, "\nvxlan:", "\n  - "+b.portText("trunk")+"\nvxlan:", 1))
			wire := openWire(t, trunk, "eth0")
			for i, seg := range segments {
				station, vlan := tenantMAC(20), uint16(100*(i+1))
				w, other := b.watch(t, seg), b.watch(t, segments[1-i])
				tagged := func(vlan uint16, dst, src, text string) []byte {
					return pkttest.Ethernet(probe(dst, src, text)[14:], pkttest.MAC(src), pkttest.MAC(dst), probeType, vlan)
				}
				before := d.settled().Verdicts.Received
				wire.send(t, tagged(300, everyone, station, "of no segment"))
				wire.send(t, probe(everyone, station, "without a tag"))
				wire.send(t, tagged(vlan, everyone, station, "to all"))
				w.arrives("to all", "host0", "host1", "vtep0", "vtep1")
				w.send("host0", station, tenantMAC(0), "back")
				wire.expect(t, tagged(vlan, station, tenantMAC(0), "back"))
				wire.send(t, tagged(vlan, tenantMAC(0), station, "to one"))
				w.arrives("to one", "host0", "vtep0")
				for _, text := range []string{"of no segment", "without a tag"} {
					w.came(text, text)
				}
				for _, text := range []string{"of no segment", "without a tag", "to all", "back", "to one"} {
					other.came(text, text+", in the other segment")
				}
				if n := d.settled().Verdicts.Received - before; n < 3 {
					t.Errorf("%v: %d frames were received", seg, n)
				}
			}
		})
	}
}
