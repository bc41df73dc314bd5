package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// step is one packet in and what must come of it. Each starts where the one before it left the bed.
type step struct {
	name    string
	in      []byte // IP packet; nil: only a round
	server  bool   // it comes from the server's side
	wait    int64  // nanoseconds that pass before
	verdict Verdict
	drop    Drop
	want    [][]byte // IP packets that leave, in any order of ports
	port    int      // the port they leave by
	to      []byte   // the MAC address they leave for; nil: that of web, or of the router
	loose   bool     // the IP ID may differ
}

func run(t *testing.T, b *bed, steps []step) {
	t.Helper()
	for _, s := range steps {
		b.now += s.wait
		if s.in != nil {
			if s.server {
				b.fromServer(s.in)
			} else {
				b.fromClient(s.in)
			}
		}
		b.round()
		after, drops := b.engine.Verdicts()
		got := verdictOf(b.before, after)
		if got != s.verdict {
			t.Errorf("%s: verdict %v, want %v (drops %v)", s.name, got, s.verdict, dropsOf(b.drops, drops))
		}
		if s.verdict == Dropped && drops[s.drop] != b.drops[s.drop]+1 {
			t.Errorf("%s: dropped as %v, want %v", s.name, dropsOf(b.drops, drops), s.drop)
		}
		for _, want := range s.want {
			frame := b.take(s.port)
			if frame == nil {
				t.Errorf("%s: nothing left, want %s", s.name, pkttest.String(want))
				continue
			}
			checkLink(t, s.name, s.port, s.to, frame)
			ip := frame[14:]
			pkttest.Check(t, ip)
			if s.loose && ip[0]>>4 == 4 {
				copy(ip[4:6], want[4:6])
				pkttest.Seal(ip)
			}
			if !bytes.Equal(ip, want) {
				t.Errorf("%s:\n got %s\n     %x\nwant %s\n     %x", s.name, pkttest.String(ip), ip, pkttest.String(want), want)
			}
		}
		for port := range b.ports {
			if extra := b.take(port); extra != nil {
				t.Errorf("%s: left by port %d in addition: %s", s.name, port, pkttest.String(extra[14:]))
			}
		}
	}
}

// checkLink verifies the Ethernet header.
func checkLink(t *testing.T, name string, port int, dst, frame []byte) {
	t.Helper()
	usual, src := routerMAC, wanMAC
	if port == lan {
		usual, src = webMAC, lanMAC
	}
	if dst == nil {
		dst = usual
	}
	if !bytes.Equal(frame[:6], dst) || !bytes.Equal(frame[6:12], src) {
		t.Errorf("%s: Ethernet %x -> %x, want %x -> %x", name, frame[6:12], frame[:6], []byte(src), dst)
	}
	want := map[byte]uint16{4: packet.EtherTypeIPv4, 6: packet.EtherTypeIPv6}[frame[14]>>4]
	if got := binary.BigEndian.Uint16(frame[12:]); got != want {
		t.Errorf("%s: Ethernet type %#04x, want %#04x", name, got, want)
	}
}

func verdictOf(before, after Verdicts) Verdict {
	for v, n := range map[Verdict]uint64{
		Forwarded: after.Forwarded - before.Forwarded, Answered: after.Answered - before.Answered, Punted: after.Punted - before.Punted,
		Consumed: after.Consumed - before.Consumed, Dropped: after.Dropped - before.Dropped,
	} {
		if n > 0 && after.Received > before.Received {
			return v
		}
	}
	if after.Held > before.Held {
		return Held
	}
	return Pending
}

func dropsOf(before, after [NumDrops]uint64) (d []Drop) {
	for i := range after {
		if after[i] > before[i] {
			d = append(d, Drop(i))
		}
	}
	return d
}

// alone turns HostAnswers on: no kernel stands behind.
func alone(s *Snapshot, e *Engine) {
	e.HostAnswers = true
}

func one(p ...pkttest.Packet) (b [][]byte) {
	for _, x := range p {
		b = append(b, x.Bytes())
	}
	return b
}

var payload = []byte("GET / HTTP/1.0\r\n\r\n")
