package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"weir/control/host/testnet"
)

const everyone = "ff:ff:ff:ff:ff:ff"

// bridging is what a segment with access ports must be to its stations, be it made by the balancer or by the kernel.
func bridging(t *testing.T, b *overlayBed) {
	for _, seg := range b.segments {
		if len(seg.access) == 0 {
			continue
		}
		t.Run(seg.String(), func(t *testing.T) {
			t.Run("flood", func(t *testing.T) { floods(t, b, seg) })
			t.Run("learn", func(t *testing.T) { learns(t, b, seg) })
			t.Run("ping", func(t *testing.T) { pings(t, b, seg) })
		})
	}
}

// floods has frames of no known station come to everyone exactly once, and never from tunnel to tunnel. What one VTEP floods to the other goes
// past the balancer, so a second copy would be its.
func floods(t *testing.T, b *overlayBed, seg *overlay) {
	w := b.watch(t, seg)
	var others []string
	for i := range seg.access[1:] {
		others = append(others, fmt.Sprint("access", i+1))
	}
	for i, dst := range []struct{ name, mac string }{
		{"broadcast", everyone}, {"IPv4 multicast", "01:00:5e:00:00:05"}, {"IPv6 multicast", "33:33:00:00:00:05"},
		{"reserved multicast", "01:80:c2:00:00:14"}, {"unknown unicast", "02:00:00:00:66:77"},
	} {
		w.expect(dst.name+" from a port", "access0", dst.mac, "02:00:00:00:66:01", append([]string{"host0", "host1", "vtep0", "vtep1"}, others...)...)
		for v := range seg.hosts {
			w.expect(fmt.Sprintf("%s behind VTEP %d", dst.name, v), fmt.Sprint("host", v), dst.mac, fmt.Sprintf("02:00:00:00:66:%x%x", v+1, i),
				append([]string{"access0", fmt.Sprint("host", 1-v)}, others...)...)
		}
	}
}

// learns has the source of a frame tell where its station is, until it moves. Static entries never do.
func learns(t *testing.T, b *overlayBed, seg *overlay) {
	w := b.watch(t, seg)
	const roamer, neighbor, from = "02:00:00:00:66:42", "02:00:00:00:66:43", "02:00:00:00:66:44"
	var others []string
	for i := range seg.access[1:] {
		others = append(others, fmt.Sprint("access", i+1))
	}
	all := func(places ...string) []string { return append(places, others...) }
	w.expect("not known yet", "access0", roamer, from, all("host0", "host1", "vtep0", "vtep1")...)
	w.expect("a station behind VTEP 0", "host0", everyone, roamer, all("access0", "host1")...)
	w.expect("goes to VTEP 0 alone", "access0", roamer, from, "host0", "vtep0")
	w.expect("moves behind VTEP 1", "host1", everyone, roamer, all("access0", "host0")...)
	w.expect("goes to VTEP 1 alone", "access0", roamer, from, "host1", "vtep1")
	w.expect("moves to a port", "access0", everyone, roamer, all("host0", "host1", "vtep0", "vtep1")...)
	w.expect("comes to the port", "host0", roamer, from, "access0")
	w.expect("stays on the port it came from", "access0", roamer, from)
	w.expect("moves back behind VTEP 0", "host0", everyone, roamer, all("access0", "host1")...)
	w.expect("goes to VTEP 0 alone again", "access0", roamer, from, "host0", "vtep0")
	if len(others) > 0 {
		w.expect("a station on another port", "access1", everyone, neighbor, "access0", "host0", "host1", "vtep0", "vtep1")
		w.expect("goes from port to port alone", "access0", neighbor, from, "access1")
	}
	w.expect("static", "access0", staticMAC, from, "host1", "vtep1")
	w.expect("a static station's frame from elsewhere", "host0", everyone, staticMAC, "host1") // which VTEP 0 sent there itself
	w.expect("static still", "access0", staticMAC, from, "vtep1")                              // where the bridge has learned that it came from elsewhere
}

// pings wants every pair of stations to reach each other by both families, with the largest packet, and to know each other's true addresses by
// ARP and ND.
func pings(t *testing.T, b *overlayBed, seg *overlay) {
	needs(t, "ping")
	all := map[int]*testnet.Space{}
	for i, h := range seg.hosts {
		all[i] = h
	}
	for i, h := range seg.access {
		all[10+i] = h
	}
	for i, s := range all {
		must(t, s.IP("neigh flush dev eth0"))
		for j := range all {
			if i == j || i < 10 && j < 10 {
				continue
			}
			for _, x := range []struct {
				addr   string
				header int
			}{{tenant4(j), 28}, {tenant6(j), 48}} {
				in(t, s, "ping", "-n", "-c1", "-W2", x.addr)
				in(t, s, "ping", "-n", "-c2", "-i0.01", "-W2", "-M", "do", "-s", fmt.Sprint(seg.mtu()-x.header), x.addr)
				if out := in(t, s, "ip", "neigh", "show", x.addr); !strings.Contains(out, "lladdr "+tenantMAC(j)) {
					t.Errorf("station %d knows %s as %q", i, x.addr, out)
				}
			}
		}
	}
}

// iperf is what iperf3 says at the end of a run.
type iperf struct {
	End struct {
		Received struct {
			Bytes int64   `json:"bytes"`
			Rate  float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Lost    int     `json:"lost_packets"`
			Packets int     `json:"packets"`
			Rate    float64 `json:"bits_per_second"`
		} `json:"sum"`
	} `json:"end"`
}

// iperfs moves data between an access port and the host behind each VTEP, both ways. iperf3 stops counting when the sender is done, so
// what came is less than what was sent. The datagrams fit into a socket's buffer, lest a reader that waits for a processor lose some.
func iperfs(t *testing.T, b *overlayBed, seg *overlay) {
	needs(t, "iperf3")
	for i, h := range seg.hosts {
		_, log := background(t, h, "iperf3", "-s", "--forceflush")
		eventually(t, dialLimit, "iperf3 listens", func() bool { return strings.Contains(log.String(), "Server listening") })
		for _, x := range []struct {
			name string
			args []string
		}{
			{"TCP to the host", []string{"-n", "16M"}}, {"TCP from the host", []string{"-n", "16M", "-R"}},
			{"UDP to the host", []string{"-u", "-b", "10M", "-n", "300K"}}, {"UDP from the host", []string{"-u", "-b", "10M", "-n", "300K", "-R"}},
		} {
			for _, to := range []string{tenant4(i), tenant6(i)} {
				var r iperf
				out := in(t, seg.access[0], "iperf3", append([]string{"-J", "-c", to}, x.args...)...)
				must(t, json.Unmarshal([]byte(out), &r))
				if udp := x.args[0] == "-u"; udp && (r.End.Sum.Packets < 200 || r.End.Sum.Lost > r.End.Sum.Packets/100) {
					t.Errorf("VTEP %d, %s, %s: %d of %d datagrams lost", i, to, x.name, r.End.Sum.Lost, r.End.Sum.Packets)
				} else if !udp && r.End.Received.Bytes < 1<<20 {
					t.Errorf("VTEP %d, %s, %s: %s", i, to, x.name, out)
				} else if !udp {
					t.Logf("VTEP %d, %s, %s: %.0f Mbit/s", i, to, x.name, r.End.Received.Rate/1e6)
				}
			}
		}
	}
}
