package main_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control"
	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

// seedsFor are IP packets of all kinds between a peer and a port of ours or of a server, from which mutants are made.
func seedsFor(from, to netip.AddrPort) [][]byte {
	src, dst := from.Addr(), to.Addr()
	data := []byte("garbage in, nothing out")
	udp := pkttest.UDP(from, to).Payload(make([]byte, 900))
	back := pkttest.TCP(to, from).Seq(1).Ack(1).Payload(data).Bytes()
	seeds := [][]byte{
		pkttest.TCP(from, to).SYN().Bytes(),
		pkttest.TCP(from, to).Seq(1).Ack(1).Payload(data).Bytes(),
		pkttest.TCP(from, to).FIN().Ack(7).TTL(1).Bytes(),
		pkttest.TCP(from, to).SYN().FIN().Bytes(),
		pkttest.TCP(from, to).Flags(flagRST).Bytes(),
		pkttest.TCP(from, to).SYN().BadChecksum().Bytes(),
		pkttest.UDP(from, to).Payload(data).Bytes(),
		udp.Bytes(),
		pkttest.SCTP(from, to).Bytes(),
		pkttest.Echo(src, dst, 1, 1).Bytes(),
		pkttest.ICMPPortUnreachable(src, dst, back).Bytes(),
		pkttest.ICMPTimeExceeded(src, dst, back).Bytes(),
		pkttest.ICMPTooBig(src, dst, 1280, back).Bytes(),
		pkttest.IP(src, dst, 4, back).Bytes(),
		pkttest.IP(src, dst, 132, nil).Bytes(),
	}
	for _, at := range [][]int{{8}, {8, 400}, {64, 128, 256, 512}} {
		pieces := udp.Cut(uint32(0xdead0000+len(at)), at...)
		seeds = append(seeds, pieces...)
	}
	if src.Is6() {
		seeds = append(seeds, pkttest.TCP(from, to).HopByHop().DestOptions().SYN().Bytes(), pkttest.UDP(from, to).AH().Bytes())
	} else {
		seeds = append(seeds, pkttest.TCP(from, to).SYN().BadIPChecksum().Bytes(), pkttest.UDP(from, to).DF().Payload(make([]byte, 1400)).Bytes())
	}
	return seeds
}

// throw sends n frames to the station to: packets as they are, mutants of them, and noise. The same seed gives the same frames.
func throw(t testing.TB, s *testnet.Space, dev string, seed uint64, from, to string, packets [][]byte, n int) {
	t.Helper()
	fd := packetSocket(t, s, dev, 0)
	defer unix.Close(fd)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range n {
		var frame []byte
		if r.IntN(8) == 0 {
			frame = make([]byte, 14+r.IntN(300))
			for j := range frame {
				frame[j] = byte(r.Uint32())
			}
			copy(frame, pkttest.MAC(to))
			copy(frame[12:], [][]byte{{8, 0}, {0x86, 0xdd}, {0x81, 0}}[r.IntN(3)])
		} else {
			frame = append(frame, pkttest.Frame(packets[r.IntN(len(packets))], pkttest.MAC(from), pkttest.MAC(to))...)
			for range r.IntN(4) {
				frame[12+r.IntN(len(frame)-12)] = byte(r.Uint32())
			}
			switch r.IntN(8) {
			case 0:
				frame = frame[:14+r.IntN(len(frame)-14)]
			case 1:
				frame = append(frame, make([]byte, r.IntN(60))...)
			}
		}
		copy(frame[6:], pkttest.MAC(from)) // or the switch would learn that we are elsewhere
		if len(frame) > 1514 {
			frame = frame[:1514]
		}
		if _, err := unix.Write(fd, frame); err != nil && err != unix.ENOBUFS {
			t.Errorf("frame %d of %d bytes: %v", i, len(frame), err)
			return
		}
		if i%32 == 31 {
			time.Sleep(time.Millisecond) // room for others on two cores
		}
	}
}

// accounted wants every frame that the steering program took to be among those received, which losses on the way into the ring are part of,
// unless it found no socket. It logs the books.
//
// A packet socket's ring also holds what is not ours, for the workers to pass; which of them a full ring loses nobody knows, so with
// losses there is but a bound.
func (b *bed) accounted(s control.Stats) {
	b.t.Helper()
	var taken, lost uint64
	for _, p := range s.Ports {
		lost += p.RxLost
	}
	for name, n := range s.Steering {
		if strings.HasPrefix(name, "take_") {
			taken += n
		}
	}
	drops := maps.Clone(s.Drops)
	maps.DeleteFunc(drops, func(_ string, n uint64) bool { return n == 0 })
	b.t.Logf("taken %d, lost %d, %+v, drops %v", taken, lost, s.Verdicts, drops)
	got := s.Verdicts.Received + s.Steering["dropped_unusual"] + s.Steering["dropped_no_socket"] + s.Steering["passed_stale"]
	if taken != got && (b.options.driver == "af_xdp" || taken > got || taken < got-lost) {
		b.t.Errorf("the program took %d, the workers received %d: %v", taken, s.Verdicts.Received, s.Steering)
	}
}

