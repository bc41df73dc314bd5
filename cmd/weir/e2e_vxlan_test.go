package main_test

import (
	"testing"

	"weir/control/host/testnet"
)

// overlays are the segments of a bed: both families outside and inside, ports in two of them.
func overlays() []*overlay {
	return []*overlay{
		{vni: 5001, access: make([]*testnet.Space, 2)},
		{vni: 5002, gate6: true},
		{vni: 6001, over6: true},
		{vni: 6002, over6: true, gate6: true, access: make([]*testnet.Space, 1)},
	}
}

// TestVXLANBed has the kernel in the balancer's place: what is wanted of segments is what the kernel does.
func TestVXLANBed(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort, overlays()...)
	b.kernelEnd(t)
	bridging(t, b)
}

// TestVXLAN has one balancer for everything: nothing that one test does may disturb the next.
func TestVXLAN(t *testing.T) {
	segments := overlays()
	for _, seg := range segments {
		// The kernel's device goes on sending to the gateway of a station's last VTEP when it has moved, so its bed has none.
		seg.routed = true
	}
	b := newOverlayBed(t, options{}, vxlanPort, segments...)
	d := b.start(b.config(nil, b.allServices()))
	t.Run("bridge", func(t *testing.T) { looksRight(t, b) })
	t.Run("iperf3", func(t *testing.T) { iperfs(t, b) })
	t.Run("gateway", func(t *testing.T) { answersForItself(t, b) })
	t.Run("services", func(t *testing.T) { reachesServices(t, b, d) })
	t.Run("odd packets", func(t *testing.T) { takesWhatItMust(t, b, d) })
	t.Run("wrong frames", func(t *testing.T) { dropsWhatIsWrongInside(t, b, d) })
	t.Run("other VNIs", func(t *testing.T) { leavesOthersAlone(t, b, d) })
	t.Run("memory", func(t *testing.T) { remembers(t, b, d) })
	t.Run("another VNI", func(t *testing.T) { changesHands(t, b, d) })
	t.Run("ageing", func(t *testing.T) { forgets(t, b, d) })
	t.Run("moves", func(t *testing.T) { movesServers(t, b, d) })
	t.Run("vxlan-dr", func(t *testing.T) { answersPastUs(t, b, d) })
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
}

// TestVXLANAfterACrash has the next daemon find everything anew: stations, hosts, and the way to them.
func TestVXLANAfterACrash(t *testing.T) {
	b := newOverlayBed(t, options{}, vxlanPort, overlays()...)
	d := b.start(b.config(nil, b.allServices()))
	visits(t, b)
	d.kill()
	d = b.start(b.config(nil, b.allServices()))
	for _, seg := range b.segments {
		if len(seg.access) > 0 {
			pings(t, b, seg)
		}
	}
	for _, seg := range b.segments {
		if c, _ := reach(t, b.behind(t, seg), seg.vip(), echoPort); pingPong(c, dialLimit) != nil {
			t.Errorf("%v: a connection through the next daemon fails", seg)
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.cleared(d)
}

// TestVXLANOnPort8472 has Linux's own port, with the other ways to get frames in and out, and with two workers that share what they learn.
func TestVXLANOnPort8472(t *testing.T) {
	two := options{driver: "af_xdp", queues: 2}
	for name, o := range map[string]options{drivers[1].String(): drivers[1], drivers[2].String(): drivers[2], "two workers": two} {
		t.Run(name, func(t *testing.T) {
			b := newOverlayBed(t, o, 8472, overlays()[0], overlays()[3])
			d := b.start(b.config(nil, b.allServices()))
			bridging(t, b)
			visits(t, b)
			provoked := map[string]uint64{"same_side": 2, "static_mac": 2, "split_horizon": 2} // by bridging, in each segment
			for reason, n := range d.settled().Drops {
				if n != provoked[reason] {
					t.Errorf("%d frames were dropped, not %d: %s", n, provoked[reason], reason)
				}
			}
			workers := view[[]struct{ Received uint64 }](d, "workers")
			if len(workers) != max(o.queues, 1) || workers[len(workers)-1].Received == 0 {
				t.Errorf("workers received %v", workers)
			}
		})
	}
}
