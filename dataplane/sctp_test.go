package dataplane_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"weir/conntrack"
	. "weir/dataplane"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// Chunk types (RFC 9260 section 3.2).
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
)

// sctp is an SCTP service whose servers listen on a port of their own, or the client's.
func sctp(a ends, way Forward, port uint16) serving {
	return serving{vip: a.vip, protocol: packet.ProtoSCTP, servers: []Backend{server(netip.AddrPortFrom(a.web.Addr(), port), way)}}
}

// chunk is an SCTP packet of one chunk.
func chunk(from, to netip.AddrPort, typ uint8, size int) pkttest.Packet {
	return pkttest.SCTP(from, to).VTag(7).Chunk(typ, 0, bytes.Repeat([]byte{0xa5}, size))
}

func TestSCTP(t *testing.T) {
	for name, a := range families {
		for _, port := range []uint16{a.vip.Port(), 9000} { // one needs no new checksum, one does
			t.Run(fmt.Sprintf("%s port %d", name, port), func(t *testing.T) {
				real := netip.AddrPortFrom(a.web.Addr(), port)
				b := newBed(t, sctp(a, ForwardNAT, port).option(t))
				for _, s := range []struct {
					name   string
					typ    uint8
					size   int
					server bool
					state  conntrack.State
					active bool
				}{
					{"INIT", chunkInit, 16, false, conntrack.SCTPInit1, false},
					{"INIT ACK", chunkInitAck, 200, true, conntrack.SCTPCookieSent, false},
					{"COOKIE ECHO", chunkCookieEcho, 180, false, conntrack.SCTPCookieReplied, false},
					{"COOKIE ACK", chunkCookieAck, 0, true, conntrack.SCTPEstablished, true},
					{"DATA", chunkData, 1201, false, conntrack.SCTPEstablished, true},
					{"DATA of the server", chunkData, 12, true, conntrack.SCTPEstablished, true},
					{"SHUTDOWN", chunkShutdown, 4, false, conntrack.SCTPShutdownReceived, false},
					{"SHUTDOWN ACK", chunkShutdownAck, 0, true, conntrack.SCTPShutdownAckSent, false},
					{"SHUTDOWN COMPLETE", chunkShutdownComplete, 0, false, conntrack.SCTPClosed, false},
				} {
					in, want, leaves := chunk(a.client, a.vip, s.typ, s.size), chunk(a.client, real, s.typ, s.size), lan
					if s.server {
						in, want, leaves = chunk(real, a.client, s.typ, s.size), chunk(a.vip, a.client, s.typ, s.size), wan
					}
					run(t, b, []step{{name: s.name, in: in.Bytes(), server: s.server, verdict: Forwarded, port: leaves, want: one(want.TTL(63))}})
					if got := b.state(); got != s.state {
						t.Errorf("%s: state %v, want %v", s.name, got, s.state)
					}
					counts := [3]int{0, 1, 0}
					if s.active {
						counts = [3]int{1, 0, 0}
					}
					b.wantCounts(s.name, counts)
				}
				out, _ := b.through(false, chunk(a.client, a.vip, chunkInit, 16).Bytes())
				if out == nil || b.sum(0).Conns != 2 {
					t.Errorf("INIT on a closed association: %d connections, want a second", b.sum(0).Conns)
				}
				// The same addresses as sent, changed by the same difference: what was wrong by some bits is wrong by them.
				broken := chunk(a.client, a.vip, chunkData, 40).BadChecksum()
				out, _ = b.through(false, broken.Bytes())
				if want := chunk(a.client, real, chunkData, 40).BadChecksum().TTL(63).Bytes(); !bytes.Equal(out, want) || pkttest.Verify(out) == nil {
					t.Errorf("a wrong checksum left as\n%x, want\n%x", out, want)
				}
				b.drain()
				b.wantCounts("in the end", [3]int{})
			})
		}
	}
}

// TestSCTPWithoutAssociation: only INIT opens one.
func TestSCTPWithoutAssociation(t *testing.T) {
	a := families["v4"]
	for _, hosted := range []bool{false, true} {
		options := []bedOption{sctp(a, ForwardNAT, 9000).option(t)}
		want := step{verdict: Punted}
		if hosted {
			options, want = append(options, alone), step{verdict: Dropped, drop: DropProtocol}
		}
		b := newBed(t, options...)
		for _, typ := range []uint8{chunkData, chunkInitAck, chunkAbort, chunkShutdown, chunkCookieEcho, chunkCookieAck, 9, 13, 64, 255} {
			want.name, want.in = fmt.Sprintf("chunk %d, hosted %v", typ, hosted), chunk(a.client, a.vip, typ, 8).Bytes()
			run(t, b, []step{want})
		}
		want.name, want.in = "no chunk", pkttest.SCTP(a.client, a.vip).Bytes()
		run(t, b, []step{want})
		if n := b.engine.Table.Len(); n != 0 {
			t.Errorf("%d associations", n)
		}
	}
}

