package route

// Only is the hop of a route that has but one, which nobody need hash a flow for; else nil.
func (e *Entry) Only() *Hop {
	if len(e.hops) != 1 {
		return nil
	}
	return &e.hops[0]
}

// Hop chooses the hop of a flow, or returns nil if the route has none: any Kind but Unicast. The same hash gives the same hop as long as the
// route is the same.
//
// Hash-threshold (RFC 2992), as the kernel does: each hop owns a range of the hash values as long as its weight. Adding or removing a
// hop moves the bounds and with them between a quarter and a half of the flows, where hash modulo n would move nearly all. That
// matters for the paths only; a connection's backend does not depend on it.
func (e *Entry) Hop(flowHash uint64) *Hop {
	switch len(e.hops) {
	case 0:
		return nil
	case 1:
		return &e.hops[0]
	}
	h := uint32(flowHash * 0x9e3779b97f4a7c15 >> 33) // a hash of fewer than 64 bits is spread over all of them
	i := 0
	for i < len(e.bounds)-1 && h > e.bounds[i] {
		i++
	}
	return &e.hops[i]
}

// boundsOf divides the hash values among hops by weight, rounded to the nearest (fib_rebalance).
func boundsOf(hops []Hop) []uint32 {
	total := uint64(0)
	for i := range hops {
		total += weight(&hops[i])
	}
	bounds, sum := make([]uint32, len(hops)), uint64(0)
	for i := range hops {
		sum += weight(&hops[i])
		// The last is 2^31-1, so no hash is above all. A share that rounds to nothing still keeps a value of its own if it is the first's.
		bounds[i] = uint32(max((sum<<31+total/2)/total, 1) - 1)
	}
	return bounds
}

// weight of a hop, 1 to 65535.
func weight(h *Hop) uint64 { return uint64(min(max(h.Weight, 1), 0xffff)) }

// Meets reports whether some hop of e and one of o leave by the same port. Nil has no hops.
func (e *Entry) Meets(o *Entry) bool {
	if e == nil || o == nil {
		return false
	}
	for i := range e.hops {
		for j := range o.hops {
			if e.hops[i].Port >= 0 && e.hops[i].Port == o.hops[j].Port {
				return true
			}
		}
	}
	return false
}
