package conntrack

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// narrow is lookup by Lookup4.
func (t *Table) narrow(k Tuple) Query {
	q := [1]Query4{(&Query{Tuple: k}).Narrow()}
	t.Lookup4(q[:])
	return t.Wide(&q[0])
}

// TestLookup4IsLookup opens and ends connections of both families at random and asks for all vectors twice.
func TestLookup4IsLookup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab, err := New(Options{Capacity: 32, Workers: 1, HalfOpen: 32, Secret: [2]uint64{rapid.Uint64().Draw(t, "secret"), 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer tab.Close()
		to := DefaultTimeouts()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := nat(rapid.IntRange(0, 40).Draw(t, "connection"), rapid.Bool().Draw(t, "v6"), udp)
			if r := tab.lookup(c.Forward); r != 0 && rapid.Bool().Draw(t, "end") {
				tab.Unlink(0, r)
			} else {
				tab.Insert(0, &c, 0, &to, 0)
			}
			tab.Quiesce(0)
			var wide []Query
			var narrow []Query4
			for i := range 44 {
				c := nat(i, false, udp)
				for _, k := range []Tuple{c.Forward, c.Reply} {
					if i == 43 {
						k.Ports, k.Space = 0, 0
					}
					q := Query{Tuple: k}
					wide, narrow = append(wide, q), append(narrow, q.Narrow())
				}
			}
			tab.Lookup(wide)
			tab.Lookup4(narrow)
			for i := range wide {
				if got := tab.Wide(&narrow[i]); got.Ref != wide[i].Ref || got.Tuple != wide[i].Tuple {
					t.Fatalf("%+v is %d of %+v, by Lookup %d", wide[i].Tuple, got.Ref, got.Tuple, wide[i].Ref)
				}
				if found := narrow[i].Ref != 0 && tab.Is4(&narrow[i]); found != (wide[i].Ref != 0) {
					t.Fatalf("%+v: Is4 says %v, Lookup found %d", wide[i].Tuple, found, wide[i].Ref)
				}
			}
		}
	})
}

// TestLookup4OfTwins puts a slot with the same tag in front of the one that is looked for, which chance does once in 2^32: of an IPv4 entry, which Is4 tells
// from it and Wide passes over, of an IPv6 one, and of one that was removed.
func TestLookup4OfTwins(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, distance := range []uint32{1, 2, 9} {
			t.Run(fmt.Sprintf("v6=%v,distance=%d", v6, distance), func(t *testing.T) {
				tab := newTable(t, 64, 1)
				other := mustInsert(t, tab, nat(1, v6, udp), 0, 0)
				c := nat(0, false, udp)
				ref := mustInsert(t, tab, c, 0, 0)
				clear(tab.index)
				h := tab.hasher.sum(&c.Forward)
				for d := range distance {
					tab.index[tab.home(h)+d] = slotTombstone
				}
				tab.index[tab.home(h)+distance-1] = slotOf(h, distance-1, other)
				tab.index[tab.home(h)+distance] = slotOf(h, distance, ref)
				if got := tab.narrow(c.Forward); got.Ref != ref || got.Tuple != c.Forward {
					t.Errorf("found %+v, want %d", got, ref)
				}
				if got := tab.lookup(c.Forward); got != ref {
					t.Errorf("Lookup found %d, want %d", got, ref)
				}
				tab.index[tab.home(h)+distance] = slotEmpty
				if got := tab.narrow(c.Forward); got.Ref != 0 {
					t.Errorf("found %+v, which is not there", got)
				}
			})
		}
	}
}
