package conntrack

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// probes are how many slots a look-up of each entry walks over: the longest, and the sum.
func (t *Table) probes() (longest, sum, entries int) {
	for _, s := range t.index {
		if s == slotEmpty || s == slotTombstone {
			continue
		}
		n := int(s>>32)&(maxProbe-1) + 1
		longest, sum, entries = max(longest, n), sum+n, entries+1
	}
	return longest, sum, entries
}

// Who can choose addresses and ports, but does not know the secret, gets no longer probes than chance. The tuples are all combinations of some bit
// patterns over a client's address and port, or steps of a constant: what differential and linear attacks on a weak hash are made of.
func TestChosenTuplesWithoutTheSecret(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const bits = 12
		v6, steps := rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "steps")
		word := rapid.Uint64()
		if rapid.Bool().Draw(t, "sparse") {
			word = rapid.Map(rapid.IntRange(0, 63), func(n int) uint64 { return 1 << n })
		}
		// A client has 32 bits of address, or 64 of an IPv6 network's, and 16 of a port.
		var addrs, ports [bits]uint64
		for i := range addrs {
			addrs[i], ports[i] = word.Draw(t, "address"), word.Draw(t, "port")&0xffff
		}
		from := word.Draw(t, "from")
		secret := [2]uint64{rapid.Uint64().Draw(t, "secret"), rapid.Uint64().Draw(t, "secret")}
		tab, err := New(Options{Capacity: 1 << bits, Workers: 1, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		defer tab.Close()
		to := DefaultTimeouts()
		for i := range uint64(1 << bits) {
			addr, port := from, uint64(1024)
			if steps {
				addr, port = from+i*addrs[0], port+i*ports[0]
			} else {
				for k := range addrs {
					if i>>k&1 != 0 {
						addr, port = addr^addrs[k], port^ports[k]
					}
				}
			}
			c := nat(0, v6, udp)
			if !v6 {
				addr &= 1<<32 - 1
			}
			p := uint32(port & 0xffff)
			c.Forward.Src.Lo, c.ForwardTo.Src.Lo, c.Reply.Dst.Lo, c.ReplyTo.Dst.Lo = addr, addr, addr, addr
			c.Forward.Ports, c.ForwardTo.Ports = p<<16|80, p<<16|8000
			c.Reply.Ports, c.ReplyTo.Ports = 8000<<16|p, 80<<16|p
			if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Inserted && o != Exists {
				t.Fatalf("tuple %d: %v", i, o)
			}
		}
		// At a load of one half a hit in random entries takes 1.5 steps on average. Of 8192 one takes more than 128 once in a million tables at
		// most (0.824^128 for each).
		longest, sum, entries := tab.probes()
		if longest > 128 || entries >= 1<<bits && float64(sum) > 1.8*float64(entries) {
			t.Fatalf("the longest of %d probes is %d, the average %.2f", entries, longest, float64(sum)/float64(entries))
		}
	})
}

// Who knows the secret can aim at one place. He fills as many slots as a probe may have, and then his connections are refused, not those of
// others; a look-up there walks over so many slots and no more.
func TestChosenTuplesWithTheSecret(t *testing.T) {
	const capacity = 4096
	tab := newTable(t, capacity, 1)
	to := DefaultTimeouts()
	rng := rand.New(rand.NewPCG(1, 2))
	home := uint32(capacity)
	refused, aimed := 0, make([]Tuple, 0, 2*maxProbe)
	for len(aimed) < cap(aimed) {
		c := nat(0, false, udp)
		c.OneWay = true
		c.Forward.Src.Lo, c.Forward.Ports = uint64(rng.Uint32()), rng.Uint32()&^0xffff|80
		if tab.home(tab.hasher.sum(&c.Forward)) != home {
			continue
		}
		aimed = append(aimed, c.Forward)
		switch _, _, o := tab.Insert(0, &c, 0, &to, 0); {
		case o == Full:
			refused++
		case o != Inserted:
			t.Fatal(o)
		}
	}
	longest, _, entries := tab.probes()
	if refused != maxProbe || longest != maxProbe || entries != maxProbe {
		t.Errorf("%d of %d refused, %d entries, the longest probe %d; want %d of each", refused, len(aimed), entries, longest, maxProbe)
	}
	for i, k := range aimed {
		if found := tab.lookup(k) != 0; found != (i < maxProbe) {
			t.Errorf("tuple %d: found %v", i, found)
		}
	}
	if tab.Len() != maxProbe {
		t.Errorf("%d connections, a refused one is still counted", tab.Len())
	}
	others := 0
	for i := range capacity / 2 {
		c := nat(i, false, udp)
		if _, _, o := tab.Insert(0, &c, 0, &to, 0); o == Inserted && tab.lookup(c.Forward) != 0 && tab.lookup(c.Reply) != 0 {
			others++
		}
	}
	if others < capacity/2*98/100 { // those whose home is among the 256 may find no place
		t.Errorf("%d of %d others found a place", others, capacity/2)
	}
	for _, k := range aimed[:maxProbe] {
		tab.Unlink(0, tab.lookup(k))
	}
	tab.Quiesce(0)
	c := nat(0, false, udp)
	c.OneWay, c.Forward = true, aimed[2*maxProbe-1]
	if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Inserted {
		t.Errorf("when they have gone: %v", o)
	}
}
