package dataplane_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// handOver puts a successor's engine and worker in the place of b's: over the same table, memory and rings, with what the former ones say as text.
func (b *bed) handOver(port func(int) int) (received []uint64) {
	b.t.Helper()
	said, err := json.Marshal([]any{b.engine.Surrender(b.now), b.worker.Surrender()})
	if err != nil {
		b.t.Fatal(err)
	}
	var e EngineState
	var w WorkerState
	if err := json.Unmarshal(said, &[]any{&e, &w}); err != nil {
		b.t.Fatal(err)
	}
	if n := len(w.Chunks()); n != b.worker.Holding() {
		b.t.Fatalf("%d chunks are said to be held, %d are", n, b.worker.Holding())
	}
	b.engine = NewEngine(Options{Table: b.engine.Table, MaxBackends: 64})
	b.publish()
	b.worker = b.engine.AddWorker(b.pool, []driver.Queue{b.ports[wan], b.ports[lan]})
	b.engine.Resume(&e, b.now)
	return b.worker.Resume(&w, b.now, port)
}

func same(i int) int { return i }

// TestHeldFramesGoOn: what waits for a next hop leaves by the successor once that is known, translated as it was; the successor asks for the hop itself.
func TestHeldFramesGoOn(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Neighbors = neighbors(web.Addr(), web6.Addr()) })
	run(t, b, []step{
		{name: "waits", in: pkttest.TCP(client, vip).SYN().Bytes(), verdict: Held},
		{name: "waits, too", in: pkttest.TCP(netip.AddrPortFrom(client.Addr(), 9), vip).SYN().Bytes(), verdict: Held},
		{name: "in the other family", in: pkttest.TCP(client6, vip6).SYN().Bytes(), verdict: Held},
	})
	received := b.handOver(same)
	if v, _ := b.engine.Verdicts(); v.Held != 3 || v.Received != 3 || b.worker.Holding() != 3 {
		t.Fatalf("the successor holds %d: %+v", b.worker.Holding(), v)
	}
	if received[wan] != 3 || received[lan] != 0 {
		t.Errorf("of what it holds %d frames came by the ports, want all 3 by the first", received)
	}
	var wants []Want
	b.engine.Wants(func(w Want) { wants = append(wants, w) })
	if len(wants) != 2 {
		t.Errorf("control is asked for %+v, want the server's two addresses", wants)
	}
	b.now += 10e6
	b.round()
	if b.worker.Holding() != 3 {
		t.Fatalf("%d wait, while nobody knows the hop", b.worker.Holding())
	}
	b.snap.Neighbors = neighbors()
	b.publish()
	b.round()
	var left [][]byte
	for f := b.take(lan); f != nil; f = b.take(lan) {
		left = append(left, f[14:])
	}
	for _, want := range [][]byte{
		pkttest.TCP(client, web).SYN().TTL(63).Bytes(), pkttest.TCP(netip.AddrPortFrom(client.Addr(), 9), web).SYN().TTL(63).Bytes(),
		pkttest.TCP(client6, web6).SYN().TTL(63).Bytes(),
	} {
		if !slices.ContainsFunc(left, func(f []byte) bool { return bytes.Equal(f, want) }) {
			t.Errorf("%s did not leave", pkttest.String(want))
		}
	}
	if v, _ := b.engine.Verdicts(); v.Held != 0 || v.Forwarded != 3 {
		t.Errorf("in the end %+v", v)
	}
}

// TestHeldFramesOfNoPort: the successor has no port for them any more. They are dropped, not lost.
func TestHeldFramesOfNoPort(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Neighbors = neighbors(web.Addr()) })
	run(t, b, []step{{name: "waits", in: pkttest.TCP(client, vip).SYN().Bytes(), verdict: Held}})
	b.handOver(func(int) int { return -1 })
	if v, drops := b.engine.Verdicts(); v.Held != 0 || v.Received != 1 || drops[DropNoRoute] != 1 {
		t.Errorf("%+v, %d without a route", v, drops[DropNoRoute])
	}
	b.round()
}