func TestGarbageFromBothSidesIsCountedToTheLastFrame(t *testing.T) {
	frames := 40_000 // from each side: 2 to 4 s; WEIR_SOAK=20 makes that a minute
	if testing.Short() {
		frames = 8_000
	}
	if n, err := strconv.Atoi(os.Getenv("WEIR_SOAK")); err == nil && n > 0 {
		frames *= n
	}
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			b.echoes(8000)
			for i := range b.servers {
				b.answerUDP(i, 53, func(q []byte) []byte { return q })
			}
			d := b.start(b.dnsAndWeb())
			all := streams(t, b.client, hostPort(vip4, 80), 3, 20*time.Second)
			all = append(all, streams(t, b.client, hostPort(vip6, 80), 3, 20*time.Second)...)

			var toVIP, fromServer [][]byte
			for _, x := range []struct{ client, vip, server string }{{client4, vip4, server4(0)}, {client6, vip6, server6(0)}} {
				at := func(addr string, port uint16) netip.AddrPort {
					return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
				}
				for _, ports := range [][2]uint16{{80, 8000}, {53, 53}, {9, 9}} { // the last is no service
					toVIP = append(toVIP, seedsFor(at(x.client, 2222), at(x.vip, ports[0]))...)
					fromServer = append(fromServer, seedsFor(at(x.server, ports[1]), at(x.client, 2222))...)
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { throw(t, b.client, "eth0", 1, clientMAC, wanMAC, toVIP, frames) })
			wg.Go(func() { throw(t, b.servers[0], "eth0", 2, serverMAC(0), lanMAC, fromServer, frames) })
			wg.Go(func() { // valid datagrams in between; an answer may be lost in a full ring
				for i := range 200 {
					c, err := dial(b.client, "udp", hostPort([]string{vip4, vip6}[i%2], 53))
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = c.Write([]byte("query"))
					_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
					_, _ = c.Read(make([]byte, 64))
					c.Close()
				}
			})
			wg.Wait()
			d.runs()
			flows(t, all, 15*time.Second)
			finish(t, all)
			// What waits for a first fragment gives up after 250 ms, what waits for a neighbour after 1 s.
			eventually(t, 5*time.Second, "nothing is held", func() bool { return d.now().Verdicts.Held == 0 })
			s := d.settled()

			reasons := 0
			for _, n := range s.Drops {
				if n > 0 {
					reasons++
				}
			}
			if v := s.Verdicts; reasons < 8 || v.Forwarded == 0 || v.Answered == 0 || v.Punted == 0 || v.Dropped == 0 || v.Held != 0 {
				t.Errorf("garbage of all kinds came to %+v, drops %s", v, d.cli("drops"))
			}
			b.accounted(s)
			works(t, b.client, hostPort(vip4, 80), 1)
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			b.nothingLeft(d)
		})
	}
}

func TestASYNFloodLeavesEstablishedConnectionsAlone(t *testing.T) {
	syns, capacity := 200_000, 4096
	if testing.Short() {
		syns = 40_000
	}
	b := newBed(t, options{})
	b.echoes(8000)
	must(t, b.lb.Route("198.18.64.0/18", client4)) // so that answers to the sources leave; the client drops them
	must(t, b.client.Sysctl("net/ipv4/ip_forward", "0"))
	d := b.start(b.tcp(fmt.Sprintf("conntrack: {max_connections: %d, syn_cookies: off}", capacity))) // a cookie asks before there is a connection
	all := streams(t, b.client, hostPort(vip4, 80), 3, 20*time.Second)

	fd := packetSocket(t, b.client, "eth0", 0)
	defer unix.Close(fd)
	r := rand.New(rand.NewPCG(4, 2))
	vip := netip.MustParseAddrPort(hostPort(vip4, 80))
	begun := time.Now()
	for range syns {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 64 + byte(r.IntN(64)), byte(r.Uint32())}), uint16(1024+r.IntN(60000)))
		if _, err := unix.Write(fd, pkttest.TCP(from, vip).SYN().Seq(r.Uint32()).Frame(pkttest.MAC(clientMAC), pkttest.MAC(wanMAC))); err != nil && err != unix.ENOBUFS {
			t.Fatal(err)
		}
	}
	took := time.Since(begun)
	flows(t, all, 15*time.Second)
	finish(t, all)
	s := d.settled()
	t.Logf("%d SYNs in %v", syns, took)
	b.accounted(s)
	// Half-open connections have a quarter of the table: each beyond it makes an older one give way.
	var now control.Status
	must(t, control.NewClient(d.socket).Get("/status", &now))
	if now.HalfOpen > now.HalfOpenCap || now.HalfOpenCap != capacity/4 || now.Evicted == 0 || s.Drops["table_full"] != 0 || s.Verdicts.Received < uint64(syns)/4 {
		t.Errorf("%+v; %+v, drops %s", now, s.Verdicts, d.cli("drops"))
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
