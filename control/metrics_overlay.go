package control

import (
	"strconv"

	"weir/control/metrics"
	"weir/dataplane"
)

// Metrics of the overlay. Frames and bytes are of inner frames. Strangers are counted by their number alone: who sends made-up packets must
// not be able to make time series.
var (
	segmentUp        = metrics.NewGauge("weir_vxlan_segment_up", "1 if the segment is up: its VTEP is ours and there is a way to a peer", "vni")
	segmentInfo      = metrics.NewGauge("weir_vxlan_segment_info", "A segment, its VTEP and how it floods: always 1", "vni", "vtep", "udp_port", "bum_mode")
	segmentFrames    = metrics.NewCounter("weir_vxlan_frames_total", "Frames that came into the segment (in) and left for a place of it (out), copies too", "vni", "direction")
	segmentBytes     = metrics.NewCounter("weir_vxlan_bytes_total", "Bytes of these frames", "vni", "direction")
	segmentFloods    = metrics.NewCounter("weir_vxlan_floods_total", "Frames that were for all: broadcast, multicast, unknown stations", "vni")
	segmentCopies    = metrics.NewCounter("weir_vxlan_copies_total", "Copies made of them", "vni")
	segmentGateway   = metrics.NewCounter("weir_vxlan_gateway_frames_total", "Frames to the segment's gateway", "vni")
	segmentDrops     = metrics.NewCounter("weir_vxlan_drops_total", "Frames of the segment that were dropped, by reasons that occurred; also in weir_drops_total", "vni", "reason")
	segmentStations  = metrics.NewGauge("weir_vxlan_fdb_entries", "Stations that the segment knows, static ones too", "vni")
	segmentStatic    = metrics.NewGauge("weir_vxlan_fdb_static_entries", "Of these the static ones", "vni")
	segmentFrozen    = metrics.NewGauge("weir_vxlan_fdb_frozen_entries", "Stations that moved too often and stay where they are for now", "vni")
	segmentLimit     = metrics.NewGauge("weir_vxlan_fdb_entries_limit", "Stations that the segment may learn", "vni")
	segmentMoves     = metrics.NewCounter("weir_vxlan_fdb_moves_total", "Moves of stations from one place to another", "vni")
	segmentFlaps     = metrics.NewCounter("weir_vxlan_fdb_flaps_total", "How often a station was frozen", "vni")
	segmentRefused   = metrics.NewCounter("weir_vxlan_fdb_refused_total", "Stations not learned: no room, or too many new ones in one second", "vni")
	segmentNeighbors = metrics.NewGauge("weir_vxlan_neighbors", "Hosts that the gateway knows or asks for", "vni")
	segmentStrangers = metrics.NewGauge("weir_vxlan_strangers", "Sources that sent into the segment without being its peers, in number", "vni")

	peerUp       = metrics.NewGauge("weir_vxlan_peer_up", "1 if the way to the peer is known to the next hop's MAC address", "vni", "peer")
	peerFrames   = metrics.NewCounter("weir_vxlan_peer_frames_total", "Frames from the peer (in) and to it (out)", "vni", "peer", "direction")
	peerBytes    = metrics.NewCounter("weir_vxlan_peer_bytes_total", "Bytes of these frames", "vni", "peer", "direction")
	peerDropped  = metrics.NewCounter("weir_vxlan_peer_dropped_total", "Frames from the peer that were refused at the door (in), frames to it that were too large or had no route (out)", "vni", "peer", "direction")
	peerStations = metrics.NewGauge("weir_vxlan_peer_fdb_entries", "Stations behind the peer", "vni", "peer")

	accessFrames   = metrics.NewCounter("weir_vxlan_access_frames_total", "Frames from the access port (in) and to it (out)", "vni", "port", "vlan", "direction")
	accessBytes    = metrics.NewCounter("weir_vxlan_access_bytes_total", "Bytes of these frames", "vni", "port", "vlan", "direction")
	accessDropped  = metrics.NewCounter("weir_vxlan_access_dropped_total", "Frames from the access port that were refused at the door (in), frames to it that could not be sent (out)", "vni", "port", "vlan", "direction")
	accessStations = metrics.NewGauge("weir_vxlan_access_fdb_entries", "Stations on the access port", "vni", "port", "vlan")
	groupFrames    = metrics.NewCounter("weir_vxlan_group_frames_total", "Frames sent to the segment's multicast group", "vni")
)

