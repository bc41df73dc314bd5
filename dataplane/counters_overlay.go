package dataplane

import "weir/vxlan"

// SegmentCounters are one worker's counts for one segment. Frames and bytes are of inner frames, so a peer at the other end of a tunnel
// counts the same.
type SegmentCounters struct {
	// written for every frame
	InFrames, InBytes   counter // came in, from peers and access ports, and were not refused at the door
	OutFrames, OutBytes counter // went to a peer, a group or an access port; each copy of a flood is one
	Floods              counter // frames that were for all
	Copies              counter // made of them: each but the last place gets one
	Gateway             counter // frames to our own station

	Drops [NumDrops]counter                // of the frames that came in, were refused, or were to go into it
	_     [8 - (7+int(NumDrops))%8]counter // never of length 0, for which a last field takes room
}

// PlaceCounters are one worker's counts for one peer, group or access port of a segment: a cache line.
type PlaceCounters struct {
	InFrames, InBytes   counter
	InDropped           counter // refused at the door: a fault of the packet or frame (vxlan.Fault)
	OutFrames, OutBytes counter // given to the port, or waiting for its next hop
	OutDropped          counter // too large, without a route, or no memory
	_                   [2]counter
}

// SegmentCounts are the counters of one segment: in each list those of all workers, by number. Control makes them, takes new ones for
// a peer, access port or segment that gets another's index, and reads their sums.
type SegmentCounts struct {
	Segment []SegmentCounters
	Group   []PlaceCounters
	Peers   [][]PlaceCounters // by peer index
	Access  [][]PlaceCounters // by access index
}

// SegmentTraffic is the sum of SegmentCounters over all workers.
type SegmentTraffic struct {
	InFrames  uint64 `json:"in_frames"`
	InBytes   uint64 `json:"in_bytes"`
	OutFrames uint64 `json:"out_frames"`
	OutBytes  uint64 `json:"out_bytes"`
	Floods    uint64 `json:"floods"`
	Copies    uint64 `json:"copies"`
	ToGateway uint64 `json:"to_gateway"`
}

// PlaceTraffic is the sum of PlaceCounters over all workers.
type PlaceTraffic struct {
	InFrames   uint64 `json:"in_frames"`
	InBytes    uint64 `json:"in_bytes"`
	InDropped  uint64 `json:"in_dropped"`
	OutFrames  uint64 `json:"out_frames"`
	OutBytes   uint64 `json:"out_bytes"`
	OutDropped uint64 `json:"out_dropped"`
}

// Sum reads the segment's own counters; drops are indexed by Drop.
func (c *SegmentCounts) Sum() (t SegmentTraffic, drops [NumDrops]uint64) {
	for i := range c.Segment {
		s := &c.Segment[i]
		t.InFrames += s.InFrames.load()
		t.InBytes += s.InBytes.load()
		t.OutFrames += s.OutFrames.load()
		t.OutBytes += s.OutBytes.load()
		t.Floods += s.Floods.load()
		t.Copies += s.Copies.load()
		t.ToGateway += s.Gateway.load()
		for d := range drops {
			drops[d] += s.Drops[d].load()
		}
	}
	return t, drops
}

// SumPlace reads the counters of one place.
func SumPlace(workers []PlaceCounters) (t PlaceTraffic) {
	for i := range workers {
		p := &workers[i]
		t.InFrames += p.InFrames.load()
		t.InBytes += p.InBytes.load()
		t.InDropped += p.InDropped.load()
		t.OutFrames += p.OutFrames.load()
		t.OutBytes += p.OutBytes.load()
		t.OutDropped += p.OutDropped.load()
	}
	return t
}

// uncounted takes the counts of what nobody counts: a snapshot that has no counters, or that became another in mid-vector (Worker.backend)
// where the segment is no more.
type uncounted struct {
	segment SegmentCounters
	place   PlaceCounters
}

// segmentCounters are this worker's of the segment with that index.
func (w *Worker) segmentCounters(index uint16) *SegmentCounters {
	if o := w.snap.Overlay; o != nil && int(index) < len(o.Counts) {
		if c := o.Counts[index].Segment; w.id < len(c) {
			return &c[w.id]
		}
	}
	return &w.uncounted.segment
}

// placeCounters are this worker's of a place in a segment; those of the group stand for a peer that is none.
func (w *Worker) placeCounters(s *vxlan.Segment, p vxlan.Place) *PlaceCounters {
	o := w.snap.Overlay
	if o == nil || int(s.Index) >= len(o.Counts) {
		return &w.uncounted.place
	}
	c := &o.Counts[s.Index]
	var all []PlaceCounters
	if i, ok := p.Peer(); ok {
		if i == vxlan.NoPeer {
			all = c.Group
		} else if int(i) < len(c.Peers) {
			all = c.Peers[i]
		}
	} else if i, ok := p.Access(); ok && int(i) < len(c.Access) {
		all = c.Access[i]
	}
	if w.id < len(all) {
		return &all[w.id]
	}
	return &w.uncounted.place
}

// countIn counts a frame that has come into a segment.
func (w *Worker) countIn(a *vxlan.Arrival, size int) {
	s := w.segmentCounters(a.Segment.Index)
	s.InFrames.add(1)
	s.InBytes.add(uint64(size))
	if a.At != 0 {
		p := w.placeCounters(a.Segment, a.At)
		p.InFrames.add(1)
		p.InBytes.add(uint64(size))
	}
}

// countOut counts a frame, or the copy of one, that goes to a place of a segment.
func (w *Worker) countOut(s *vxlan.Segment, to *PlaceCounters, size int) {
	w.segmentCounters(s.Index).out(to, size)
}

// out is countOut for who has the segment's counters at hand.
func (c *SegmentCounters) out(to *PlaceCounters, size int) {
	c.OutFrames.add(1)
	c.OutBytes.add(uint64(size))
	to.OutFrames.add(1)
	to.OutBytes.add(uint64(size))
}

// countDrop counts a frame of a segment that is dropped. What was given to a port already and is lost there, in a full ring or for want of a
// next hop in the underlay, is no segment's: it counts in Counters.Drops alone.
func (w *Worker) countDrop(r segmentRef, d Drop) {
	if r != 0 {
		w.segmentCounters(uint16(r - 1)).Drops[d].add(1)
	}
}
