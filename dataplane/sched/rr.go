package sched

// roundRobin walks on from the destination chosen last and takes the first usable one, whatever its weight (ip_vs_rr.c). It comes round to
// the last one itself before it gives up; then the mark stays where it was.
func (p *Plan) roundRobin(m *mark) int {
	n := int32(len(p.dests))
	i := m.at
	for range n {
		if i++; i == n {
			i = 0
		}
		if p.dests[i].usable() {
			m.at = i
			return int(i)
		}
	}
	return -1
}
