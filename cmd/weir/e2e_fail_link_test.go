package main_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control"
	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// warns waits until `weir status` has a warning that names a port, or until it has none.
func (d *daemon) warns(port string, yes bool) {
	d.t.Helper()
	var s control.Status
	eventually(d.t, 10*time.Second, fmt.Sprintf("status warns of %s: %v", port, yes), func() bool {
		d.runs()
		s = control.Status{}
		if control.NewClient(d.socket).Get("/status", &s) != nil {
			return false
		}
		return strings.Contains(strings.Join(s.Warnings, "\n"), port) == yes
	})
	if out := d.cli("status"); strings.Contains(out, "warning: port "+port) != yes {
		d.t.Errorf("weir status, want a warning of %s: %v\n%s", port, yes, out)
	}
}

// idles wants the daemon to use little processor time over 2 s.
func (d *daemon) idles() {
	d.t.Helper()
	was := d.usage()
	const over = 2 * time.Second
	time.Sleep(over)
	if used := d.usage() - was; used > over*3/10 {
		d.t.Errorf("the daemon used %v of processor time in %v while a device was not there", used, over)
	}
}

func TestALinkThatFlapsComesBack(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel() // it mostly waits
			b := newBed(t, o)
			b.echoes(8000)
			d := b.start(b.tcp())
			all := streams(t, b.client, hostPort(vip4, 80), 3, 20*time.Second)
			for _, dev := range b.ports() {
				must(t, b.lb.IP("link set "+dev+" down"))
				d.warns(dev, true)
				if dev == "wan" && o.xdpMode != "generic" {
					d.idles()
				}
				must(t, b.lb.IP("link set "+dev+" up"))
				d.warns(dev, false)
				flows(t, all, 15*time.Second) // TCP tries again after up to 6.4 s
			}
			for range 5 { // faster than anybody looks
				must(t, b.lb.IP("link set wan down"))
				must(t, b.lb.IP("link set wan up"))
			}
			flows(t, all, 15*time.Second)
			finish(t, all)
			d.settled()
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			b.nothingLeft(d)
		})
	}
}

func TestADeviceThatIsMadeAnewIsTakenUp(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel() // it mostly waits
			b := newBed(t, o)
			b.echoes(8000)
			d := b.start(b.tcp())
			works(t, b.client, hostPort(vip4, 80), 3)
			works(t, b.client, hostPort(vip6, 80), 3)
			all := streams(t, b.client, hostPort(vip4, 80), 3, 20*time.Second)

			must(t, b.lb.IP("link del wan"))
			d.warns("wan", true)
			d.idles()
			// With other hardware addresses, so that what was known of the old one is of no use.
			must(t, b.net.Veth(testnet.End{Space: b.client, Name: "eth0", MAC: "02:00:00:00:00:1c"},
				testnet.End{Space: b.lb, Name: "wan", MAC: "02:00:00:00:01:1c"}))
			must(t, b.lb.Address("wan", wan4+"/24", wan6+"/64"))
			must(t, b.client.Address("eth0", client4+"/24", client6+"/64"))
			must(t, b.client.Route("198.18.9.0/24", wan4))
			must(t, b.client.Route("2001:db8:9::/64", wan6))
			d.warns("wan", false)
			flows(t, all, 15*time.Second)
			finish(t, all)
			works(t, b.client, hostPort(vip4, 80), 3)
			works(t, b.client, hostPort(vip6, 80), 3)
			d.settled()

			// The side of the servers, too; the switch forgets the port with its device.
			must(t, b.lb.IP("link del lan"))
			d.warns("lan", true)
			b.plug("lb", testnet.End{Space: b.lb, Name: "lan", MAC: lanMAC})
			must(t, b.lb.Address("lan", lan4+"/24", lan6+"/64"))
			d.warns("lan", false)
			works(t, b.client, hostPort(vip4, 80), 3)
			works(t, b.client, hostPort(vip6, 80), 3)
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			b.nothingLeft(d)
		})
	}
}

