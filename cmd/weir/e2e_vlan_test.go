package main_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// TestPortsThatShareADeviceByVLAN has both sides on one wire, in VLANs 100 and 200. Their tags are made here: the test is client and server.
func TestPortsThatShareADeviceByVLAN(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			o.oneArm, o.servers = true, 1
			b := newBed(t, o)
			d := b.start(vlanConfig(o, "net", "net", clientMAC))
			wire := openWire(t, b.client, "eth0")
			converse(t, d, wire, wire, pkttest.MAC(clientMAC), pkttest.MAC(wanMAC), pkttest.MAC(wanMAC))
		})
	}
}

// TestPortsWithTags has a device for each side, both with a tag.
func TestPortsWithTags(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			o.servers = 1
			b := newBed(t, o)
			d := b.start(vlanConfig(o, "wan", "lan", serverMAC(0)))
			converse(t, d, openWire(t, b.client, "eth0"), openWire(t, b.servers[0], "eth0"), pkttest.MAC(serverMAC(0)), pkttest.MAC(wanMAC), pkttest.MAC(lanMAC))
		})
	}
}

// vlanConfig has the clients in VLAN 100 of one device, and a server with that hardware address in VLAN 200 of another or the same.
func vlanConfig(o options, front, back, server string) string {
	mode := ""
	if o.xdpMode != "" {
		mode = ", xdp_mode: " + o.xdpMode
	}
	return fmt.Sprintf(`version: 1
ports:
  - {name: front, interface: %[1]s, vlan: 100, driver: %[3]s%[4]s, addresses: [198.18.2.1/24, "2001:db8:2::1/64"]}
  - {name: back, interface: %[2]s, vlan: 200, driver: %[3]s%[4]s, addresses: [198.18.3.1/24, "2001:db8:3::1/64"]}
neighbors:
  - {address: 198.18.2.2, mac: %[6]q, port: front}
  - {address: "2001:db8:2::2", mac: %[6]q, port: front}
  - {address: 198.18.3.10, mac: %[5]q, port: back}
  - {address: "2001:db8:3::10", mac: %[5]q, port: back}
routes:
  - {to: 198.18.2.0/24, via: 198.18.2.2, port: front}
  - {to: 198.18.3.0/24, via: 198.18.3.10, port: back}
  - {to: "2001:db8:2::/64", via: "2001:db8:2::2", port: front}
  - {to: "2001:db8:3::/64", via: "2001:db8:3::10", port: back}
services:
  - {vip: 198.18.9.9, port: 80, backends: [{address: 198.18.3.10, port: 8000}]}
  - {vip: "2001:db8:9::9", port: 80, backends: [{address: "2001:db8:3::10", port: 8000}]}
`, front, back, o.driver, mode, server, clientMAC)
}

// converse opens a connection of each family by hand, tags and all, and sends what bears no or another port's tag.
func converse(t *testing.T, d *daemon, front, back *wire, server, toFront, toBack []byte) {
	t.Helper()
	us := pkttest.MAC(clientMAC)
	for i, f := range []struct{ client, vip, real string }{
		{"198.18.2.2:4000", "198.18.9.9:80", "198.18.3.10:8000"},
		{"[2001:db8:2::2]:4000", "[2001:db8:9::9]:80", "[2001:db8:3::10]:8000"},
	} {
		client, vip, real := netip.MustParseAddrPort(f.client), netip.MustParseAddrPort(f.vip), netip.MustParseAddrPort(f.real)
		before := d.now().Verdicts.Received
		front.send(t, pkttest.TCP(client, vip).SYN().Seq(7).Frame(us, toFront))
		front.send(t, pkttest.TCP(client, vip).SYN().Seq(8).VLAN(300).Frame(us, toFront))
		front.send(t, pkttest.TCP(client, vip).SYN().VLAN(100).Frame(us, toFront))
		back.expect(t, pkttest.TCP(client, real).SYN().TTL(63).VLAN(200).Frame(toBack, server))
		back.send(t, pkttest.TCP(real, client).SYN().Ack(1).VLAN(200).Frame(server, toBack))
		front.expect(t, pkttest.TCP(vip, client).SYN().Ack(1).TTL(63).VLAN(100).Frame(toFront, us))
		s := d.settled()
		if n := s.Verdicts.Received - before; n != 2 || s.Services[i].Conns != 1 || s.Services[i].InPackets != 1 || s.Services[i].OutPackets != 1 {
			t.Errorf("%s: of four frames %d were taken, and counted %+v", f.vip, n, s.Services[i])
		}
	}
	if v := d.settled().Verdicts; v.Forwarded != 4 || v.Received != 4 {
		t.Errorf("verdicts %+v", v)
	}
}

// wire is a packet socket on a device.
type wire struct {
	fd   int
	seen []string // what came meanwhile, for the report
}

func openWire(t *testing.T, s *testnet.Space, dev string) *wire {
	t.Helper()
	w := &wire{fd: packetSocket(t, s, dev, unix.ETH_P_ALL)}
	t.Cleanup(func() { unix.Close(w.fd) })
	must(t, unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
	must(t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	return w
}

func (w *wire) send(t *testing.T, frame []byte) {
	t.Helper()
	_, err := unix.Write(w.fd, frame)
	must(t, err)
}

// expect waits for a tagged frame. The kernel takes the tag off what it gives to packet sockets and tells it beside.
func (w *wire) expect(t *testing.T, want []byte) {
	t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		n, oobn, _, _, err := unix.Recvmsg(w.fd, buf, oob, 0)
		if err != nil {
			continue // nothing came
		}
		frame := bytes.Clone(buf[:n])
		if cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(cmsgs) > 0 {
			if aux := cmsgs[0].Data; len(aux) >= 20 && aux[0]&unix.TP_STATUS_VLAN_VALID != 0 {
				frame = append(append(bytes.Clone(frame[:12]), 0x81, 0x00, aux[17], aux[16]), frame[12:]...)
			}
		}
		if bytes.Equal(frame, want) {
			return
		}
		w.seen = append(w.seen, fmt.Sprintf("%x", frame))
	}
	t.Fatalf("not on the wire: %x, but\n%s", want, strings.Join(w.seen, "\n"))
}
