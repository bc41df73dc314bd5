package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
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
			t.Run("entropy", func(t *testing.T) { spreads(t, b, seg) })
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
	const roamer, neighbor, quiet, from = "02:00:00:00:66:42", "02:00:00:00:66:43", "02:00:00:00:66:45", "02:00:00:00:66:44"
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
	w.expect("known here alone, behind VTEP 1", "host1", from, quiet, "access0")
	w.expect("flooded by VTEP 0", "host0", quiet, tenantMAC(0), "host1") // by VTEP 0 itself
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
			Lost    int `json:"lost_packets"`
			Packets int `json:"packets"`
		} `json:"sum"`
	} `json:"end"`
	Error string `json:"error"`
}

// iperfs moves data between an access port and the host behind each VTEP, both ways. iperf3 stops counting when the sender is done, so
// what came is less than what was sent. The datagrams fit into a socket's buffer, lest a reader that waits for a processor lose some: each
// takes 2304 bytes of twice the window. The host sends until the other end says that it has enough, up to twice as much.
func iperfs(t *testing.T, b *overlayBed) {
	needs(t, "iperf3")
	for _, seg := range b.segments {
		if len(seg.access) == 0 {
			continue
		}
		for i, h := range seg.hosts {
			t.Run(fmt.Sprintf("%v, VTEP %d", seg, i), func(t *testing.T) {
				_, log := background(t, h, "iperf3", "-s", "--forceflush")
				runs := 0
				for _, to := range []string{tenant4(i), tenant6(i)} {
					for direction, flags := range map[string][]string{"to the host": nil, "from the host": {"--reverse"}} {
						var tcp, udp iperf
						run := func(r *iperf, args ...string) {
							runs++ // it listens anew for each
							eventually(t, dialLimit, "iperf3 listens", func() bool { return strings.Count(log.String(), "Server listening") == runs })
							must(t, json.Unmarshal([]byte(in(t, seg.access[0], "iperf3", slices.Concat([]string{"-J", "-c", to}, args, flags)...)), r))
						}
						run(&tcp, "--bytes", "16M")
						if tcp.End.Received.Bytes < 8<<20 || tcp.Error != "" {
							t.Errorf("%s %s: %d bytes came, %s", to, direction, tcp.End.Received.Bytes, tcp.Error)
						}
						run(&udp, "--udp", "--bitrate", "10M", "--bytes", "100K", "--window", "200K")
						if x := udp.End.Sum; x.Packets < 60 || x.Lost > 0 || udp.Error != "" {
							t.Errorf("%s %s: %d of %d datagrams lost, %s", to, direction, x.Lost, x.Packets, udp.Error)
						}
						t.Logf("%s %s: %.0f Mbit/s", to, direction, tcp.End.Received.Rate/1e6)
					}
				}
			})
		}
	}
}

// spreads wants different flows to take different source ports in the underlay, and each flow but one.
func spreads(t *testing.T, b *overlayBed, seg *overlay) {
	const flows = 64
	var mu sync.Mutex
	ports := map[uint16]map[uint16]int{} // a flow's source port -> those of the underlay
	frames(t, b.servers[0], "eth0", func(f []byte) {
		o, ok := untunnel(f, b.portOf(seg))
		if !ok || o.from.Addr() != netip.MustParseAddr(seg.ours()) {
			return
		}
		if s, ok := segmentOf(o.inner); ok && s.dst.Port() == 9 {
			mu.Lock()
			defer mu.Unlock()
			if ports[s.src.Port()] == nil {
				ports[s.src.Port()] = map[uint16]int{}
			}
			ports[s.src.Port()][o.from.Port()]++
		}
	})
	for i := range flows {
		c, err := dial(seg.access[0], "udp", hostPort([]string{tenant4(0), tenant6(0)}[i%2], 9))
		must(t, err)
		defer c.Close()
		for range 3 {
			_, _ = c.Write([]byte("discard this")) // or be told that nobody listens
		}
	}
	eventually(t, dialLimit, "all flows come", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ports) == flows
	})
	mu.Lock()
	defer mu.Unlock()
	distinct := map[uint16]bool{}
	for flow, all := range ports {
		if len(all) != 1 {
			t.Errorf("flow %d was sent from ports %v", flow, all)
		}
		for p := range all {
			distinct[p] = true
		}
	}
	if len(distinct) < flows-8 { // of 16384 ports two flows may have the same
		t.Errorf("%d flows were sent from %d ports", flows, len(distinct))
	}
}