// TestSCTPInPieces: the checksum is over all of them, so that no single piece can be translated to other ports. To the same ports it can.
func TestSCTPInPieces(t *testing.T) {
	for name, a := range families {
		for _, c := range []struct {
			way  Forward
			port uint16
			drop bool
		}{{ForwardNAT, 9000, true}, {ForwardNAT, a.vip.Port(), false}, {ForwardDR, 9000, false}} {
			t.Run(fmt.Sprintf("%s %v to %d", name, c.way, c.port), func(t *testing.T) {
				b := newBed(t, sctp(a, c.way, c.port).option(t))
				b.through(false, chunk(a.client, a.vip, chunkInit, 16).Bytes())
				in := chunk(a.client, a.vip, chunkData, 2000).ID(7).Cut(7, 800, 1600)
				to := netip.AddrPortFrom(a.web.Addr(), c.port)
				if c.way == ForwardDR {
					to = a.vip
				}
				out := chunk(a.client, to, chunkData, 2000).ID(7).TTL(63).Cut(7, 800, 1600)
				for i := range in {
					s := step{name: fmt.Sprintf("piece %d", i), in: in[i], verdict: Forwarded, port: lan, want: out[i : i+1]}
					if c.drop {
						s = step{name: s.name, in: in[i], verdict: Held}
						if i == 0 {
							s.verdict, s.drop = Dropped, DropFragmentSCTP
						}
					}
					run(t, b, []step{s})
				}
			})
		}
	}
}

// TestSCTPErrors: what an ICMP error quotes has ports as TCP has.
func TestSCTPErrors(t *testing.T) {
	for name, a := range families {
		real := netip.AddrPortFrom(a.web.Addr(), 9000)
		b := newBed(t, sctp(a, ForwardNAT, 9000).option(t))
		b.through(false, chunk(a.client, a.vip, chunkInit, 16).Bytes())
		toServer, toClient := chunk(a.client, real, chunkInit, 16).TTL(63).Bytes(), chunk(a.vip, a.client, chunkInitAck, 100).Bytes()
		run(t, b, []step{
			{name: name + ": from the server's side", in: pkttest.ICMPTimeExceeded(a.web.Addr(), a.client.Addr(), toServer).Bytes(), server: true, verdict: Forwarded, port: wan,
				want: one(pkttest.ICMPTimeExceeded(a.vip.Addr(), a.client.Addr(), quoteAs(toServer, a.client, a.vip)).TTL(63))},
			{name: name + ": from the client's", in: pkttest.ICMPTooBig(a.router, a.vip.Addr(), 1300, toClient).Bytes(), verdict: Forwarded, port: lan,
				want: one(pkttest.ICMPTooBig(a.router, a.web.Addr(), 1300, quoteAs(toClient, real, a.client)).TTL(63))},
		})
	}
}

// ike is a service at the port where two hosts agree on how to encrypt.
func ike(a ends, way Forward) serving {
	s := netip.AddrPortFrom(a.second, 500)
	return serving{vip: netip.AddrPortFrom(a.vip.Addr(), 500), protocol: packet.ProtoUDP, servers: []Backend{server(netip.AddrPortFrom(a.web.Addr(), 500), way), server(s, way)}}
}

// TestESPAndAH: what has no ports goes where the talk about it went.
func TestESPAndAH(t *testing.T) {
	const esp, ah = packet.ProtoESP, packet.ProtoAH
	for name, a := range families {
		for _, proto := range []uint8{esp, ah} {
			if proto == ah && name == "v6" {
				continue // an extension header there: what follows it decides
			}
			for _, way := range []Forward{ForwardNAT, ForwardDR, ForwardIPIP} {
				t.Run(fmt.Sprintf("%s protocol %d %v", name, proto, way), func(t *testing.T) {
					b := newBed(t, ike(a, way).option(t))
					from, vip, server := netip.AddrPortFrom(a.client.Addr(), 500), netip.AddrPortFrom(a.vip.Addr(), 500), a.second
					secret := pkttest.IP(a.client.Addr(), a.vip.Addr(), proto, payload)
					run(t, b, []step{{name: "of nobody", in: secret.Bytes(), verdict: Punted}})
					b.through(false, pkttest.UDP(netip.AddrPortFrom(a.client.Addr(), 4500), vip).Bytes())
					run(t, b, []step{{name: "of a talk from another port", in: secret.Bytes(), verdict: Punted}})
					b.through(false, pkttest.UDP(from, vip).Bytes()) // the second server's
					want := secret.TTL(63).Bytes()
					if way == ForwardNAT {
						want = pkttest.IP(a.client.Addr(), server, proto, payload).TTL(63).Bytes()
					}
					out, port := b.through(false, secret.Bytes())
					if out == nil || port != lan || !bytes.Equal(innerOf(t, out, way), want) {
						t.Fatalf("to the server: %s (dropped: %v)", pkttest.String(out), b.dropped())
					}
					if n := b.sum(1); n.InPackets != 2 || n.Conns != 1 {
						t.Errorf("counted %+v", n)
					}
					b.now += 299e9
					b.through(false, secret.Bytes())
					b.after(299e9)
					b.wantCounts("it keeps the talk alive", [3]int{0, 0, 0}, [3]int{0, 1, 0})
					if way != ForwardNAT {
						return
					}
					run(t, b, []step{
						{name: "the server's", in: pkttest.IP(server, a.client.Addr(), proto, payload).Bytes(), server: true, verdict: Forwarded, port: wan,
							want: one(pkttest.IP(a.vip.Addr(), a.client.Addr(), proto, payload).TTL(63))},
						{name: "an error about it", in: pkttest.ICMPTooBig(a.router, a.vip.Addr(), 1300, pkttest.IP(a.vip.Addr(), a.client.Addr(), proto, payload).Bytes()).Bytes(),
							verdict: Forwarded, port: lan, to: secondMAC, want: one(pkttest.ICMPTooBig(a.router, server, 1300, pkttest.IP(server, a.client.Addr(), proto, payload).Bytes()).TTL(63))},
					})
				})
			}
		}
	}
}
