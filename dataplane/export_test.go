package dataplane

import "time"

// SleepAtMost sets how long the runner sleeps at a time, before it starts.
func (r *Runner) SleepAtMost(d time.Duration) { r.longest = d }

// TakeChunk loses a chunk.
func (w *Worker) TakeChunk() { w.pool.Get() }

// Unparsed is how many frames of the latest vector a glance was enough for.
func (w *Worker) Unparsed() (n int) {
	for i := range w.v.plain[:w.v.n] {
		if p := &w.v.plain[i]; p.size != 0 && !p.known {
			n++
		}
	}
	return n
}

// SipHash is SipHash-2-4 of words, the last of which has the message's length in its highest byte, under a key.
func SipHash(k0, k1 uint64, words ...uint64) uint64 {
	h := newSip(k0, k1)
	for _, w := range words[:len(words)-1] {
		h.word(w)
	}
	return h.sum(words[len(words)-1])
}