// TestADeviceThatIsMadeAnewAtOnce: there is never a moment in which the name has no device for long enough to be seen, and the worker still has the
// socket of the former one. The port is said to be back once, when it is.
func TestADeviceThatIsMadeAnewAtOnce(t *testing.T) {
	const times = 10
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	d := b.start(b.tcp())
	back := func() int { return strings.Count(d.log.String(), "port is back") }
	var slowest time.Duration
	for i := range times {
		must(t, b.lb.IP("link del wan"))
		must(t, b.net.Veth(testnet.End{Space: b.client, Name: "eth0", MAC: clientMAC}, testnet.End{Space: b.lb, Name: "wan", MAC: wanMAC}))
		must(t, b.lb.Address("wan", wan4+"/24"))
		must(t, b.client.Address("eth0", client4+"/24"))
		must(t, b.client.Route("198.18.9.0/24", wan4))
		begun := time.Now()
		eventually(t, 10*time.Second, "the port is back", func() bool { return back() > i })
		slowest = max(slowest, time.Since(begun))
		works(t, b.client, hostPort(vip4, 80), 1)
	}
	t.Logf("the slowest was back after %v", slowest)
	if n := back(); n != times {
		t.Errorf("the port is back %d times of %d", n, times)
	}
}

func TestMTUChangesAreFollowed(t *testing.T) {
	const size = 300_000
	b := newBed(t, options{})
	for i := range b.servers {
		b.listen(i, 8000, func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
	}
	d := b.start(b.tcp())
	mtu := func(port string) (mtu int) {
		for _, p := range d.now().Ports {
			if p.Name == port {
				mtu = p.MTU
			}
		}
		return mtu
	}
	download := func(when string) {
		t.Helper()
		for _, vip := range []string{vip4, vip6} {
			c, err := dial(b.client, "tcp", hostPort(vip, 80))
			must(t, err)
			defer c.Close()
			must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
			if n, err := io.Copy(io.Discard, c); n != size || err != nil {
				t.Errorf("%s: %d bytes of %d from %s, %v\ndrops %s", when, n, size, vip, err, d.cli("drops"))
			}
		}
	}
	download("at 1500")
	// The servers still send 1500 bytes: they must be told.
	before := d.now().Verdicts.Answered
	must(t, b.lb.IP("link set wan mtu 1300"))
	eventually(t, 5*time.Second, "weir sees wan at 1300", func() bool { return mtu("wan") == 1300 })
	download("at 1300")
	if after := d.now().Verdicts.Answered; after == before {
		t.Error("no packet too big was answered")
	}
	must(t, b.lb.IP("link set wan mtu 1500"))
	eventually(t, 5*time.Second, "weir sees wan at 1500", func() bool { return mtu("wan") == 1500 })
	download("at 1500 again")
	// Larger than the chunks that were made for 1500: said and counted.
	if err := b.lb.IP("link set wan mtu 3000"); err != nil {
		t.Skipf("the rest needs a device that takes a larger MTU with a program: %v", err)
	}
	must(t, b.client.IP("link set eth0 mtu 3000"))
	d.warns("wan", true)
	fd := packetSocket(t, b.client, "eth0", 0)
	defer unix.Close(fd)
	large := pkttest.TCP(netip.MustParseAddrPort(hostPort(client4, 999)), netip.MustParseAddrPort(hostPort(vip4, 80))).SYN().Payload(make([]byte, 2500))
	for range 10 {
		_, err := unix.Write(fd, large.Frame(pkttest.MAC(clientMAC), pkttest.MAC(wanMAC)))
		must(t, err)
	}
	s := d.settled()
	b.accounted(s)
	if n := s.Drops["rx_dropped"]; n != 10 {
		t.Errorf("10 frames were too large, %d counted", n)
	}
	must(t, b.client.IP("link set eth0 mtu 1500"))
	must(t, b.lb.IP("link set wan mtu 1500"))
	d.warns("wan", false)
	download("at 1500 once more")
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestAnIPv6VIPOnTheLinkComesBackWithIt(t *testing.T) {
	const vip = "2001:db8::99"
	b := newBed(t, options{})
	b.echoes(8000)
	d := b.start(b.config("services:", b.service(vip, "port: 80, protocol: tcp, scheduler: rr", 8000)))
	works(t, b.client, hostPort(vip, 80), 1)
	must(t, b.lb.IP("link set wan down"))
	d.warns("wan", true)
	must(t, b.lb.IP("link set wan up"))
	must(t, b.lb.Address("wan", wan6+"/64")) // the kernel has dropped it, too
	eventually(t, 5*time.Second, "the VIP is on wan", func() bool {
		return strings.Contains(in(t, b.lb, "ip", "-6", "addr", "show", "dev", "wan"), vip+"/128")
	})
	in(t, b.client, "ip", "neigh", "flush", "dev", "eth0")
	works(t, b.client, hostPort(vip, 80), 1)
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if has(t, b.lb, vip) {
		t.Error("the VIP is left")
	}
}