var overlayFamilies = []*metrics.Family{
	segmentUp, segmentInfo, segmentFrames, segmentBytes, segmentFloods, segmentCopies, segmentGateway, segmentDrops,
	segmentStations, segmentStatic, segmentFrozen, segmentLimit, segmentMoves, segmentFlaps, segmentRefused, segmentNeighbors, segmentStrangers,
	peerUp, peerFrames, peerBytes, peerDropped, peerStations,
	accessFrames, accessBytes, accessDropped, accessStations, groupFrames,
}

// collectSegment gives the metrics of one segment.
func collectSegment(give func(f *metrics.Family, value float64, labels ...string), s *SegmentView) {
	vni := strconv.FormatUint(uint64(s.VNI), 10)
	give(segmentUp, truth(s.State == "up"), vni)
	give(segmentInfo, 1, vni, s.VTEP.String(), strconv.Itoa(int(s.Port)), s.BUMMode)
	give(segmentFrames, float64(s.InFrames), vni, "in")
	give(segmentFrames, float64(s.OutFrames), vni, "out")
	give(segmentBytes, float64(s.InBytes), vni, "in")
	give(segmentBytes, float64(s.OutBytes), vni, "out")
	give(segmentFloods, float64(s.Floods), vni)
	give(segmentCopies, float64(s.Copies), vni)
	give(segmentGateway, float64(s.ToGateway), vni)
	for reason, n := range s.Drops {
		give(segmentDrops, float64(n), vni, reason)
	}
	give(segmentStations, float64(s.Stations.Used), vni)
	give(segmentStatic, float64(s.Stations.Static), vni)
	give(segmentFrozen, float64(s.Stations.Frozen), vni)
	give(segmentLimit, float64(s.Stations.Limit), vni)
	give(segmentMoves, float64(s.Stations.Moves), vni)
	give(segmentFlaps, float64(s.Stations.Flaps), vni)
	give(segmentRefused, float64(s.Stations.Refused), vni)
	give(segmentNeighbors, float64(s.Neighbors), vni)
	give(segmentStrangers, float64(len(s.Strangers)), vni)
	place := func(frames, bytes, dropped *metrics.Family, t *dataplane.PlaceTraffic, labels ...string) {
		in, out := append(labels, "in"), append(labels[:len(labels):len(labels)], "out")
		give(frames, float64(t.InFrames), in...)
		give(frames, float64(t.OutFrames), out...)
		give(bytes, float64(t.InBytes), in...)
		give(bytes, float64(t.OutBytes), out...)
		give(dropped, float64(t.InDropped), in...)
		give(dropped, float64(t.OutDropped), out...)
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		peer := p.Address.String()
		give(peerUp, truth(p.State == resolved), vni, peer)
		place(peerFrames, peerBytes, peerDropped, &p.PlaceTraffic, vni, peer)
		give(peerStations, float64(p.Stations), vni, peer)
	}
	for i := range s.Access {
		a := &s.Access[i]
		vlan := strconv.Itoa(int(a.VLAN))
		place(accessFrames, accessBytes, accessDropped, &a.PlaceTraffic, vni, a.Port, vlan)
		give(accessStations, float64(a.Stations), vni, a.Port, vlan)
	}
	if s.Group.IsValid() {
		give(groupFrames, float64(s.Multicast.OutFrames), vni)
	}
}
