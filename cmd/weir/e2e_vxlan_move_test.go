package main_test

import (
	"fmt"
	"testing"
	"time"

	"weir/control/host/testnet"
)

// movesServers moves a server from one VTEP to the other while connections to it are open: by a reload with another static entry, and back by
// what the server itself says.
func movesServers(t *testing.T, b *overlayBed, d *daemon) {
	for _, seg := range b.segments {
		t.Run(seg.String(), func(t *testing.T) {
			d := d.with(t)
			dev := fmt.Sprintf("mv%d", seg.vni)
			h := b.tenant(seg, b.servers[0], dev, fmt.Sprintf("%dmv", seg.vni), mover)
			must(t, b.servers[0].IP(fmt.Sprintf("link set %s master br%d", dev, seg.vni)))
			x := b.with(t)
			x.servers = []*testnet.Space{h}
			x.listen(0, 8000+movedPort, echo)
			at := func(vtep int) string { // a configuration that knows where the server is, in this segment
				return b.config(func(o *overlay) string {
					if o != seg {
						return ""
					}
					return fmt.Sprintf("fdb: [{mac: %q, vtep: %q}, {mac: %q, vtep: %q}]", tenantMAC(mover), seg.theirs(vtep), staticMAC, seg.theirs(1))
				}, b.allServices())
			}
			d.reload(at(0))
			all := streams(t, b.client, hostPort(seg.vip(), movedPort), 4, 10*time.Second)

			b.migrate(seg, dev, b.servers[0], b.servers[1])
			d.reload(at(1))
			flows(t, all, 5*time.Second)

			d.reload(b.config(nil, b.allServices()))
			flows(t, all, 5*time.Second)
			b.migrate(seg, dev, b.servers[1], b.servers[0])
			must(t, h.IP("neigh flush dev eth0"))
			// The request for an address goes to all, who learn of it who asks.
			eventually(t, dialLimit, "the link is up again", func() bool { return command(t, h.Command("ping", "-n", "-c1", "-W1", seg.host(0))).code == 0 })
			flows(t, all, 5*time.Second)
			finish(t, all)
		})
	}
}

// migrate plugs a device of a segment's bridge into that of another VTEP. The other end keeps its addresses and connections.
func (b *overlayBed) migrate(seg *overlay, dev string, from, to *testnet.Space) {
	b.t.Helper()
	must(b.t, from.IP("link set "+dev+" netns "+to.File))
	must(b.t, to.IP(fmt.Sprintf("link set %s master br%d", dev, seg.vni)))
	must(b.t, to.IP("link set "+dev+" up"))
}
