package dataplane

import (
	"weir/conntrack"
	"weir/dataplane/packet"
)

// list is some frames of a vector in their order, by their numbers, which being bytes need no bounds checks.
type list struct {
	n  int
	at [packet.VectorSize]uint8
}

var _ [1<<8 - packet.VectorSize]struct{} // a number fits into a byte

func (l *list) all() []uint8 { return l.at[:l.n] }

func (l *list) add(i int) {
	l.at[uint8(l.n)] = uint8(i)
	l.n++
}

// remove takes the j-th frame out of the list and returns its number.
func (l *list) remove(j int) (i int) {
	i = int(l.at[j])
	copy(l.at[j:], l.at[j+1:l.n])
	l.n--
	return i
}

// merge adds the frames of another list, none of which is in l.
func (l *list) merge(o *list) {
	if l.n == 0 {
		*l = *o
		return
	}
	i, j := l.n-1, o.n-1
	for to := l.n + o.n - 1; j >= 0; to-- {
		if i >= 0 && l.at[i] > o.at[j] {
			l.at[to] = l.at[i]
			i--
		} else {
			l.at[to] = o.at[j]
			j--
		}
	}
	l.n += o.n
}

// every is all frames that there may be.
var every = func() (l list) {
	for i := range l.at {
		l.at[i] = uint8(i)
	}
	return l
}()

// sift lists the frames for which there is an entry of IPv4 in quick, and all others but those of IPv6 at a glance, and what is gone, in rest. It guesses no branch: in a flood
// each would be wrong half of the time, which costs good frames more than all else that the flood does to them.
func (v *vector) sift() {
	v.rest.n, v.late.n = 0, 0
	v.held.reset()
	v.held6.reset()
	if !v.missed {
		if !v.whole {
			v.quick.at, v.whole = every.at, true
		}
		v.quick.n = v.n
		return
	}
	v.whole = false
	quick, rest := 0, 0
	for i := range v.n {
		k := uint8(i)
		missed := int(uint32(v.narrow[k].Ref)-1) >> 31 & 1
		other := missed &^ int(v.plain[k].kind&plainNotRest)
		v.quick.at[uint8(quick)], v.rest.at[uint8(rest)] = k, k
		quick += 1 - missed
		rest += other
	}
	v.quick.n, v.rest.n = quick, rest
	for _, k := range v.odd.all() {
		if v.plain[k].size == 0 {
			v.hold(v.queries[k].Ref)
		}
	}
}

// unknown lists the frames that glance has given up in rest, which nobody needs yet. Like sift it guesses nothing.
func (v *vector) unknown() {
	n := 0
	for i := range v.n {
		k := uint8(i)
		v.rest.at[uint8(n)] = k
		n += int(uint32(v.plain[k].size)-1) >> 31 & 1
	}
	v.rest.n = n
}

// hold makes frames of the connection at ref, if that is not 0, go through the stages.
func (v *vector) hold(ref conntrack.Ref) {
	switch {
	case ref.V6():
		v.held6.add(ref)
	case ref != 0:
		v.held.add(ref)
	}
}

// held is a set of connections by the last bits of their numbers: two may be taken for one, which the stages set right.
type held struct {
	any bool
	set [64]uint64
}

func (h *held) reset() {
	if h.any {
		h.any, h.set = false, [64]uint64{}
	}
}

func (h *held) add(r conntrack.Ref) {
	h.any = true
	h.set[r>>7%64] |= 1 << (r >> 1 % 64)
}

func (h *held) has(r conntrack.Ref) bool { return h.set[r>>7%64]>>(r>>1%64)&1 != 0 }
