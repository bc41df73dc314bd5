package conntrack

import "math/bits"

// The memory of a Table, in whole pages:
//
//	header | index | IPv4 deadlines | IPv6 deadlines | IPv4 entries | IPv6 entries | IPv4 splices | IPv6 splices
//
// It holds numbers in the machine's byte order and no Go pointer, so the collector never scans it and it can be mapped from a file. header.go
// says what tells a file of one's own from others, adopt.go what of it is good after a crash.

const pageSize = 4096

// layout is the sizes of the parts.
type layout struct {
	homes int // places of the index that a hash can point at
	slots int // all places of the index
	conns int // entry pairs of each arena
}

// spare is how many connections an arena has more than capacity for each worker: those that wait in its cache must not be missing for another,
// and in a full table those that have just given way, whose memory waits for the end of the vector, not for those that take their place.
const spare = cacheMax + 1024

// layoutOf sizes the parts. The index has four places for each connection, which fills two, so its load is one half at most.
func layoutOf(capacity, workers int) layout {
	homes := 4 * capacity
	return layout{
		homes: homes,
		slots: homes + maxProbe + 1,             // the last one stays empty
		conns: 1 + capacity + (workers+1)*spare, // number 0 is nobody
	}
}

// offsets are where the parts begin, in bytes, and the size of all.
func (l layout) offsets() (index, deadlines4, deadlines6, entries4, entries6, size int) {
	pages := func(n int) int { return (n + pageSize - 1) &^ (pageSize - 1) }
	index = pageSize
	deadlines4 = index + pages(8*l.slots)
	deadlines6 = deadlines4 + pages(4*l.conns)
	entries4 = deadlines6 + pages(4*l.conns)
	entries6 = entries4 + pages(128*l.conns)
	return index, deadlines4, deadlines6, entries4, entries6, entries6 + pages(256*l.conns)
}

// splicesAt is where the splices begin, behind all else, and size the end of them, in bytes.
func (l layout) splicesAt() (splices4, splices6, size int) {
	_, _, _, _, _, splices4 = l.offsets()
	part := (spliceSize*l.conns + pageSize - 1) &^ (pageSize - 1)
	return splices4, splices4 + part, splices4 + 2*part
}

// spliceSize is the size of a [Splice] in bytes.
const spliceSize = 32

// home is where the probe for a tuple of hash h begins: h scaled to the index, by its upper bits. The tag is its lower half.
func (t *Table) home(h uint64) uint32 {
	hi, _ := bits.Mul64(h, t.homes)
	return uint32(hi)
}
