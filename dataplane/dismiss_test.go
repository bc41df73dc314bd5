package dataplane_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	. "weir/dataplane"
	"weir/dataplane/packet/pkttest"
)

// TestDismiss gives what floods are made of to two engines whose budgets are used up now and then: one may dismiss it at a glance, in the other all goes
// through the stages. What leaves and all that is counted must be the same.
func TestDismiss(t *testing.T) {
	for name, cookies := range map[string]Cookies{"no cookies": CookiesOff, "cookies": CookiesAlways, "cookies under pressure": CookiesAuto} {
		t.Run(name, func(t *testing.T) {
			edit := func(s *Service) { s.Cookies = cookies }
			asking := [2]serving{guarded("v4", edit), guarded("v6", edit)}
			beds := newTwins(t, asking[0].option(t), asking[1].option(t), func(s *Snapshot, e *Engine) {
				s.Answers = Rate{PerSecond: 20}
				e.Punt = func([]byte) bool { return true }
			})
			r := rand.New(rand.NewPCG(3, uint64(cookies)))
			unparsed, all := 0, 0
			for step := range 300 {
				if step == 100 { // the kernel has had its 20,000 packets
					for range 81 {
						for _, b := range beds {
							for i := range 250 {
								b.fromClient(pkttest.UDP(madeUp(i), netip.AddrPortFrom(vip.Addr(), 9)).Bytes())
							}
							b.round()
						}
					}
				}
				n := 1 + r.IntN(60)
				for range n {
					v6 := r.IntN(3) / 2
					f := strayPacket(r, v6 == 1, asking[v6].vip)
					beds[0].inject(wan, f)
					beds[1].inject(wan, f)
				}
				now := beds[0].now + int64(r.IntN(4)/3)*int64(r.IntN(200e6))
				for _, b := range beds {
					b.now = now
					b.round()
				}
				unparsed += beds[0].worker.Unparsed()
				all += n
				if beds[1].worker.Unparsed() > 0 {
					t.Fatal("the second engine has looked at a frame at a glance only")
				}
				for _, port := range []int{wan, lan} {
					if a, b := left(beds[0], port), left(beds[1], port); !slices.EqualFunc(a, b, bytes.Equal) {
						t.Fatalf("step %d: at port %d left %s\nthrough the stages %s", step, port, shown(a), shown(b))
					}
				}
				if a, b := state(beds[0]), state(beds[1]); a != b {
					t.Fatalf("step %d: counted %+v\nthrough the stages %+v", step, a, b)
				}
			}
			if unparsed < all/10 { // where cookies are out most may be answers to them
				t.Errorf("only %d of %d frames were dismissed", unparsed, all)
			}
			_, drops := beds[0].engine.Verdicts()
			for _, d := range []Drop{DropAnswerLimit, DropPuntLimit, DropNoConnection, DropTCPFlags, DropMartian} {
				if drops[d] == 0 {
					t.Errorf("none dropped as %s", d)
				}
			}
		})
	}
}

// strayPacket is a frame of no connection that opens none, mostly.
func strayPacket(r *rand.Rand, v6 bool, asking netip.AddrPort) []byte {
	from, vip, loopback := madeUp(r.IntN(1<<15)), vip, "127.0.0.1:99"
	if v6 {
		from, vip, loopback = randomClient6(uint16(r.IntN(200))), vip6, "[::1]:99"
	}
	to := []netip.AddrPort{vip, asking, netip.AddrPortFrom(vip.Addr(), 81), netip.AddrPortFrom(asking.Addr(), 81)}[r.IntN(4)]
	switch r.IntN(20) {
	case 0:
		from = netip.AddrPortFrom(vip.Addr(), 99)
	case 1:
		from = netip.MustParseAddrPort(loopback)
	}
	p := pkttest.TCP(from, to).Seq(r.Uint32())
	switch r.IntN(10) {
	case 0:
		p = p.RST()
	case 1:
		p = p.SYN().FIN()
	case 2:
		p = p.SYN().Ack(r.Uint32())
	case 3:
		p = p.FIN().Ack(1)
	case 4:
		p = pkttest.UDP(from, netip.AddrPortFrom(to.Addr(), 54))
	case 5:
		p = p.SYN()
	default:
		p = p.Ack(r.Uint32())
	}
	switch r.IntN(20) {
	case 0:
		p = p.BadChecksum()
	case 1:
		p = p.TTL(1)
	}
	if r.IntN(20) == 0 {
		return p.Frame(routerMAC, pkttest.MAC("ff:ff:ff:ff:ff:ff"))
	}
	return p.Frame(routerMAC, wanMAC)
}
