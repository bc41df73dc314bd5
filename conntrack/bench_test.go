package conntrack

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var sizes = []int{1 << 10, 1 << 16, 1 << 20} // small, medium and far beyond the caches

// filled is a table of n IPv4 NAT connections in memory like that of `weir run`.
func filled(b *testing.B, n int, v6 bool) *Table {
	b.Helper()
	tab := newTable(b, n, 1)
	for i := range n {
		mustInsert(b, tab, nat(i, v6, udp), 0, 0)
	}
	return tab
}

// Vectors of 64 and 256 random packets, half of them replies; then what a packet of a connection costs in all: Lookup and Track.
func BenchmarkLookup(b *testing.B) {
	for _, conns := range sizes {
		for _, v6 := range []bool{false, true} {
			tab := filled(b, conns, v6)
			keys := make([]Tuple, 1<<18) // the tuples are read in order, so they cost little themselves
			misses := make([]Tuple, len(keys))
			rng := random(88172645463325252)
			for i := range keys {
				c := nat(int(rng.below(uint32(conns))), v6, udp)
				if keys[i] = c.Forward; i&1 != 0 {
					keys[i] = c.Reply
				}
				misses[i] = keys[i]
				misses[i].Ports ^= 0x8000
			}
			run := func(name string, vector int, keys []Tuple, track, hit bool) {
				b.Run(fmt.Sprintf("conns=%d/v6=%v/vector=%d/%s", conns, v6, vector, name), func(b *testing.B) {
					q, to := make([]Query, vector), DefaultTimeouts()
					b.ReportAllocs()
					at := 0
					for n := 0; n < b.N; n += vector {
						for i := range q {
							q[i].Tuple = keys[at+i]
						}
						at = (at + vector) & (len(keys) - 1)
						tab.Lookup(q)
						if (q[0].Ref != 0) != hit {
							b.Fatal("wrong answer")
						}
						if track {
							for i := range q {
								tab.Track(q[i].Ref, 0, &to, Tick(n>>20))
							}
						}
						tab.Quiesce(0)
					}
				})
			}
			run("hit", 64, keys, false, true)
			run("hit", 256, keys, false, true)
			run("miss", 64, misses, false, false)
			run("hit+track", 64, keys, true, true)
		}
	}
}

// What a connection costs to insert and what to unlink, 64 at a time, random ones of a table that is full but for these. The times are of the
// thread, so what else the machine does stays out of them; ns/op is both together, as the clock has it.
func BenchmarkInsert(b *testing.B) {
	const together = 64
	for _, conns := range sizes {
		tab, to := filled(b, conns, false), DefaultTimeouts()
		refs := make([]Ref, conns)
		for i := range refs {
			c := nat(i, false, udp)
			refs[i] = tab.lookup(c.Forward)
		}
		next := conns
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			rng := random(1)
			var new [together]Conn
			var at [together]int
			var insert, unlink time.Duration
			for n := 0; n < b.N; n += together {
				for i := range new {
					new[i] = nat(next, false, udp)
					next++
					at[i] = int(rng.below(uint32(conns/together)))*together + i
				}
				t0 := threadTime(b)
				for _, k := range at {
					tab.Unlink(0, refs[k])
				}
				t1 := threadTime(b)
				tab.Quiesce(0)
				t2 := threadTime(b)
				for i, k := range at {
					r, _, o := tab.Insert(0, &new[i], 0, &to, 0)
					if o != Inserted {
						b.Fatal(o)
					}
					refs[k] = r
				}
				insert += threadTime(b) - t2
				unlink += t1 - t0
			}
			n := float64((b.N + together - 1) / together * together)
			b.ReportMetric(float64(insert)/n, "insert-ns")
			b.ReportMetric(float64(unlink)/n, "unlink-ns")
		})
	}
}

func threadTime(tb testing.TB) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// Nanoseconds for each connection that is looked at and lives on: most often only its deadline is.
func BenchmarkExpire(b *testing.B) {
	for _, conns := range sizes {
		tab := filled(b, conns, false)
		out := make([]Ended, 64)
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; n += min(conns, 4096) {
				if ended, _ := tab.Expire(0, ticks(time.Minute), 4096, out); ended != 0 {
					b.Fatal("something expired")
				}
			}
		})
	}
}

// The heap against a mapped file, which may get no huge pages (/sys/kernel/mm/transparent_hugepage/shmem_enabled).
func BenchmarkLookupInFile(b *testing.B) {
	const conns = 1 << 20
	fd, err := unix.MemfdCreate("conntrack-bench", unix.MFD_CLOEXEC)
	if err != nil {
		b.Skipf("memfd_create: %v", err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	tab, err := New(Options{Capacity: conns, Workers: 1, File: f, Secret: [2]uint64{1, 2}})
	if err != nil {
		b.Fatal(err)
	}
	defer tab.Close()
	for i := range conns {
		mustInsert(b, tab, nat(i, false, udp), 0, 0)
	}
	rng := random(1)
	var q [64]Query
	keys := make([]Tuple, 1<<18)
	for i := range keys {
		keys[i] = nat(int(rng.below(uint32(conns))), false, udp).Forward
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += len(q) {
		for i := range q {
			q[i].Tuple = keys[(n+i)&(len(keys)-1)]
		}
		tab.Lookup(q[:])
	}
}
