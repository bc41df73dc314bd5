package main_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// forgets has a segment forget a station that is silent.
func forgets(t *testing.T, b *overlayBed, d *daemon) {
	const station, from = "02:00:00:00:68:03", "02:00:00:00:68:fe"
	seg := b.segments[0]
	w := b.watch(t, seg)
	d.reload(b.config(func(o *overlay) string { return "ageing: 1s" }, b.allServices()))
	w.expect("a station behind VTEP 0", "host0", everyone, station, "access0", "access1", "host1")
	n := 0
	eventually(t, 10*time.Second, "the station is forgotten", func() bool {
		n++
		text := fmt.Sprint("where is it? ", n)
		w.send("access0", station, from, text)
		w.settle()
		return w.counts(text)["vtep1"] == 1
	})
	w.send("access0", staticMAC, from, "the static one is not")
	w.settle()
	if got := w.counts("the static one is not"); got["vtep1"] != 1 || got["vtep0"] != 0 {
		t.Errorf("to a static station: came to %v", got)
	}
	d.reload(b.config(nil, b.allServices()))
}

// changesHands gives a segment's number and ports to another VNI in one reload: it begins with nothing.
func changesHands(t *testing.T, b *overlayBed, d *daemon) {
	const station, from = "02:00:00:00:68:06", "02:00:00:00:68:fd"
	seg, heir := b.segments[0], 5999
	w := b.watch(t, seg)
	w.expect("a station behind VTEP 0", "host0", everyone, station, "access0", "access1", "host1")
	var mu sync.Mutex
	came := map[string]int{}
	for i, s := range b.servers {
		frames(t, s, "eth0", func(f []byte) {
			if o, ok := untunnel(f, b.port); ok && int(o.header[4])<<16|int(o.header[5])<<8|int(o.header[6]) == heir {
				if text, ok := probeText(o.inner); ok {
					mu.Lock()
					defer mu.Unlock()
					came[fmt.Sprint(text, " at VTEP ", i)]++
				}
			}
		})
	}
	services := "services:\n"
	for _, other := range b.segments[1:] {
		services += b.services(other, "vxlan")
	}
	d.reload(strings.Replace(b.config(nil, services), fmt.Sprintf("vni: %d\n", seg.vni), fmt.Sprintf("vni: %d\n", heir), 1))
	before := d.now().Drops["vxlan_vni"]
	w.emit("access0", probe(station, from, "to a stranger"))
	w.emit("access0", probe(everyone, from, "to all"))
	eventually(t, dialLimit, "both VTEPs are asked", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return came["to all at VTEP 0"] == 1 && came["to all at VTEP 1"] == 1
	})
	mu.Lock()
	if came["to a stranger at VTEP 0"] != 1 || came["to a stranger at VTEP 1"] != 1 {
		t.Errorf("what one VNI had learned another knows: %v", came)
	}
	mu.Unlock()
	if n := d.now().Drops["vxlan_vni"] - before; n != 0 {
		t.Errorf("%d packets of the VNI that is gone were taken", n)
	}
	d.reload(b.config(nil, b.allServices()))
	w = b.watch(t, seg) // the other has seen a VNI that is not the segment's
	w.settle()
	w.expect("and the other way", "access0", station, from, "access1", "host0", "vtep0", "vtep1") // VTEP 1 has it behind VTEP 0
	x := b.behind(t, seg)
	x.named(8000 + echoPort)
	c, _ := reach(t, x, seg.vip(), echoPort)
	must(t, pingPong(c, dialLimit))
}

