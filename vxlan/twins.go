package vxlan

import "sync/atomic"

// Twins is when each segment last heard of a gateway with the MAC of ours behind a peer: gateways that stand in for each other share address
// and MAC (anycast), each answers the stations at its own side. All workers share it; a zero Twins, and nil, know of none.
type Twins struct {
	heard []atomic.Uint32 // Second, by segment index; 0: never
}

// twinTime is how many seconds a twin that is silent is remembered. Gateways ask for their hosts every 30 s.
const twinTime = 300

// NewTwins is of that many segments.
func NewTwins(segments int) *Twins { return &Twins{make([]atomic.Uint32, segments)} }

// Note takes notice of a frame from the gateway's own MAC.
func (t *Twins) Note(segment uint16, now Second) {
	if t == nil || int(segment) >= len(t.heard) {
		return
	}
	if was := t.heard[segment].Load(); was == 0 || now.since(Second(was)) > 0 {
		t.heard[segment].Store(max(uint32(now), 1))
	}
}

// Forget has a segment index know of no twin: another segment has it now.
func (t *Twins) Forget(segment uint16) {
	if t != nil && int(segment) < len(t.heard) {
		t.heard[segment].Store(0)
	}
}

// Heard reports whether the segment has another gateway with our MAC.
func (t *Twins) Heard(segment uint16, now Second) bool {
	if t == nil || int(segment) >= len(t.heard) {
		return false
	}
	was := t.heard[segment].Load()
	return was != 0 && now.since(Second(was)) < twinTime
}
