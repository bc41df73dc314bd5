package bench

import (
	"testing"
	"time"

	"weir/conntrack"
)

const million = 1 << 20

// opener sends packets that each open a connection. The clock goes on by a microsecond for each of them, about as fast as they can be taken, so
// that the expiry scan has to do what it would have to on a wire.
type opener struct {
	*balancer
	next  int
	frame []byte
}

// newOpener makes one over a table in which connections live for as long as it takes to open a million.
func newOpener(b *testing.B, capacity int) *opener {
	x := &opener{balancer: newBalancer(b, capacity), frame: requestFrame}
	x.timeouts[conntrack.UDP] = conntrack.Ticks(million * time.Microsecond)
	return x
}

func (x *opener) more(b *testing.B) {
	x.fill(b, 0, x.frame, vector)
	for i := range vector {
		aim(x.ports[0].Frame(i), 26, 34, x.next)
		x.next = (x.next + 1) & (4*million - 1) // long over when it comes again
	}
	x.after(1000 * vector)
}

// check fails unless every packet since before was forwarded on a connection of its own.
func (x *opener) check(b *testing.B) {
	b.Helper()
	v, drops := x.engine.Verdicts()
	if n := x.engine.Backend(0).Conns; v.Forwarded != v.Received || n != v.Received {
		b.Fatalf("%d packets, %d forwarded, %d connections: %v", v.Received, v.Forwarded, n, drops)
	}
}

// BenchmarkNewConn is the whole pipeline for packets that each open a connection, in a table of a million where as many end as begin.
func BenchmarkNewConn(b *testing.B) {
	x := newOpener(b, million*5/4)
	for range 2 * million / vector {
		x.more(b)
	}
	if n := x.engine.Table.Len(); n < million*9/10 || n > million*11/10 {
		b.Fatalf("%d connections, want a million", n)
	}
	b.ReportAllocs()
	b.ResetTimer()
	thread := startCPU()
	for n := 0; n < b.N; n += vector {
		x.more(b)
	}
	b.StopTimer()
	thread.stop(b, uint64(b.N))
	x.check(b)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
}

// BenchmarkNewConnWhileExpiring is the same while a million others, which have all expired at once, are taken out of the table. ended/packet is how many of
// them went for each one that came.
func BenchmarkNewConnWhileExpiring(b *testing.B) {
	const least = million / 8 // below it the table is filled again
	var x *opener
	var spent time.Duration
	old, ended := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	thread := startCPU()
	for n := 0; n < b.N; n += vector {
		if old < least {
			b.StopTimer()
			from := threadCPU()
			if x == nil {
				x = newOpener(b, 3*million)
			}
			x.now += 1e9
			for x.engine.Table.Len() > 0 || x.worker.Behind() {
				x.round()
			}
			x.timeouts[conntrack.UDP] *= 1000
			for range million / vector {
				x.more(b)
			}
			x.timeouts[conntrack.UDP] /= 1000
			x.now += int64(1001 * million * time.Microsecond)
			old = million
			spent += threadCPU() - from
			b.StartTimer()
		}
		before := x.engine.Table.Len()
		x.more(b)
		gone := before + vector - x.engine.Table.Len()
		old -= gone
		ended += gone
	}
	b.StopTimer()
	thread.from += spent
	thread.stop(b, uint64(b.N))
	x.check(b)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
	b.ReportMetric(float64(ended)/float64(b.N), "ended/packet")
}

// BenchmarkNewConnFlood is the same for SYNs that nobody follows up, when half-open connections have filled their part: each makes another give way.
func BenchmarkNewConnFlood(b *testing.B) {
	x := newOpener(b, million)
	x.frame = synFrame
	for x.engine.Table.HalfOpen() < x.engine.Table.HalfOpenCap() {
		x.more(b)
	}
	before := x.engine.Table.Evicted()
	b.ReportAllocs()
	b.ResetTimer()
	thread := startCPU()
	for n := 0; n < b.N; n += vector {
		x.more(b)
	}
	b.StopTimer()
	thread.stop(b, uint64(b.N))
	x.check(b)
	if n := x.engine.Table.Evicted() - before; n < uint64(b.N) {
		b.Fatalf("%d gave way to %d", n, b.N)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/packet")
}
