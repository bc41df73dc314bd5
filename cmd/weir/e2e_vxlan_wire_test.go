package main_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// objections is what tshark has against a capture: frames that are malformed, or with a wrong checksum. Of a quoted packet it would want the whole
// for its transport checksum.
func objections(t *testing.T, file string) string {
	t.Helper()
	needs(t, "tshark")
	r := command(t, exec.Command("tshark", "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-Y", "_ws.malformed || ip.checksum.status==0 || icmp.checksum.status==0 || icmpv6.checksum.status==0 || "+
			"!icmp && !icmpv6 && (tcp.checksum.status==0 || udp.checksum.status==0)"))
	if r.code != 0 {
		t.Fatalf("tshark: %v", r)
	}
	return strings.TrimSpace(r.out)
}

// looksRight records what is on the wire around the balancer while stations bridge, clients visit and packets do not fit, and has
// tshark judge it.
func looksRight(t *testing.T, b *overlayBed) {
	needs(t, "tcpdump", "tshark")
	under, outside, port := filepath.Join(b.dir, "underlay.pcap"), filepath.Join(b.dir, "client.pcap"), filepath.Join(b.dir, "access.pcap")
	stops := []func(){record(t, b.fabric, "lb", under), record(t, b.client, "eth0", outside), record(t, b.segments[0].access[0], "eth0", port)}
	bridging(t, b)
	t.Run("visits", func(t *testing.T) { visits(t, b) })
	t.Run("sizes", func(t *testing.T) { fitsTheUnderlay(t, b) })
	for _, stop := range stops {
		stop()
	}
	for _, file := range []string{under, outside, port} {
		if s := objections(t, file); s != "" {
			t.Errorf("tshark objects to %s:\n%s", filepath.Base(file), s)
		}
	}
	for _, x := range []struct {
		kind string
		ok   func(o outer) bool
	}{
		{"over IPv4", func(o outer) bool { return o.from.Addr().Is4() }},
		{"over IPv6", func(o outer) bool { return o.from.Addr().Is6() }},
		{"from the balancer", func(o outer) bool { return o.from.Addr().String() == ourVTEP4 }},
		{"TCP", func(o outer) bool { s, ok := segmentOf(o.inner); return ok && s.flags != 0 }},
		{"ARP", func(o outer) bool { return o.inner[12] == 8 && o.inner[13] == 6 }},
	} {
		n := 0
		for _, f := range readCapture(t, under).frames {
			if o, ok := untunnel(f, b.port); ok && x.ok(o) {
				n++
			}
		}
		if n < 10 {
			t.Errorf("only %d tunneled frames %s were there to be judged", n, x.kind)
		}
	}
}

// visits has a client outside use the services of all segments a little.
func visits(t *testing.T, b *overlayBed) {
	for _, seg := range b.segments {
		x := b.behind(t, seg)
		x.named(8000 + echoPort)
		for range 4 {
			c, _ := reach(t, x, seg.vip(), echoPort)
			must(t, pingPong(c, dialLimit))
			c.Close()
			if _, err := ask(x, hostPort(seg.vip(), closedPort), []byte("anyone?")); err == nil {
				t.Error("a port where nobody listens answers")
			}
		}
	}
}
