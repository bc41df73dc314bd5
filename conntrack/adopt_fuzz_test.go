package conntrack

import (
	"testing"
	"time"
)

// FuzzTakeOver writes over parts of a table's file. What is taken over of it is a table, whatever was written: connections are found, counted and end; none
// is made up in the index. The seeds aim at each part: words, deadlines, keys, templates' counts, the header's count of connections.
func FuzzTakeOver(f *testing.F) {
	l := layoutOf(64, 1)
	index, deadlines4, deadlines6, entries4, entries6, _ := l.offsets()
	for _, at := range []int{0, 8, 96, 112, index, deadlines4 + 4, deadlines6 + 4, entries4 + 128, entries4 + 128 + 48, entries4 + 128 + 112, entries6 + 256, entries6 + 256 + 48} {
		f.Add(uint32(at), []byte{0xff, 0x01, 0, 0x80}, uint8(1))
		f.Add(uint32(at), []byte{0, 0, 0, 0, 0, 0, 0, 0}, uint8(40))
	}
	f.Fuzz(func(t *testing.T, at uint32, with []byte, times uint8) {
		const now = Tick(1000)
		file := memfd(t)
		old, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file, Secret: [2]uint64{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		lively(t, old, 40, now)
		base := old.memory.base
		for n := range int(times) { // the same in a row of connections
			for i, b := range with {
				p := (int(at) + 128*n + i) % len(base)
				if p >= 88 || p < 8 { // the layout's own fields are TestHeadersThatAreRefused's
					base[p] ^= b
				}
			}
		}
		abandon(t, old)
		file2 := file
		if times%2 == 0 {
			file2 = memfd(t)
		}
		tab, err := New(Options{Capacity: 64, HalfOpen: 64, Workers: 1, File: file2, Old: file, Now: now, Keep: func(e *Ended) bool { return e.Backend < 7 }})
		if err != nil {
			return // the header
		}
		defer tab.Close()
		reachable(t, tab, now)
		tab.Range(now, func(i *Info) bool {
			if i.Backend >= 7 || i.State >= NumStates {
				t.Errorf("%+v", i)
			}
			return true
		})
		to := DefaultTimeouts()
		for i := range 64 {
			c := nat(1000+i, i%2 == 0, udp)
			tab.Insert(0, &c, 0, &to, now)
		}
		reachable(t, tab, now)
		tab.Sleep(0)
		tab.Wake(0)
		for i := range 3 {
			tab.expireAll(0, now+MaxTimeout/2+Tick(i)*ticks(time.Hour))
			tab.Quiesce(0)
		}
	})
}
