package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
	"weir/vxlan"
)

// TestPeel plays the same frames out of a tunnel into two engines, into the second with an outer TTL of 1. Whoever ends a tunnel does not mind, but
// glance does not take such a frame for plain: there decap sees to all. What leaves and all that is counted and learned must be the same.
func TestPeel(t *testing.T) {
	for name, edit := range map[string]func(*vxlan.SegmentOptions){
		"learning":     func(*vxlan.SegmentOptions) {},
		"not learning": func(o *vxlan.SegmentOptions) { o.Learning = false },
		"strict":       func(o *vxlan.SegmentOptions) { o.Policy.Strict = true },
		"no checksums": func(o *vxlan.SegmentOptions) { o.Policy.NoChecksum = true },
		"no gateway":   func(o *vxlan.SegmentOptions) { o.Gateway = nil },
		"two peers":    func(o *vxlan.SegmentOptions) { o.Peers = append(o.Peers, vxlan.PeerOptions{Addr: second}) },
		"clamping":     func(o *vxlan.SegmentOptions) { o.Clamp = vxlan.ClampAll },
		"keeping tags": func(o *vxlan.SegmentOptions) { o.Policy.KeepTags, o.Access[0].VLAN = true, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var beds [2]*bed
			for i := range beds {
				beds[i] = newBed(t, append(shaped(t, edit), func(s *Snapshot, _ *Engine) {
					s.Overlay.Counts[0].Peers = append(s.Overlay.Counts[0].Peers, make([]PlaceCounters, 1))
				})...)
				o := beds[i].snap.Overlay
				addr, _ := vxlan.AddrOf(tenant.Addr())
				o.Hosts.Learn(0, addr, false, hostMAC, vxlan.Confirmed, vxlan.SecondOf(beds[i].now))
				o.Stations.Learn(0, hostMAC, vxlan.AtPeer(0), vxlan.SecondOf(beds[i].now))
				o.Stations.Learn(0, localMAC, vxlan.AtAccess(0), vxlan.SecondOf(beds[i].now)) // until it ages
				for flow := range uint16(3) {
					beds[i].fromClient(pkttest.TCP(netip.AddrPortFrom(client.Addr(), client.Port()+flow), netip.MustParseAddrPort("198.18.9.9:90")).SYN().Bytes())
				}
				beds[i].round()
			}
			left := func(b *bed) (frames [][]byte) {
				for _, port := range []int{wan, lan} {
					for f := b.take(port); f != nil; f = b.take(port) {
						frames = append(frames, f)
					}
				}
				return frames
			}
			left(beds[0])
			left(beds[1])
			forwarded := 0
			for step := range 300 {
				var ttls []uint8
				for range 1 + r.IntN(6) {
					ip := fromTunnel(r)
					ttls = append(ttls, ip[8])
					beds[0].fromClient(ip)
					ip = slices.Clone(ip)
					ip[8] = 1
					binary.BigEndian.PutUint16(ip[10:], 0)
					binary.BigEndian.PutUint16(ip[10:], ^onesSum(ip[:20]))
					beds[1].fromClient(ip)
				}
				for _, b := range beds {
					b.now = beds[0].now
					b.round()
				}
				a, b := left(beds[0]), left(beds[1])
				if !slices.EqualFunc(a, b, bytes.Equal) {
					t.Fatalf("step %d (TTLs %v): left %s\nby way of decap %s", step, ttls, shown(a), shown(b))
				}
				forwarded += len(a)
				if x, y := learned(beds[0]), learned(beds[1]); x != y {
					t.Fatalf("step %d: %s\nby way of decap %s", step, x, y)
				}
				beds[0].now += int64(r.IntN(3e9))
			}
			if forwarded < 300 && name != "strict" && name != "no gateway" {
				t.Errorf("only %d frames left", forwarded)
			}
		})
	}
}

// learned is all that frames of tunnels are counted in, and the stations that are known.
func learned(b *bed) string {
	o := b.snap.Overlay
	total, drops := o.Counts[0].Sum()
	text := fmt.Sprintf("%+v\n%+v %+v\npeers %+v %+v\nport %+v\nstations", state(b), total, drops, SumPlace(o.Counts[0].Peers[0]), SumPlace(o.Counts[0].Peers[1]), SumPlace(o.Counts[0].Access[0]))
	for _, mac := range []vxlan.MAC{hostMAC, hostMAC + 1, localMAC, gatewayMAC} {
		q := []vxlan.Query{{MAC: mac}}
		o.Stations.Lookup(q)
		text += fmt.Sprint(" ", q[0].Place)
	}
	return text
}

// onesSum is the one's complement sum of words.
func onesSum(b []byte) uint16 {
	s := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	s = s&0xffff + s>>16
	return uint16(s&0xffff + s>>16)
}

// fromTunnel is an outer packet, mostly from a known station to the gateway, of an established connection.
func fromTunnel(r *rand.Rand) []byte {
	flow := uint16(r.IntN(3))
	p := pkttest.TCP(tenant, netip.AddrPortFrom(client.Addr(), client.Port()+flow)).Seq(1).Ack(1).Size(40 + r.IntN(30))
	switch r.IntN(16) {
	case 0:
		p = p.SYN()
	case 1:
		p = p.TTL(1)
	case 2:
		p = p.BadIPChecksum()
	case 3:
		p = p.Options(1, 1, 1, 0)
	case 4:
		p = pkttest.UDP(tenant, client)
	case 5:
		p = p.Fragment(uint32(r.IntN(3)), r.IntN(2)*8, r.IntN(2) == 0)
	}
	dst, src := gatewayMAC, hostMAC
	switch r.IntN(16) {
	case 0:
		dst = localMAC
	case 1:
		dst = vxlan.Broadcast
	case 2:
		src = hostMAC + 1
	case 3:
		src = gatewayMAC
	case 4:
		src = vxlan.Broadcast
	}
	frame := inFrame(dst, src, 0x0800, p.Bytes())
	switch r.IntN(16) {
	case 0:
		frame = tag(uint16(r.IntN(2)), frame)
	case 1:
		frame = frame[:r.IntN(len(frame))]
	case 2:
		frame = append(frame, make([]byte, 20)...)
	}
	h := make([]byte, 8, 8+len(frame))
	h[0] = 8
	binary.BigEndian.PutUint32(h[4:], tenantVNI<<8)
	switch r.IntN(16) {
	case 0:
		h[r.IntN(8)] ^= 1 << r.IntN(8)
	}
	from, to := netip.AddrPortFrom(peerVTEP, 50000), netip.AddrPortFrom(vtep, 4789)
	switch r.IntN(16) {
	case 0, 1:
		from = netip.AddrPortFrom(second, 50000)
	case 2:
		from = netip.AddrPortFrom(vtep, 50000)
	case 3:
		to = netip.AddrPortFrom(vip.Addr(), 4789)
	}
	out := pkttest.UDP(from, to).Payload(append(h, frame...))
	switch r.IntN(8) {
	case 0:
	case 1:
		out = out.BadChecksum()
	default:
		out = out.NoChecksum()
	}
	if r.IntN(8) == 0 {
		out = out.TOS(uint8(r.IntN(256)))
	}
	b := out.Bytes()
	if r.IntN(16) == 0 {
		at := 24 + r.IntN(2)
		b[at] ^= 1 << r.IntN(8) // the UDP length
	}
	return b
}
