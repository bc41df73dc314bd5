package dataplane_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// attacks are floods beside which a service is to go on. Each gives frame i of its kind, of as many addresses and numbers as somebody who makes them up
// would use.
var attacks = map[string]func(i int) pkttest.Packet{
	"SYNs":            func(i int) pkttest.Packet { return pkttest.TCP(madeUp(i), cookieVIP).SYN().Seq(uint32(i)) },
	"stray ACKs":      func(i int) pkttest.Packet { return pkttest.TCP(madeUp(i), cookieVIP).Seq(uint32(i)).Ack(uint32(i) * 7) },
	"first fragments": func(i int) pkttest.Packet { return pkttest.UDP(madeUp(i), dns).Size(508).Fragment(uint32(i), 0, true) },
	"later fragments": func(i int) pkttest.Packet {
		return pkttest.IP(madeUp(i).Addr(), vip.Addr(), packet.ProtoUDP, make([]byte, 64)).Fragment(uint32(i), 1024, true)
	},
	"echo requests": func(i int) pkttest.Packet { return pkttest.Echo(madeUp(i).Addr(), vip.Addr(), uint16(i), 1) },
	"ICMP errors": func(i int) pkttest.Packet {
		return pkttest.ICMPPortUnreachable(madeUp(i).Addr(), vip.Addr(), pkttest.TCP(vip, madeUp(i)).Bytes())
	},
	"TTL of one": func(i int) pkttest.Packet {
		return pkttest.UDP(netip.AddrPortFrom(madeUp(i&7).Addr(), 4000), dns).TTL(1)
	},
	"unused ports": func(i int) pkttest.Packet {
		return pkttest.TCP(madeUp(i), netip.AddrPortFrom(vip.Addr(), uint16(1000+i%1000))).SYN()
	},
	"from on the link": func(i int) pkttest.Packet { // the cookie's neighbour is looked for in vain
		return pkttest.TCP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(3 + i%250)}), 4000), cookieVIP).SYN()
	},
}

var cookieVIP = netip.MustParseAddrPort("198.18.9.20:8080")

func madeUp(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 128 + byte(i>>8)&0x7f, byte(i)}), uint16(1024+i%50000))
}

// attacked is a worker with 64 established connections, and frames of an attack.
type attacked struct {
	w     *Worker
	r     *mem.Recycler
	good  [][]byte
	flood [][]byte
	now   int64
}

func newAttacked(t testing.TB, kind string) *attacked {
	one := newBed(t, guarded("v4", nil).option(t))
	table, err := conntrack.New(conntrack.Options{Capacity: 1 << 17, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	e := NewEngine(Options{Table: table, MaxBackends: 64})
	e.Punt = func([]byte) bool { return true }
	snap := one.snap
	snap.Unusual = Rate{PerSecond: 200_000} // the default
	if err := e.Publish(&snap); err != nil {
		t.Fatal(err)
	}
	pool, err := packet.NewPool(make([]byte, 1024*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacked{r: mem.NewRecycler(pool), now: 1e12}
	a.w = e.AddWorker(pool, []driver.Queue{a.r, mem.NewRecycler(pool)})
	for i := range 64 {
		c := netip.AddrPortFrom(client.Addr(), uint16(5000+i))
		a.turn([][]byte{pkttest.UDP(c, dns).Frame(routerMAC, wanMAC)}, 1)
		a.good = append(a.good, pkttest.UDP(c, dns).Size(64).Frame(routerMAC, wanMAC))
	}
	for i := range 4096 {
		a.flood = append(a.flood, attacks[kind](i).Frame(routerMAC, wanMAC))
	}
	for range 8 { // the kernel has had its 20,000 packets, and what is answered its 1,000
		a.turn(a.flood, 64)
	}
	return a
}

// turn gives the worker frames, and 64 more at a time of its clock as a loaded link would, and returns how long that took without making them.
func (a *attacked) turn(frames [][]byte, vectors int) (spent time.Duration) {
	for at := range vectors {
		for i := range len(frames) / vectors {
			a.r.Fill(frames[at*(len(frames)/vectors)+i], 1)
		}
		a.now += 10_000
		start := time.Now()
		a.w.Round(a.now)
		spent += time.Since(start)
	}
	return spent
}

// BenchmarkFloodBeside is what a good packet costs in vectors in which as many of an attack stand among the good ones, in random order, and the ratio of its rate to
// that without an attack: 1 means that it is not concerned. Vectors cost e for themselves, x for each good frame and y for each bad one:
//
//	none  e      good  e + 64x      bad  e + 64y      both  e + 64x' + 64y
//
// so a good one beside bad ones costs x' = (both - bad)/64 and without x = (good - e)/64. What the attack costs by itself, y, is a metric of its own: it
// is what the attack's budgets bound. All are medians, of vectors that take turns; the budgets are used up by then.
func BenchmarkFloodBeside(b *testing.B) {
	for kind := range attacks {
		b.Run(kind, func(b *testing.B) {
			a := newAttacked(b, kind)
			r := rand.New(rand.NewPCG(1, 2))
			var none, good, bad, both []time.Duration
			next := 0
			for b.Loop() {
				var few, many [][]byte
				for i := range 64 {
					few = append(few, a.flood[(next+i)%len(a.flood)])
					many = append(many, a.good[i], a.flood[(next+64+i)%len(a.flood)])
				}
				r.Shuffle(len(many), func(i, j int) { many[i], many[j] = many[j], many[i] })
				next += 128
				none = append(none, a.turn(nil, 1))
				good = append(good, a.turn(a.good, 1))
				bad = append(bad, a.turn(few, 1))
				both = append(both, a.turn(many, 1))
			}
			e, x, y, z := median(none), median(good), median(bad), median(both)
			b.ReportMetric(x-e, "ns/good")
			b.ReportMetric(y-e, "ns/bad")
			b.ReportMetric(z-y, "ns/good-beside")
			b.ReportMetric((x-e)/(z-y), "ratio")
		})
	}
}

// median is that of what 64 frames took, in nanoseconds for one.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / 64
}
