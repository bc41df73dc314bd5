package control

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"weir/dataplane"
)

// liveWorker is a worker with what it did in the last second.
type liveWorker struct {
	WorkerView
	Load      float64 `json:"load"`       // of its core, 0 to 1; 1 all the time where it waits by polling
	Packets   float64 `json:"packets"`    // received a second
	VectorsPS float64 `json:"vectors_ps"` // non-empty ones a second
	Mean      float64 `json:"mean"`       // frames a vector
	SleepsPS  float64 `json:"sleeps_ps"`
}

func (l *sampler) workers() []liveWorker {
	all := []liveWorker{}
	for i, w := range l.glance.workers {
		x := liveWorker{WorkerView: w}
		if i < len(l.was.workers) && l.seconds > 0 {
			was := &l.was.workers[i]
			x.Load = min(1, max(0, (w.CPUSeconds-was.CPUSeconds)/l.seconds))
			x.Packets, x.VectorsPS, x.SleepsPS = l.rate(was.Received, w.Received), l.rate(was.Vectors, w.Vectors), l.rate(was.Sleeps, w.Sleeps)
			if x.VectorsPS > 0 {
				x.Mean = x.Packets / x.VectorsPS
			}
		}
		all = append(all, x)
	}
	return all
}

// livePort is a port with what it did in the last second, in frames.
type livePort struct {
	PortView
	RxPS   float64 `json:"rx_ps"`
	TxPS   float64 `json:"tx_ps"`
	LostPS float64 `json:"lost_ps"` // in both directions
}

func (l *sampler) ports() []livePort {
	all := []livePort{}
	for i, p := range l.glance.stats.Ports {
		x := livePort{PortView: p}
		if i < len(l.was.stats.Ports) {
			was := &l.was.stats.Ports[i]
			x.RxPS, x.TxPS = l.rate(was.Received, p.Received), l.rate(was.Sent, p.Sent)
			x.LostPS = l.rate(was.RxLost+was.SendLost, p.RxLost+p.SendLost)
		}
		all = append(all, x)
	}
	return all
}

// liveDrop is a reason for which frames were dropped.
type liveDrop struct {
	Reason string  `json:"reason"`
	Frames uint64  `json:"frames"`
	PS     float64 `json:"ps"` // a second
	Limit  bool    `json:"limit,omitempty"`
}

func (l *sampler) drops() []liveDrop {
	all := []liveDrop{}
	for d := dataplane.Drop(1); d < dataplane.NumDrops; d++ {
		name := d.String()
		if n := l.glance.stats.Drops[name]; n > 0 {
			all = append(all, liveDrop{name, n, l.rate(l.was.stats.Drops[name], n), limits[d]})
		}
	}
	// By totals, so that rows do not change places each second.
	slices.SortStableFunc(all, func(a, b liveDrop) int { return cmp.Compare(b.Frames, a.Frames) })
	return all
}

// liveSegment is a segment with what passed through it in the last second.
type liveSegment struct {
	SegmentView
	Rate      placeRate   `json:"rate"`
	PeerRates []placeRate `json:"peer_rates"` // of Peers
	PortRates []placeRate `json:"access_rates"`
	MorePeers int         `json:"more_peers,omitempty"` // that are not shown
}

type placeRate struct {
	InFrames  float64 `json:"in_frames"`
	InBytes   float64 `json:"in_bytes"`
	OutFrames float64 `json:"out_frames"`
	OutBytes  float64 `json:"out_bytes"`
}

// segments are all segments. Those, peers and ports that were not there a second ago have no rates.
func (l *sampler) segments() []liveSegment {
	before := map[uint32]*SegmentView{}
	for i := range l.was.stats.VXLAN {
		before[l.was.stats.VXLAN[i].VNI] = &l.was.stats.VXLAN[i]
	}
	all := []liveSegment{}
	for i := range l.glance.stats.VXLAN {
		s := liveSegment{SegmentView: l.glance.stats.VXLAN[i], PeerRates: []placeRate{}, PortRates: []placeRate{}}
		was := before[s.VNI]
		if was != nil {
			s.Rate = placeRate{l.rate(was.InFrames, s.InFrames), l.rate(was.InBytes, s.InBytes), l.rate(was.OutFrames, s.OutFrames), l.rate(was.OutBytes, s.OutBytes)}
		}
		for _, p := range s.Peers {
			var r placeRate
			if was != nil {
				if i := slices.IndexFunc(was.Peers, func(x PeerView) bool { return x.Address == p.Address }); i >= 0 {
					r = l.place(&was.Peers[i].PlaceTraffic, &p.PlaceTraffic)
				}
			}
			s.PeerRates = append(s.PeerRates, r)
		}
		for _, a := range s.Access {
			var r placeRate
			if was != nil {
				if i := slices.IndexFunc(was.Access, func(x AccessView) bool { return x.Port == a.Port && x.VLAN == a.VLAN }); i >= 0 {
					r = l.place(&was.Access[i].PlaceTraffic, &a.PlaceTraffic)
				}
			}
			s.PortRates = append(s.PortRates, r)
		}
		all = append(all, s)
	}
	return all
}

func (l *sampler) place(was, now *dataplane.PlaceTraffic) placeRate {
	return placeRate{l.rate(was.InFrames, now.InFrames), l.rate(was.InBytes, now.InBytes), l.rate(was.OutFrames, now.OutFrames), l.rate(was.OutBytes, now.OutBytes)}
}

// Bounds of what is shown of segments at once.
const (
	shownSegments = 50
	shownPeers    = 32
)

// segmentPage is the segments that somebody looks for: the first of them.
type segmentPage struct {
	Total int           `json:"total"`
	Found int           `json:"found"`
	Rows  []liveSegment `json:"rows"`
}

// segmentsOf are those whose VNI, VTEP or peer contains search.
func segmentsOf(all []liveSegment, search string) segmentPage {
	p := segmentPage{Total: len(all), Rows: []liveSegment{}}
	for _, s := range all {
		if search != "" && !strings.Contains(strconv.Itoa(int(s.VNI)), search) && !strings.Contains(s.VTEP.String(), search) &&
			!slices.ContainsFunc(s.Peers, func(x PeerView) bool { return strings.Contains(x.Address.String(), search) }) {
			continue
		}
		if p.Found++; len(p.Rows) == shownSegments {
			continue
		}
		if more := len(s.Peers) - shownPeers; more > 0 {
			s.MorePeers, s.Peers, s.PeerRates = more, s.Peers[:shownPeers], s.PeerRates[:shownPeers]
		}
		p.Rows = append(p.Rows, s)
	}
	return p
}
