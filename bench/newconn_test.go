package bench

import (
	"testing"
	"time"

	"weir/conntrack"
)

// BenchmarkNewConn is the whole pipeline for packets that each open a connection, in a table of a million where as many end as begin. The
// clock that is handed in goes on by a microsecond for each packet, about as fast as they can be taken, so connections that live for a second
// are a million, and the expiry scan has to do what it would have to on a wire.
func BenchmarkNewConn(b *testing.B) {
	const live = 1 << 20
	x := newBalancer(b, live+live/4)
	x.timeouts[conntrack.UDP] = conntrack.Ticks(time.Second * live / 1e6)
	next := 0
	open := func() {
		for range vector {
			x.prepare(b, 0, requestOf(next))
			next = (next + 1) & (4*live - 1) // long over when it comes again
		}
		x.after(1000 * vector)
	}
	for range 2 * live / vector {
		open()
	}
	if n := x.engine.Table.Len(); n < live*9/10 || n > live*11/10 {
		b.Fatalf("%d connections, want %d", n, live)
	}
	before, _ := x.engine.Verdicts()
	b.ReportAllocs()
	b.ResetTimer()
	thread := startCPU()
	for n := 0; n < b.N; n += vector {
		open()
	}
	b.StopTimer()
	thread.stop(b, uint64((b.N+vector-1)/vector*vector))
	after, drops := x.engine.Verdicts()
	done := after.Forwarded - before.Forwarded
	if done != after.Received-before.Received {
		b.Fatalf("%d forwarded of %d: %v", done, after.Received-before.Received, drops)
	}
	if n := x.engine.Backend(0).Conns; n < after.Received {
		b.Fatalf("%d connections of %d packets", n, after.Received)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(done), "ns/packet")
}
