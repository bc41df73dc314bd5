package sched

// shortestDelay takes the usable destination whose active connections and the new one are the fewest per weight, the first of equals
// (ip_vs_sed.c). Inactive ones do not count, and so none of UDP's: there it is always the heaviest.
func (p *Plan) shortestDelay() int {
	best, least, weight := -1, uint64(0), uint64(0)
	for i := range p.dests {
		d := &p.dests[i]
		if !d.usable() {
			continue
		}
		o, w := d.load.jobs(), uint64(d.weight)
		if best < 0 || lighter(o, w, least, weight) {
			best, least, weight = i, o, w
		}
	}
	return best
}

// neverQueue takes the first usable destination without active connections, whatever its weight, and the one of shortest delay if
// all have some (ip_vs_nq.c). UDP goes to the first usable one.
func (p *Plan) neverQueue() int {
	for i := range p.dests {
		if d := &p.dests[i]; d.usable() && d.load.Active() <= 0 {
			return i
		}
	}
	return p.shortestDelay()
}
