package bench

import "math"

// pacer says how many frames are due. It is open-loop: a frame's time depends on its number and the rate alone, never on how those before
// it fared, so that a device that stalls cannot hide by slowing its generator down (coordinated omission).
type pacer struct {
	rate  float64 // frames a second; 0: as many as go
	limit uint64  // frames in all
	start int64
	sent  uint64
}

// due is the number of frames whose time has come.
func (p *pacer) due(now int64) uint64 {
	if p.rate == 0 {
		return p.limit - p.sent
	}
	if now < p.start {
		return 0
	}
	n := uint64(float64(now-p.start)*p.rate/1e9) + 1
	return min(max(n, p.sent), p.limit) - p.sent
}

// when is the time of the i-th frame from here, or now if frames have no time of their own.
func (p *pacer) when(i uint64, now int64) int64 {
	if p.rate == 0 {
		return now
	}
	return p.start + int64(float64(p.sent+i)*1e9/p.rate)
}

// gap is how long it is until a frame is due, in ns.
func (p *pacer) gap(now int64) int64 {
	if p.sent >= p.limit {
		return math.MaxInt64
	}
	if p.rate == 0 {
		return 0
	}
	return max(p.when(0, now)-now, 0)
}
