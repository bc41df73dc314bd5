package conntrack

import (
	"math/bits"
	"sync/atomic"
)

// A flood of SYNs from addresses that nobody has must not take the table from those who talk. So half-open connections, which cost their sender
// one packet, may fill a part of it only, and beyond that each new one makes an old one give way. Kernel IPVS has the same idea in its
// drop_entry defence, which thins the whole table by a timer when memory runs short; here nothing happens before the part is full, and
// then no more than is needed. A connection that both sides have agreed on is never given up for a new one.
//
// Who gives way is the longest idle of a few that are drawn at random. The oldest of all would need a list that every packet keeps in order; one at
// random could be a client in the middle of its handshake. Of eight, the flood's own old leftovers are nearly always one.

// halfOpenStates are those in which only one side has been heard, and its address may be made up: the states that kernel IPVS'
// drop_entry ends (ip_vs_random_dropentry), and SCTP's between its INIT and our first look at it.
const halfOpenStates = 1<<SynRecv | 1<<SynAck | 1<<SCTPNone | 1<<SCTPInit1 | 1<<SCTPInit

// HalfOpen reports whether a connection in state s has yet to be agreed on by both sides.
func (s State) HalfOpen() bool { return halfOpenStates>>s&1 != 0 }

const (
	drawn = 8  // connections that are looked at at once, so that their cache misses overlap
	draws = 16 // times that so many are drawn; at least one in eight is half-open when their part is full, if that is a quarter
)

// random is xorshift64: no secret, only far from regular.
type random uint64

func (r *random) below(n uint32) uint32 {
	x := uint64(*r)
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*r = random(x)
	hi, _ := bits.Mul64(x, uint64(n))
	return uint32(hi)
}

// giveWay ends one half-open connection other than r's, for worker w. It reports false if it found none.
func (t *Table) giveWay(w int, except Ref, now Tick) bool {
	rng := &t.workers[w].random
	used4, used6 := t.families[ip4].fresh.Load(), t.families[ip6].fresh.Load()
	for range draws {
		var refs [drawn]Ref
		n := 0
		for range drawn {
			f, k := ip4, rng.below(used4+used6)
			if k >= used4 {
				f, k = ip6, k-used4
			}
			refs[n&(drawn-1)] = f.ref(k)
			if atomic.LoadUint32(&t.families[f].deadlines[k]) != 0 {
				n++
			}
		}
		oldest, life, idle := Ref(0), word(0), int32(-1)
		for _, r := range refs[:n] {
			x := word(atomic.LoadUint64(t.life(r)))
			since := now.since(Tick(atomic.LoadUint32(&t.common(r).seen)))
			if r != except && x.live() && x.state().HalfOpen() && since > idle {
				oldest, life, idle = r, x, since
			}
		}
		if oldest != 0 && atomic.CompareAndSwapUint64(t.life(oldest), uint64(life), uint64(life&^wordLive)) {
			t.vanish(oldest)
			t.follow(oldest)
			t.orphans.push(t, oldest)
			t.evicted.Add(1)
			return true
		}
	}
	return false
}

// follow ends the template that a connection which gave way was opened under, if it was the only one and none before it was established, as the kernel
// does: else a flood would leave a template of each address, or, in the name of clients who are there, end theirs. So it is with one whose time
// is over once the table is more than half full, where the kernel needs memory to be short: a flood that is too slow for anything to give way lasts.
func (t *Table) follow(r Ref) {
	own := atomic.LoadUint64(t.control(r))
	if own == 0 {
		return
	}
	template := Ref(own)
	if atomic.LoadUint64(t.control(template)) != own&controlSerial|1 {
		return
	}
	p := t.life(template)
	x := word(atomic.LoadUint64(p))
	if x.live() && x.state() == Template && atomic.CompareAndSwapUint64(p, uint64(x), uint64(x&^wordLive)) {
		t.vanish(template)
		t.orphans.push(t, template)
	}
}
