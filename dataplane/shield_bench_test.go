package dataplane_test

import (
	"encoding/binary"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// BenchmarkCookie is what a SYN costs that is answered by a cookie or a challenge, each of another port, and an ACK that brings back a wrong one.
func BenchmarkCookie(b *testing.B) {
	for _, name := range []string{"v4", "v6"} {
		a := families[name]
		s := guarded(name, nil)
		challenged := guarded(name, func(s *Service) { s.Challenge = true })
		syn := pkttest.TCP(a.client, s.vip).SYN().Seq(9).TCPOptions(linuxSYN(1460, 7, 0)...).Frame(routerMAC, wanMAC)
		for _, c := range []struct {
			what  string
			s     serving
			frame []byte
		}{
			{"cookie", s, syn}, {"challenge", challenged, syn},
			{"stray", s, pkttest.TCP(a.client, s.vip).Seq(10).Ack(77).Frame(routerMAC, wanMAC)},
		} {
			b.Run(c.what+" "+name, func(b *testing.B) { flood(b, c.s, syn, c.frame) })
		}
	}
}

// flood gives the worker of a bed with a service frames of one kind, 64 at a time.
func flood(b *testing.B, s serving, first, frame []byte) {
	one := newBed(b, s.option(b))
	table, err := conntrack.New(conntrack.Options{Capacity: 1024, Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	e := NewEngine(Options{Table: table, MaxBackends: 64})
	snap := one.snap
	if err := e.Publish(&snap); err != nil {
		b.Fatal(err)
	}
	pool, err := packet.NewPool(make([]byte, 1024*2048), 2048)
	if err != nil {
		b.Fatal(err)
	}
	r := mem.NewRecycler(pool)
	w := e.AddWorker(pool, []driver.Queue{r, mem.NewRecycler(pool)})
	now := int64(1e12)
	r.Fill(first, 1) // a cookie is out
	w.Round(now)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += 64 {
		binary.BigEndian.PutUint32(frame[6:], uint32(n)) // the source MAC address, which nobody looks at
		r.Fill(frame, 64)
		now += 1000
		w.Round(now)
	}
}
