package dataplane_test

import (
	"net/netip"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
)

// TestAnswersThatAreCut: an error that is longer than the link takes leaves in pieces, each in a chunk of its own until it has left.
func TestAnswersThatAreCut(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Ports[wan].MTU = 500 })
	const answers = 3
	for range answers { // in one vector
		b.fromClient(pkttest.TCP(client, vip).SYN().TTL(1).Size(490).Bytes())
	}
	b.round()
	bytes := map[uint16]int{} // of each datagram, by identification
	for f := b.take(wan); f != nil; f = b.take(wan) {
		p := f[14:]
		if packet.Sum(p[:20]) != 0 || int(p[2])<<8|int(p[3]) != len(p) {
			t.Errorf("left: %s", pkttest.String(p))
		}
		bytes[uint16(p[4])<<8|uint16(p[5])] += len(p) - 20
	}
	if len(bytes) != answers {
		t.Errorf("pieces of %d answers left, want %d", len(bytes), answers)
	}
	for id, n := range bytes {
		if want := 8 + 490; n != want {
			t.Errorf("%d bytes of answer %d left, want %d", n, id, want)
		}
	}
}

// TestFragmentsOfAForgottenServer: the last piece of a datagram comes when its server was removed and its ID is given back, which for a one-packet
// service is a second later. It has nowhere to go.
func TestFragmentsOfAForgottenServer(t *testing.T) {
	for _, way := range []Forward{ForwardDR, ForwardIPIP} {
		b := newBed(t, serving{vip: netip.MustParseAddrPort("198.18.9.20:80"), protocol: packet.ProtoUDP, servers: []Backend{server(web, way)},
			edit: func(s *Service) { s.OnePacket = true }}.option(t), func(s *Snapshot, _ *Engine) {
			s.Routes = route.NewTable([]route.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Hops: []route.Hop{{Via: web.Addr(), Port: lan, Weight: 1}}}})
		})
		pieces := pkttest.UDP(client, netip.MustParseAddrPort("198.18.9.20:80")).Payload(make([]byte, 1000)).Cut(7, 504)
		if out, _ := b.through(false, pieces[0]); out == nil {
			t.Fatalf("%v: the first piece was dropped as %v", way, b.dropped())
		}
		b.snap.Backends = append([]Backend(nil), b.snap.Backends...)
		b.snap.Backends[ownServers] = Backend{}
		b.publish()
		if out, _ := b.through(false, pieces[1]); out != nil || b.dropped() != DropBackendGone {
			t.Errorf("%v: left as %s, dropped as %v", way, pkttest.String(out), b.dropped())
		}
	}
}
