package dataplane

import (
	"net/netip"
	"testing"

	"weir/conntrack"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
	"weir/dataplane/route"
	"weir/dataplane/sched"
	"weir/dataplane/steer"
)

// A worker that is in the midst of a vector when a server gets a free ID, and another worker makes a connection to it, takes what the server
// answers by the newer snapshot: its own knows nobody of that ID. It is the one test that needs a look inside: a worker takes the newest
// snapshot whenever it begins.
func TestConnectionOfANewerSnapshot(t *testing.T) {
	table, err := conntrack.New(conntrack.Options{Capacity: 64, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	client, vip, server := netip.MustParseAddrPort("198.18.0.7:4000"), netip.MustParseAddrPort("198.18.9.9:80"), netip.MustParseAddrPort("198.18.0.10:8000")
	addr, _ := AddrOf(server.Addr())
	timeouts := conntrack.DefaultTimeouts()
	load := new(sched.Load)
	rules, err := steer.Compile(&steer.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := func(backends ...Backend) *Snapshot {
		return &Snapshot{
			Ports: []Port{{Name: "p", MAC: [6]byte{2, 0, 0, 0, 1, 1}, MTU: 1500, Filtered: true}}, Backends: backends, Services: NewServices(nil), Steer: rules,
			Routes:    route.NewTable([]route.Route{{To: netip.MustParsePrefix("198.18.0.0/24"), Hops: []route.Hop{{Weight: 1}}}}),
			Neighbors: route.NewNeighbors([]route.Neighbor{{Addr: client.Addr(), MAC: [6]byte{2, 0, 0, 0, 1, 7}, Valid: true}, {Addr: server.Addr(), MAC: [6]byte{2, 0, 0, 0, 1, 10}, Valid: true}}),
		}
	}
	before, after := snapshot(Backend{}), snapshot(Backend{Timeouts: &timeouts, Load: load, Live: true, Port: server.Port(), Addr: addr})
	e := NewEngine(Options{Table: table, MaxBackends: 4})
	if err := e.Publish(before); err != nil {
		t.Fatal(err)
	}
	pool, err := packet.NewPool(make([]byte, 16*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	port, err := mem.NewPort(pool, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	w := e.AddWorker(pool, []driver.Queue{port})
	w.now, w.tick = 1e12, conntrack.TickOf(1e12)

	// What the other worker does meanwhile.
	if err := e.Publish(after); err != nil {
		t.Fatal(err)
	}
	tuple := func(from, to netip.AddrPort) conntrack.Tuple {
		src, _ := AddrOf(from.Addr())
		dst, _ := AddrOf(to.Addr())
		return conntrack.Tuple{Src: src, Dst: dst, Ports: uint32(from.Port())<<16 | uint32(to.Port()), Space: packet.ProtoTCP}
	}
	conn := conntrack.Conn{Forward: tuple(client, vip), ForwardTo: tuple(client, server), Reply: tuple(server, client), ReplyTo: tuple(vip, client)}
	if _, _, o := table.Insert(0, &conn, packet.TCPSyn, &timeouts, w.tick); o != conntrack.Inserted {
		t.Fatal(o)
	}

	// The rest of process, whose first act was to look.
	for i, ip := range [][]byte{
		pkttest.TCP(server, client).SYN().Ack(1).Bytes(), pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes(), // through the stages
		pkttest.TCP(server, client).Seq(1).Ack(1).Bytes(), pkttest.TCP(client, vip).Seq(1).Ack(1).Bytes(), // plain enough for express
	} {
		if !port.Inject(pkttest.Frame(ip, pkttest.MAC("02:00:00:00:01:0a"), pkttest.MAC("02:00:00:00:01:01"))) {
			t.Fatal("no room")
		}
		v := &w.v
		v.n, v.port, v.descs = port.Receive(w.descs[:]), 0, w.descs[:1]
		w.parse(v)
		w.lookup(v)
		if w.express(v); v.rest.n > 0 {
			w.prepare(v)
			w.schedule(v)
			w.resolve(v)
			w.rewrite(v)
			w.finish(v)
		}
		w.flush(0)
		port.Flush()
		out := make([]byte, 2048)
		if n, ok := port.Take(out); !ok || n < 54 {
			t.Fatalf("packet %d did not leave: %d bytes", i, n)
		}
		if w.snap != before {
			t.Fatal("the vector goes on by another snapshot than it began with")
		}
	}
	var sum Verdicts
	var drops [NumDrops]uint64
	if w.Counters.Add(&sum, &drops); sum.Received != 4 || sum.Forwarded != 4 {
		t.Errorf("%+v, want 4 forwarded", sum)
	}
}
