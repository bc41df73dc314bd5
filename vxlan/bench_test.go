package vxlan

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

func BenchmarkEncap(b *testing.B) {
	for _, size := range []int{64, 512, 1450} {
		for _, o := range []TunnelOptions{options4(), {VNI: 1, Local: ours, Peer: peer, Checksum: true}, options6(), {VNI: 1, Local: ours6, Peer: peer6, ZeroChecksum6: true}} {
			b.Run(fmt.Sprintf("inner=%d/v6=%v/checksum=%v", size, o.Local.Is6(), o.Checksum || o.Local.Is6() && !o.ZeroChecksum6), func(b *testing.B) {
				tunnel := mustTunnel(b, o)
				e := NewEntropy([2]uint64{1, 2})
				f := newChunk(b).parsed(b, pkttest.UDP(client, server).Size(size).Frame(hostA, hostB))
				before := *f
				b.ReportAllocs()
				for b.Loop() {
					*f = before
					tunnel.Encap(f, e.Of(f))
				}
			})
		}
	}
}

func BenchmarkDecap(b *testing.B) {
	for _, size := range []int{64, 512, 1450} {
		for _, r := range []received{{}, {checksum: true}, {v6: true, checksum: true}} {
			b.Run(fmt.Sprintf("inner=%d/v6=%v/checksum=%v", size, r.v6, r.checksum), func(b *testing.B) {
				var edit func(o *SegmentOptions)
				if r.v6 {
					edit = over6
				}
				s := segmentsOf(b, testSegment(b, edit))
				f := newChunk(b).parsed(b, r.frame(pkttest.UDP(client, server).Size(size).Frame(hostA, hostB)))
				before := *f
				b.ReportAllocs()
				for b.Loop() {
					*f = before
					if _, fault := s.Decap(f); fault != FaultNone {
						b.Fatal(fault)
					}
				}
			})
		}
	}
}

// filled is an FDB with n entries, and where they are in random order.
func filled(b *testing.B, n int) (*FDB, []Query) {
	f := newFDB(b, n, 1)
	q := make([]Query, n)
	for i := range q {
		q[i].MAC = station(i)
		if f.Learn(0, station(i), AtPeer(uint16(i%64)), 1) != New {
			b.Fatal("not learned")
		}
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { q[i], q[j] = q[j], q[i] })
	return f, q
}

func BenchmarkFDBLookup(b *testing.B) {
	for _, entries := range []int{1 << 10, 1 << 16, 1 << 20} {
		for _, vector := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("entries=%d/vector=%d", entries, vector), func(b *testing.B) {
				f, q := filled(b, entries)
				b.ReportAllocs()
				at := 0
				for b.Loop() {
					f.Lookup(q[at : at+vector])
					if at += vector; at+vector > len(q) {
						at = 0
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*vector), "ns/frame")
			})
		}
	}
}

func BenchmarkFDBLearnKnown(b *testing.B) {
	for _, entries := range []int{1 << 10, 1 << 16, 1 << 20} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			f, q := filled(b, entries)
			f.Lookup(q) // for the places
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := &q[i&(entries-1)]
				f.Learn(0, p.MAC, p.Place, 1)
			}
		})
	}
}

func BenchmarkFDBMove(b *testing.B) {
	f, q := filled(b, 1<<16)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Learn(0, q[i&(1<<16-1)].MAC, AtPeer(uint16(100+i>>16)), Second(1+i>>16*1000))
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, entries := range []int{1 << 10, 1 << 16} {
		b.Run(fmt.Sprintf("entries=%d/vector=256", entries), func(b *testing.B) {
			n := newNeighbors(b, entries, 1)
			q := make([]NeighborQuery, entries)
			for i := range q {
				q[i].Addr = Addr{Lo: 198<<24 | uint64(i)}
				n.Learn(0, q[i].Addr, false, station(i), Confirmed, 1)
			}
			b.ReportAllocs()
			at := 0
			for b.Loop() {
				n.Resolve(q[at:at+packet.VectorSize], 1)
				at = (at + packet.VectorSize) & (entries - 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packet.VectorSize), "ns/frame")
		})
	}
}

func TestNoAllocations(t *testing.T) {
	f := newFDB(t, 1<<12, 1)
	n := newNeighbors(t, 1<<12, 1)
	strangers := NewStrangers([2]uint64{})
	e := NewEntropy([2]uint64{1, 2})
	tunnel, tunnel6 := mustTunnel(t, options4()), mustTunnel(t, options6())
	segments := segmentsOf(t, testSegment(t, nil))
	out := newChunk(t).parsed(t, inner())
	in := newChunk(t).parsed(t, received{checksum: true, tos: 3}.frame(pkttest.TCP(client, server).TOS(1).Frame(hostA, hostB)))
	outWas, inWas := *out, *in
	ch := newChunk(t)
	arp := *ch.parsed(t, arpFrame(t, nil))
	ch = newChunk(t)
	nd := *ch.parsed(t, ndFrame(t, nil))
	var g Gate
	g.Set(5)
	var q [8]Query
	var nq [8]NeighborQuery
	var b [NDLen]byte
	i := 0
	for name, run := range map[string]func(){
		"Encap":   func() { *out = outWas; tunnel.Encap(out, e.Of(out)) },
		"Encap6":  func() { *out = outWas; tunnel6.Encap(out, e.Of(out)) },
		"Decap":   func() { *in = inWas; segments.Decap(in) },
		"Lookup":  func() { f.Lookup(q[:]) },
		"Learn":   func() { i++; f.Learn(0, station(i&255), AtPeer(uint16(i)), Second(i)) },
		"Expire":  func() { f.Expire(Second(i), 64); n.Expire(Second(i), 64) },
		"Resolve": func() { i++; nq[0].Addr.Lo = uint64(i); n.Resolve(nq[:], Second(i)) },
		"neighbours": func() {
			i++
			n.Learn(0, Addr{Lo: 1<<24 + uint64(i&255)}, false, station(i), Heard, Second(i))
			n.Known(0, Addr{Lo: 1 << 24}, false, Second(i))
		},
		"Note": func() { i++; strangers.Note(1, Addr{Lo: uint64(i)}, false, Second(i)) },
		"messages": func() {
			a, _ := ReadARP(&arp)
			PutARPReply(b[:], &a, 2)
			s, _ := ReadND(&nd)
			PutNDReply(b[:], &s, 2, true)
		},
		"Allow": func() { g.Allow(int64(i)) },
	} {
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
