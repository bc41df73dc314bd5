package dataplane_test

import (
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
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
