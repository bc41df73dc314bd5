package sched

// failover takes the usable destination of the highest weight, the first of equals (ip_vs_fo.c): the others stand by.
func (p *Plan) failover() int {
	best, highest := -1, int32(0)
	for i := range p.dests {
		if d := &p.dests[i]; d.weight > highest && !d.load.Overloaded() {
			best, highest = i, d.weight
		}
	}
	return best
}

// overflow is failover among the destinations that have no more active connections than their weight (ip_vs_ovf.c): the next one opens when
// those before it are full. One of weight 2 takes 3. UDP has no active connections and never overflows.
func (p *Plan) overflow() int {
	best, highest := -1, int32(0)
	for i := range p.dests {
		if d := &p.dests[i]; d.weight > highest && !d.load.Overloaded() && d.load.Active() <= int(d.weight) {
			best, highest = i, d.weight
		}
	}
	return best
}
