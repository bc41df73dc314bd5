package conntrack

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// longest is the length of the longest run of occupied slots, which bounds every probe, and how many slots are tombstones.
func (t *Table) longest() (run, tombstones int) {
	n := 0
	for i := range t.index {
		s := atomic.LoadUint64(&t.index[i])
		if s == slotTombstone {
			tombstones++
		}
		if n++; s == slotEmpty {
			n = 0
		}
		run = max(run, n)
	}
	return run, tombstones
}

// Tuples chosen to collide in a weak hash: counters, single bits, one client with all ports, addresses in steps of a power of two.
func TestChosenTuplesDoNotCollide(t *testing.T) {
	const conns = 1 << 14
	patterns := map[string]func(i int, k *Tuple){
		"ports count":         func(i int, k *Tuple) { k.Ports = uint32(i)<<16 | 80 },
		"addresses count":     func(i int, k *Tuple) { k.Src.Lo = uint64(i) },
		"steps of 2^16":       func(i int, k *Tuple) { k.Src.Lo = uint64(i) << 16 & 0xffffffff; k.Ports = uint32(i>>16) << 16 },
		"source equals ports": func(i int, k *Tuple) { k.Src.Lo = uint64(i); k.Ports = uint32(i) },
		"source^dest constant": func(i int, k *Tuple) {
			k.Src.Lo = uint64(i)
			k.Dst.Lo = uint64(i) ^ 0xc6120909
		},
		"segments count": func(i int, k *Tuple) { k.Space = uint32(i)<<8 | udp },
		"few bits set": func(i int, k *Tuple) {
			k.Src.Lo = 1 << (i & 31)
			k.Dst.Lo = 1 << (i >> 5 & 31)
			k.Ports = 1 << (i >> 10)
		},
		"high word of an IPv6": func(i int, k *Tuple) { k.V6 = true; k.Src.Hi = uint64(i) << 40; k.Dst.Hi = uint64(i) << 40 },
		"IPv6 source is dest":  func(i int, k *Tuple) { k.V6 = true; k.Src = Addr{1, uint64(i)}; k.Dst = k.Src },
	}
	for name, pattern := range patterns {
		for seed := range uint64(4) {
			tab, err := New(Options{Capacity: conns, Workers: 1, Secret: [2]uint64{seed, seed << 32}}) // simple secrets, too
			if err != nil {
				t.Fatal(err)
			}
			to := DefaultTimeouts()
			for i := range conns {
				c := Conn{Forward: Tuple{Addr{Lo: 1}, Addr{Lo: 2}, 3, udp, false}}
				pattern(i, &c.Forward)
				c.Reply = c.Forward
				c.Reply.Space ^= 0xff00
				c.Reply.Ports ^= 0xffff
				if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Inserted {
					t.Fatalf("%s, secret %d: connection %d: %v", name, seed, i, o)
				}
			}
			// The longest run at load one half grows with the logarithm of the size: about 60 here for a perfect hash, 100 is one in a million.
			if run, _ := tab.longest(); run > 110 {
				t.Errorf("%s, secret %d: a run of %d slots", name, seed, run)
			}
		}
	}
}

// A full table whose connections come and go does not fill up with tombstones.
func TestChurnKeepsProbesShort(t *testing.T) {
	const conns = 1 << 14
	tab, to := newTable(t, conns, 1), DefaultTimeouts()
	rng := rand.New(rand.NewPCG(1, 2))
	refs := make([]Ref, conns)
	for i := range refs {
		refs[i] = mustInsert(t, tab, nat(i, false, udp), 0, 0)
	}
	tab.Quiesce(0)
	first, _ := tab.longest()
	for i := conns; i < 40*conns; i++ {
		at := rng.IntN(conns)
		tab.Unlink(0, refs[at])
		tab.Quiesce(0)
		c := nat(i, false, udp)
		r, _, o := tab.Insert(0, &c, 0, &to, 0)
		if o != Inserted {
			t.Fatalf("insertion %d: %v", i, o)
		}
		refs[at] = r
	}
	run, tombstones := tab.longest()
	t.Logf("longest run %d at first, %d after every connection was replaced 39 times; tombstones in %.1f %% of the slots",
		first, run, 100*float64(tombstones)/float64(len(tab.index)))
	if run > 110 { // a perfect hash without a tombstone has 60 at most, but for one time in a thousand
		t.Errorf("longest run is %d slots, of %d at first", run, first)
	}
	for _, r := range refs {
		tab.Unlink(0, r)
	}
	if _, tombstones := tab.longest(); tombstones > len(tab.locks) {
		t.Errorf("%d tombstones in an empty table of %d stretches", tombstones, len(tab.locks))
	}
}
