package conntrack

import "sync/atomic"

// Delete ends the connections that wanted names, at most most of them unless that is 0, and gives each to ended; it returns how many those were. Like Range it is for control and may
// run while workers do: a connection is unlinked by whoever takes its life bit, so one that a worker expires meanwhile is the worker's to account
// for, and its memory waits for all workers before it is used again. What is inserted during Delete may be left out.
//
// wanted and ended must be quick, and must not call Range, Find or Purge: while they run nothing that ends is reused. What wanted gets is valid
// until it returns.
func (t *Table) Delete(now Tick, most int, wanted func(*Info) bool, ended func(Ended)) (n int) {
	const batch = 256
	me := len(t.workers) - 1
	var info Info
	for fam := range t.families {
		a := &t.families[fam]
		for from := uint32(1); from < a.fresh.Load() && (most == 0 || n < most); from += batch {
			t.ranging.Lock()
			t.Wake(me)
			for c := from; c < min(from+batch, a.fresh.Load()) && (most == 0 || n < most); c++ {
				if atomic.LoadUint32(&a.deadlines[c]) == 0 {
					continue
				}
				r := family(fam).ref(c)
				if !t.copyOne(&info, r, now) || !wanted(&info) {
					continue
				}
				if e, ok := t.Unlink(me, r); ok {
					ended(e)
					n++
				}
			}
			t.Sleep(me) // hands what it has ended to the workers
			t.ranging.Unlock()
		}
	}
	return n
}
