package main_test

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control"
	"weir/dataplane/packet/pkttest"
)

// TestListIsIPVSAdms compares with what ipvsadm -Ln prints of the same services, in all that its columns can hold: long addresses that push the
// columns on, both protocols, flags in ipvsadm's own order, weights, and connections that are active and not.
func TestListIsIPVSAdms(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	for i := range b.servers {
		b.answerUDP(i, 5353, func(q []byte) []byte { return q })
	}
	d := b.start(b.config("conntrack: {max_connections: 4096}", "services:", `
  - {vip: 198.18.9.9, port: 80, protocol: tcp, scheduler: rr, backends: [
      {address: 198.18.1.11, port: 8000, weight: 100}, {address: 198.18.1.12, port: 8000}, {address: 198.18.1.13, port: 8000, weight: 0}]}
  - {vip: 198.18.9.9, port: 443, protocol: tcp, scheduler: sh, flags: [sh-port, sh-fallback], backends: []}
  - {vip: 198.18.9.9, port: 53, protocol: udp, backends: [{address: 198.18.1.11, port: 5353, weight: 65535}]}
  - {vip: "2001:db8:9::9", port: 80, protocol: tcp, scheduler: lc, backends: [
      {address: "2001:db8:1::11", port: 8000}, {address: "2001:db8:1:ffff:ffff:ffff:ffff:ffff", port: 65535}]}`))
	for range 3 { // two to the first server, one of them closed, and one to the second
		c, err := dial(b.client, "tcp", hostPort(vip4, 80))
		must(t, err)
		defer c.Close()
		must(t, pingPong(c, dialLimit))
		if s := d.now().Services[0]; s.Conns == 3 {
			must(t, c.Close())
		}
	}
	c, err := dial(b.client, "udp", hostPort(vip4, 53))
	must(t, err)
	defer c.Close()
	must(t, pingPong(c, dialLimit))
	const want = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  198.18.9.9:80 rr
  -> 198.18.1.11:8000             Masq    100    1          1         
  -> 198.18.1.12:8000             Masq    1      1          0         
  -> 198.18.1.13:8000             Masq    0      0          0         
TCP  198.18.9.9:443 sh (sh-fallback,sh-port)
UDP  198.18.9.9:53 wlc
  -> 198.18.1.11:5353             Masq    65535  0          1         
TCP  [2001:db8:9::9]:80 lc
  -> [2001:db8:1::11]:8000        Masq    1      0          0         
  -> [2001:db8:1:ffff:ffff:ffff:ffff:ffff]:65535 Masq    1      0          0         
`
	d.settled()
	if got := d.cli("list", "-o", "ipvsadm"); got != want {
		t.Errorf("weir list -o ipvsadm:\n%s\nipvsadm -Ln:\n%s", got, want)
	}
}

// TestNamesOfJSON holds every name that tools rely on against what the views give.
func TestNamesOfJSON(t *testing.T) {
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	d := b.start(b.config("services:", b.service(vip4, "name: web, port: 8000-8010, protocol: tcp, scheduler: sh, flags: [sh-port]", 8000)))
	works(t, b.client, hostPort(vip4, 8000), 1)
	const traffic = "conns in_packets in_bytes out_packets out_bytes"
	const rate = "name vip port protocol conns in_packets in_bytes out_packets out_bytes"
	for _, x := range []struct{ view, path, names string }{
		{"stats", "", "generation verdicts sent drops ports services"},
		{"stats", "verdicts", "received forwarded answered punted consumed dropped held"},
		{"stats", "ports 0", "name received sent"},
		{"stats", "services 0", "name vip port protocol scheduler backends " + traffic},
		{"stats", "services 0 backends 0", "name address port weight active inactive persistent " + traffic},
		{"stats", "drops", "no_backend table_full no_connection ip_checksum"},
		{"list", "0", "name vip port port_to protocol scheduler flags backends " + traffic},
		{"list", "0 backends 0", "name address port forward weight active inactive persistent " + traffic},
		{"conns", "0", "protocol client virtual backend local state expires_s in_packets out_packets"},
		{"rates", "", "seconds services"},
		{"rates", "services 0", rate + " backends"},
		{"rates", "services 0 backends 0", strings.Replace(rate, "vip port protocol", "address port", 1)},
		{"ports", "0", "name interface driver mode setup up queues mac mtu vlan received sent send_lost rx_lost wakeups"},
		{"workers", "0", "worker cpu wait received vectors rounds sleeps held chunks"},
		{"status", "", "version pid started config generation loaded connections capacity last_reload last_reload_ok"},
	} {
		args := []string{}
		if x.view == "rates" {
			args = []string{"--interval", "10ms"}
		}
		v := view[any](d, x.view, args...)
		for _, step := range strings.Fields(x.path) {
			switch at := v.(type) {
			case map[string]any:
				v = at[step]
			case []any:
				if len(at) == 0 {
					t.Fatalf("%s: nothing at %q", x.view, x.path)
				}
				v = at[0]
			}
		}
		object, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%s has no object at %q: %v", x.view, x.path, v)
		}
		for _, name := range strings.Fields(x.names) {
			if _, has := object[name]; !has {
				t.Errorf("%s lacks %q at %q: %v", x.view, name, x.path, object)
			}
		}
	}
	// Tables for eyes: every view has its header and what there is.
	for view, words := range map[string]string{
		"list": "PROTO SCHED WEIGHT tcp 198.18.9.9:8000-8010 web sh-port -> 198.18.1.11:8000 nat", "stats": "generation RECEIVED FORWARDED 198.18.9.9:8000-8010 198.18.1.11:8000",
		"rates": "CONNS/S 198.18.9.9:8000 198.18.1.11:8000", "conns": "EXPIRE STATE TCP 198.18.9.9:8000 198.18.1.11:8000", "drops": "REASON FRAMES",
		"ports": "PORT MODE wan lan af_xdp native 1500 " + wanMAC, "workers": "WORKER WAIT adaptive", "status": "version pid generation connections 1048576 " + d.file,
	} {
		out := d.cli(view)
		for _, w := range strings.Fields(words) {
			if !strings.Contains(out, w) {
				t.Errorf("weir %s lacks %q:\n%s", view, w, out)
			}
		}
	}
}

// TestViewsTellNumbers holds every view to what really happened.
func TestViewsTellNumbers(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	d := b.start(b.web("rr"))
	old := streams(t, b.client, hostPort(vip4, 80), 3, dialLimit)
	other := streams(t, b.client, hostPort(vip6, 80), 3, dialLimit)

	t.Run("rates", func(t *testing.T) {
		r := view[control.Rates](d, "rates", "--interval", "500ms")
		if len(r.Services) != 2 || r.Seconds < 0.5 || r.Seconds > 5 {
			t.Fatalf("%+v", r)
		}
		for _, s := range r.Services {
			// Each of three streams sends at most 200 messages of 17 bytes a second, and each message is two or three packets of 52 bytes and more.
			if s.Conns != 0 || s.InPackets < 30 || s.InPackets > 3000 || s.OutPackets < 30 || s.InBytes < 52*s.InPackets || s.InBytes > 100*s.InPackets {
				t.Errorf("%+v", s)
			}
			var sum float64
			for _, x := range s.Backends {
				sum += x.InPackets
			}
			if diff := sum - s.InPackets; len(s.Backends) != 3 || diff > 0.01 || diff < -0.01 {
				t.Errorf("the servers' %v packets a second are not the service's %v", sum, s.InPackets)
			}
		}
		if out := d.cli("rates", "--interval", "50ms"); len(strings.Split(strings.TrimSpace(out), "\n")) != 1+2*4 {
			t.Errorf("a line is missing:\n%s", out)
		}
		if r := d.try("rates", "--interval", "2h"); r.code == 0 {
			t.Errorf("an interval of two hours: %v", r)
		}
	})
	finish(t, slices.Concat(old, other))
	d.settled()

	t.Run("conns", func(t *testing.T) {
		all := view[[]control.ConnView](d, "conns")
		if len(all) != 6 {
			t.Fatalf("%d connections of six", len(all))
		}
		for i, x := range slices.Concat(old, other) {
			local := x.conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
			at := slices.IndexFunc(all, func(c control.ConnView) bool { return c.Client == local })
			if at < 0 {
				t.Fatalf("%v is not listed", local)
			}
			c := all[at]
			vip, server := netip.MustParseAddr(vip4), netip.MustParseAddr(server4(i%3))
			if i >= 3 {
				vip, server = netip.MustParseAddr(vip6), netip.MustParseAddr(server6(i%3))
			}
			// The client closed first: FIN_WAIT, and TIME_WAIT after the server's FIN. Both last 120 s.
			if c.Protocol != "tcp" || c.Virtual != netip.AddrPortFrom(vip, 80) || c.Backend != netip.AddrPortFrom(server, 8000) || c.Local != local ||
				c.State != "TIME_WAIT" && c.State != "FIN_WAIT" || c.ExpiresS <= 60 || c.ExpiresS > 120 || c.InPackets < 4 || c.OutPackets < 3 {
				t.Errorf("connection %d: %+v", i, c)
			}
		}
		if n := len(view[[]control.ConnView](d, "conns", "--limit", "2")); n != 2 {
			t.Errorf("--limit 2 gives %d", n)
		}
		if out := d.cli("conns"); strings.Count(out, "\n") != 7 || strings.Count(out, "TCP ") != 6 {
			t.Errorf("conns:\n%s", out)
		}
	})

	t.Run("drops", func(t *testing.T) {
		raw := packetSocket(t, b.client, "eth0", 0)
		defer unix.Close(raw)
		from, to := netip.MustParseAddrPort(client4+":5000"), netip.MustParseAddrPort(vip4+":80")
		for _, p := range []pkttest.Packet{
			pkttest.TCP(from, to).SYN().BadIPChecksum(), pkttest.TCP(from, to).SYN().BadIPChecksum(), pkttest.TCP(from, to).RST(), pkttest.TCP(from, to).SYN().FIN(),
		} {
			_, err := unix.Write(raw, p.Frame(pkttest.MAC(clientMAC), pkttest.MAC(wanMAC)))
			must(t, err)
		}
		eventually(t, 5*time.Second, "four drops", func() bool { return d.now().Verdicts.Dropped == 4 })
		got := view[map[string]uint64](d, "drops")
		for reason, n := range got {
			if n != map[string]uint64{"ip_checksum": 2, "no_connection": 1, "tcp_flags": 1}[reason] {
				t.Errorf("%d %s", n, reason)
			}
		}
		doc, err := os.ReadFile("../../docs/packet-walk.md")
		must(t, err)
		for reason := range got {
			if !strings.Contains(string(doc), "| `"+reason+"` |") {
				t.Errorf("docs/packet-walk.md does not explain %s", reason)
			}
		}
		if out := d.cli("drops"); out != "REASON         FRAMES\nip_checksum    2\nno_connection  1\ntcp_flags      1\n" {
			t.Errorf("drops:\n%s", out)
		}
	})

	t.Run("ports, workers, status", func(t *testing.T) {
		s := d.settled()
		for i, p := range view[[]map[string]any](d, "ports") {
			if p["name"] != b.ports()[i] || p["driver"] != "af_xdp" || p["mode"] != "native" || p["up"] != true || p["mtu"] != 1500.0 ||
				p["mac"] != []string{wanMAC, lanMAC}[i] || p["received"] != float64(s.Ports[i].Received) || p["sent"] != float64(s.Ports[i].Sent) {
				t.Errorf("port %d: %v", i, p)
			}
		}
		if v := s.Verdicts; s.Ports[0].Received+s.Ports[1].Received != v.Received || s.Ports[0].Sent+s.Ports[1].Sent != v.Forwarded+v.Answered+s.Sent {
			t.Errorf("ports %+v contradict %+v and %d sent besides", s.Ports, v, s.Sent)
		}
		w := view[[]control.WorkerView](d, "workers")
		if len(w) != 1 || w[0].Wait != "adaptive" || w[0].Received != s.Verdicts.Received || w[0].Vectors == 0 || w[0].Vectors > w[0].Received || w[0].Sleeps == 0 {
			t.Errorf("workers %+v", w)
		}
		x := view[control.Status](d, "status")
		if x.PID != d.pid() || x.Config != d.file || x.Generation != 1 || x.Connections != 6 || x.Capacity != 1<<20 || len(x.Warnings) != 0 || time.Since(x.Started) > time.Minute {
			t.Errorf("status %+v", x)
		}
		if v := regexp.MustCompile(`^weir (\S+)\n$`).FindStringSubmatch(run(t, "--version").out); v == nil || v[1] != x.Version {
			t.Errorf("--version says %q, the daemon %q", v, x.Version)
		}
	})
}