// remembers is about what a segment knows of its stations while the configuration changes.
func remembers(t *testing.T, b *overlayBed, d *daemon) {
	for _, seg := range b.segments {
		if len(seg.access) == 0 {
			continue
		}
		others := []string{"access1"}[:len(seg.access)-1]
		const from = "02:00:00:00:68:ff"
		set := func(line string) {
			d.reload(b.config(func(o *overlay) string {
				if o == seg {
					return line
				}
				return ""
			}, b.allServices()))
		}
		t.Run(seg.String()+", over a reload", func(t *testing.T) {
			const station = "02:00:00:00:68:01"
			w := b.watch(t, seg)
			w.expect("a station behind VTEP 0", "host0", everyone, station, append([]string{"access0", "host1"}, others...)...)
			set("ageing: 301s")
			w.expect("goes to VTEP 0 alone", "access0", station, from, "host0", "vtep0")
			set("")
			w.expect("goes to VTEP 0 alone again", "access0", station, from, "host0", "vtep0")
		})
		t.Run(seg.String()+", a peer that goes", func(t *testing.T) {
			const station = "02:00:00:00:68:02"
			w := b.watch(t, seg)
			w.expect("a station behind VTEP 1", "host1", everyone, station, append([]string{"access0", "host0"}, others...)...)
			set(fmt.Sprintf("peers: [%q]\nfdb: []", seg.theirs(0)))
			before := d.settled().Drops["vxlan_peer"]
			after := func(what, place string, want ...string) { // what is broadcast from a place comes to these; the next one is behind it
				w.send(place, everyone, from[:len(from)-1]+place[len(place)-1:], what)
				w.send(place, everyone, from[:len(from)-1]+place[len(place)-1:], what+", next")
				eventually(t, dialLimit, what, func() bool { return len(w.counts(what+", next")) == len(want) })
				w.came(what, what, want...)
			}
			after("to all peers but one", "access0", append([]string{"host0", "vtep0"}, others...)...)
			after("from no peer", "host1", "host0")
			eventually(t, dialLimit, "what it sends is dropped", func() bool { return d.now().Drops["vxlan_peer"] >= before+2 })
			set("")
			w.settle()
			// Where VTEP 0 has heard the station through its tunnel to the other, its bridge does not send the frame back into a tunnel.
			w.expect("nothing is known of what was behind it", "access0", station, from, append([]string{"host1", "vtep0", "vtep1"}, others...)...)
		})
		t.Run(seg.String()+", a peer in another's place", func(t *testing.T) {
			const station = "02:00:00:00:68:05"
			w := b.watch(t, seg)
			set(fmt.Sprintf("peers: [%q]\nfdb: []", seg.theirs(0)))
			w.send("host0", everyone, station, "a station behind VTEP 0")
			eventually(t, dialLimit, "it is heard", func() bool { return w.counts("a station behind VTEP 0")["access0"] == 1 })
			set(fmt.Sprintf("peers: [%q]\nfdb: []", seg.theirs(1)))
			set("")
			w.settle()
			w.expect("nothing is known of what was behind it", "access0", station, from, append([]string{"host0", "vtep0", "vtep1"}, others...)...)
		})
		t.Run(seg.String()+", flapping", func(t *testing.T) {
			const station = "02:00:00:00:68:04"
			w := b.watch(t, seg)
			for i := range 6 { // learned, and moved five times: it is behind VTEP 1
				w.expect(fmt.Sprint("there it is ", i), fmt.Sprint("host", i%2), everyone, station, append([]string{"access0", fmt.Sprint("host", 1-i%2)}, others...)...)
			}
			w.expect("goes to VTEP 1 alone", "access0", station, from, "host1", "vtep1")
			w.expect("not once more", "host0", everyone, station, append([]string{"access0", "host1"}, others...)...)
			w.send("access0", station, from, "it stays where it is")
			w.settle()
			if got := w.counts("it stays where it is"); got["vtep1"] != 1 || got["vtep0"] != 0 {
				t.Errorf("a station that moves too often is not held: %v", got)
			}
		})
	}
}

// answersForItself has every station ask for the gateway's hardware address.
func answersForItself(t *testing.T, b *overlayBed) {
	for _, seg := range b.segments {
		t.Run(seg.String(), func(t *testing.T) {
			gate := tenantGate4
			if seg.gate6 {
				gate = tenantGate6
			}
			for _, s := range append(append([]*testnet.Space{}, seg.hosts...), seg.access...) {
				must(t, s.IP("neigh flush dev eth0"))
				_ = command(t, s.Command("ping", "-n", "-c1", "-W1", gate)) // what it answers to that is another matter
				if out := in(t, s, "ip", "neigh", "show", gate); !strings.Contains(out, "lladdr "+gateMAC) {
					t.Errorf("%s knows the gateway as %q", s.Name, out)
				}
			}
		})
	}
}
