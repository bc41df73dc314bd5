package packet_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

var (
	client  = netip.MustParseAddrPort("198.18.128.7:4000")
	vip     = netip.MustParseAddrPort("198.18.9.9:80")
	client6 = netip.MustParseAddrPort("[2001:db8:c::7]:4000")
	vip6    = netip.MustParseAddrPort("[2001:db8:9::9]:80")
	routerA = netip.MustParseAddr("198.18.0.2")
	router6 = netip.MustParseAddr("2001:db8::2")

	macA = pkttest.MAC("02:00:00:00:00:0a")
	macB = pkttest.MAC("02:00:00:00:00:0b")
)

// frames holds one frame at a time in a pool of one chunk, as a driver would leave it.
type frames struct {
	pool *packet.Pool
	f    packet.Frame
}

func newFrames(t testing.TB) *frames {
	t.Helper()
	pool, err := packet.NewPool(make([]byte, 4096), 4096)
	if err != nil {
		t.Fatal(err)
	}
	return &frames{pool: pool}
}

// open places b in the chunk with poison around it: nothing may be read there.
func (s *frames) open(t testing.TB, b []byte) *packet.Frame {
	t.Helper()
	mem := s.pool.Memory()
	for i := range mem {
		mem[i] = 0x5a
	}
	if len(b) > len(mem)-packet.Headroom {
		t.Skipf("%d bytes do not fit into a chunk", len(b))
	}
	n := copy(mem[packet.Headroom:], b)
	if !s.f.Open(s.pool, packet.Desc{Addr: packet.Headroom, Len: uint32(n)}) {
		t.Fatal("Open refused a frame in the pool's only chunk")
	}
	return &s.f
}

// parsed is the frame of b, which must have no fault.
func (s *frames) parsed(t testing.TB, b []byte) *packet.Frame {
	t.Helper()
	f := s.open(t, b)
	if fault := packet.Parse(f); fault != packet.FaultNone {
		t.Fatalf("Parse: %v\n% x", fault, b)
	}
	return f
}

func frame(p pkttest.Packet) []byte { return p.Frame(macA, macB) }