// TestFragmentsGoOn: datagrams of which the former process has seen the first fragment, and of which it has one that waits for the first.
func TestFragmentsGoOn(t *testing.T) {
	b := newBed(t)
	in, out := datagram(client, dns, client, dnsReal, 7)
	swapped, arrives := datagram(client, dns, client, dnsReal, 8)
	run(t, b, []step{
		{name: "the first", in: in[0], verdict: Forwarded, port: lan, want: out[:1]},
		{name: "of another one the last", in: swapped[2], verdict: Held},
	})
	b.handOver(same)
	run(t, b, []step{
		{name: "the second follows the first", in: in[1], verdict: Forwarded, port: lan, want: out[1:2]},
		{name: "once", in: in[1], verdict: Dropped, drop: DropFragmentDuplicate},
		{name: "and the third", in: in[2], verdict: Forwarded, port: lan, want: out[2:]},
		{name: "the last has not waited in vain", wait: 1e6, in: swapped[0], verdict: Forwarded, port: lan, want: [][]byte{arrives[0], arrives[2]}},
	})
	b.handOver(same)
	run(t, b, []step{{name: "nor has it been forgotten", in: swapped[1], verdict: Forwarded, port: lan, want: arrives[1:2]}})
}

// TestFragmentsOfABackendThatIsNoMore: the last ID of all was given back while a datagram of its backend's was still in pieces. The successor's
// snapshot ends before it.
func TestFragmentsOfABackendThatIsNoMore(t *testing.T) {
	b := newBed(t)
	in, out := datagram(client, dns, client, dnsReal, 7)
	run(t, b, []step{{name: "the first", in: in[0], verdict: Forwarded, port: lan, want: out[:1]}})
	e := b.engine.Surrender(b.now)
	if len(e.Fragments) != 1 {
		t.Fatalf("%d datagrams are in pieces", len(e.Fragments))
	}
	e.Fragments[0].ID, e.Fragments[0].Backend = 8, uint32(len(b.engine.Snapshot().Backends))
	b.handOver(same)
	b.engine.Resume(&e, b.now)
	in, _ = datagram(client, dns, client, dnsReal, 8)
	run(t, b, []step{{name: "its second waits for a first", in: in[1], verdict: Held}})
}

// TestWhatIsSaidIsNotBelieved: a state that nobody can have had makes nobody read beyond a frame, and loses no chunk.
func TestWhatIsSaidIsNotBelieved(t *testing.T) {
	b := newBed(t, func(s *Snapshot, _ *Engine) { s.Neighbors = neighbors(web.Addr()) })
	frame := HeldFrame{Desc: packet.Desc{Addr: 256, Len: 60}, Headers: packet.Headers{Kind: packet.KindIPv4, L3: 270, L4: 290, L3End: 3000}}
	long := HeldFrame{Desc: packet.Desc{Addr: 2048, Len: 4000}}
	for _, s := range []WorkerState{
		{Hops: []HeldHop{{At: 0, Port: lan, Frames: []HeldPacket{{HeldFrame: frame}}}}},
		{Hops: []HeldHop{{At: 1000, Port: lan, Frames: []HeldPacket{{HeldFrame: frame}}}}},
		{Hops: []HeldHop{{At: -1, Port: lan, Frames: []HeldPacket{{HeldFrame: long}}}}},
		{Hops: []HeldHop{{At: 1, Port: lan, Inside: true, VNI: 5001, Frames: []HeldPacket{{HeldFrame: long, Own: true}}}}},
		{Early: []EarlyFrame{{HeldFrame: long}}},
		{Asked: []AskedServer{{Time: -1}, {Time: 4}}},
	} {
		for range s.Chunks() {
			if _, ok := b.pool.Get(); !ok {
				t.Fatal("no chunk is free")
			}
		}
		b.worker.Resume(&s, b.now, same)
		b.now += 2e9
		b.round()
		if b.worker.Holding() != 0 {
			t.Errorf("%+v: %d wait", s, b.worker.Holding())
		}
	}
}
