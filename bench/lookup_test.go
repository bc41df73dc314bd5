package bench

import (
	"fmt"
	"testing"

	"weir/conntrack"
)

// tuples of connection i: IPv4 UDP through NAT.
func tuples(i int) (c conntrack.Conn) {
	const vip, server, proto = 198<<24 | 18<<16 | 9<<8 | 9, 198<<24 | 18<<16 | 1<<8 | 10, 17
	a, port := conntrack.Addr{Lo: 100<<24 + uint64(i>>15)}, uint32(1024+i&0x7fff)
	v, s := conntrack.Addr{Lo: vip}, conntrack.Addr{Lo: server}
	c.Forward = conntrack.Tuple{Src: a, Dst: v, Ports: port<<16 | 53, Space: proto}
	c.ForwardTo = conntrack.Tuple{Src: a, Dst: s, Ports: port<<16 | 5353, Space: proto}
	c.Reply = conntrack.Tuple{Src: s, Dst: a, Ports: 5353<<16 | port, Space: proto}
	c.ReplyTo = conntrack.Tuple{Src: v, Dst: a, Ports: 53<<16 | port, Space: proto}
	return c
}

// BenchmarkLookup is the connection table alone: vectors of 64 tuples, each of a random one of all connections, both directions in turn. What
// drawing a tuple costs is in it, a few nanoseconds.
func BenchmarkLookup(b *testing.B) {
	for _, conns := range []int{1_000, 100_000, 1_000_000, 10_000_000} {
		var table *conntrack.Table
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			if table == nil { // it is asked for several times
				var err error
				if table, err = conntrack.New(conntrack.Options{Capacity: conns, Workers: 1, Secret: [2]uint64{1, 2}}); err != nil {
					b.Fatal(err)
				}
				to := conntrack.DefaultTimeouts()
				for i := range conns {
					c := tuples(i)
					if _, _, o := table.Insert(0, &c, 0, &to, 0); o != conntrack.Inserted {
						b.Fatalf("connection %d: %v", i, o)
					}
				}
			}
			r := random(conns)
			var q [vector]conntrack.Query
			b.ReportAllocs()
			b.ResetTimer()
			thread := startCPU()
			for n := 0; n < b.N; n += vector {
				for i := range q {
					c := r.next()
					p := &q[i].Tuple
					a, port := conntrack.Addr{Lo: 100<<24 + uint64(c>>15)}, uint32(1024+c&0x7fff)
					if i&1 == 0 {
						*p = conntrack.Tuple{Src: a, Dst: conntrack.Addr{Lo: 198<<24 | 18<<16 | 9<<8 | 9}, Ports: port<<16 | 53, Space: 17}
					} else {
						*p = conntrack.Tuple{Src: conntrack.Addr{Lo: 198<<24 | 18<<16 | 1<<8 | 10}, Dst: a, Ports: 5353<<16 | port, Space: 17}
					}
				}
				table.Lookup(q[:])
				for i := range q {
					if q[i].Ref == 0 {
						b.Fatal("not found")
					}
				}
				table.Quiesce(0)
			}
			thread.stop(b, uint64(b.N))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
		})
		if table != nil {
			table.Close()
		}
	}
}
