package sched

import "encoding/binary"

// bucketsOf deals the 256 buckets to dests in turns, to each as many in a row as its weight (ip_vs_sh_reassign). A destination of weight
// 0 gets one: its clients are refused, or moved on by sh-fallback, while those of the others stay where they are.
func bucketsOf(dests []slot) *[256]int32 {
	if len(dests) == 0 {
		return nil
	}
	b := new([256]int32)
	at, given := 0, int32(0)
	for i := range b {
		b[i] = int32(at)
		if given++; given >= dests[at].weight {
			given = 0
			if at++; at == len(dests) {
				at = 0
			}
		}
	}
	return b
}

// sourceHash takes the owner of the bucket that the client's address hashes to. If it is unusable there is none, or, with ShFallback, the walk
// goes on through the buckets from a place that depends on the hash, so that an unusable one's clients are spread (ip_vs_sh.c).
func (p *Plan) sourceHash(f *Flow) int {
	if p.buckets == nil {
		return -1
	}
	first := p.bucketOf(f)
	i := p.buckets[first]
	if p.dests[i].usable() {
		return int(i)
	}
	if p.flags&ShFallback == 0 {
		return -1
	}
	for off := range 256 {
		i = p.buckets[first+(uint8(off)+first)]
		if p.dests[i].usable() {
			return int(i)
		}
	}
	return -1
}

// bucketOf is the bucket that a client's address hashes to. p has buckets.
func (p *Plan) bucketOf(f *Flow) uint8 { return uint8(hash32(p.client(f, p.flags&ShPort != 0), 8)) }

// fold is an IPv4 address, or the four words of an IPv6 address combined by exclusive or.
func fold(a *[16]byte, v6 bool) uint32 {
	w := binary.BigEndian.Uint32(a[0:])
	if v6 {
		w ^= binary.BigEndian.Uint32(a[4:]) ^ binary.BigEndian.Uint32(a[8:]) ^ binary.BigEndian.Uint32(a[12:])
	}
	return w
}
