package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"weir/dataplane/packet"
)

// Kind is what is sent.
type Kind string

const (
	UDP     Kind = "udp"     // datagrams with a stamp
	SYN     Kind = "syn"     // TCP SYNs that nobody goes on with
	Connect Kind = "connect" // TCP connections: handshake, then closed by their opener
)

const fcs = 4 // frame sizes count the frame check sequence, as RFC 2544 does; no driver shows it

// Range is consecutive addresses of one family, both ends included.
type Range struct{ First, Last netip.Addr }

// ParseRange reads "198.18.0.2", "198.18.0.2-198.18.0.9" or "198.18.4.0/24", which is every address of the prefix.
func ParseRange(s string) (Range, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		p = p.Masked()
		last := p.Addr().AsSlice()
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		addr, _ := netip.AddrFromSlice(last)
		return Range{p.Addr(), addr}, nil
	}
	first, last, several := strings.Cut(s, "-")
	if !several {
		last = first
	}
	a, err := netip.ParseAddr(first)
	if err != nil {
		return Range{}, fmt.Errorf("addresses %q: must be A, A-B or A/BITS", s)
	}
	b, err := netip.ParseAddr(last)
	if err != nil || a.Is4() != b.Is4() || b.Less(a) {
		return Range{}, fmt.Errorf("addresses %q: must be A, A-B or A/BITS, of one family and in order", s)
	}
	return Range{a, b}, nil
}

// split is an address as its upper and lower 64 bits; an IPv4 address is all in the lower.
func split(a netip.Addr) (hi, lo uint64) {
	if a.Is4() {
		b := a.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// Count is the number of addresses, the largest number there is for 2^64 and more.
func (r Range) Count() uint64 {
	hi, lo := split(r.First)
	hi2, lo2 := split(r.Last)
	n := lo2 - lo
	if hi != hi2 || n == math.MaxUint64 {
		return math.MaxUint64
	}
	return n + 1
}

func (r Range) contains(a netip.Addr) bool {
	return r.First.IsValid() && a.Is4() == r.First.Is4() && !a.Less(r.First) && !r.Last.Less(a)
}

func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// Ports is consecutive port numbers, both ends included.
type Ports struct{ First, Last uint16 }

// ParsePorts reads "80" or "1024-65535".
func ParsePorts(s string) (Ports, error) {
	first, last, several := strings.Cut(s, "-")
	if !several {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a > b || a == 0 {
		return Ports{}, fmt.Errorf("ports %q: must be N or N-M, 1 to 65535", s)
	}
	return Ports{uint16(a), uint16(b)}, nil
}

// Count is the number of ports.
func (p Ports) Count() uint64 { return uint64(p.Last-p.First) + 1 }

func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// Traffic is what a port sends: a flow is a source address and port and a destination address and port.
type Traffic struct {
	Kind               Kind
	SrcMAC, DstMAC     [6]byte
	Src, Dst           Range
	SrcPorts, DstPorts Ports
	Flows              uint64 // 0: every combination there is, at most 2^32
	Shuffle            bool   // flows in random order rather than one after the other
	Mix                Mix
	TTL                uint8 // 0: 64
	Attack             Attack
}

// complete sets defaults and refuses what cannot be sent.
func (t *Traffic) complete() error {
	if t.TTL == 0 {
		t.TTL = 64
	}
	switch t.Kind {
	case "":
		t.Kind = UDP
	case UDP, SYN, Connect:
	default:
		return fmt.Errorf("traffic %q: must be udp, syn or connect", t.Kind)
	}
	if len(t.Mix) == 0 {
		t.Mix = Mix{{Bytes: 64, Weight: 1}}
	}
	if !t.Src.First.IsValid() || !t.Dst.First.IsValid() {
		return errors.New("source and destination addresses are needed")
	}
	if t.Src.First.Is4() != t.Dst.First.Is4() {
		return fmt.Errorf("sources %s and destinations %s are of different families", t.Src, t.Dst)
	}
	all := uint64(math.MaxUint64)
	if hi, n := bits.Mul64(t.Src.Count(), t.SrcPorts.Count()); hi == 0 {
		if hi, n := bits.Mul64(n, t.DstPorts.Count()); hi == 0 {
			if hi, n := bits.Mul64(n, t.Dst.Count()); hi == 0 {
				all = n
			}
		}
	}
	if t.Flows == 0 {
		t.Flows = min(all, 1<<32)
	}
	if t.Flows > all {
		return fmt.Errorf("%d flows: sources %s ports %s and destinations %s ports %s make only %d", t.Flows, t.Src, t.SrcPorts, t.Dst, t.DstPorts, all)
	}
	least := t.headers() + fcs
	if t.Kind == UDP {
		least += stampLen
	}
	if t.Kind != UDP {
		t.Mix = Mix{{Bytes: max(64, least), Weight: 1}} // segments without payload
	}
	if err := t.Mix.check(least); err != nil {
		return err
	}
	return t.checkAttack()
}

// headers is the length of the headers in front of the payload.
func (t *Traffic) headers() int { return t.l4() + t.l4Header() }

func (t *Traffic) l4() int {
	if t.Src.First.Is4() {
		return 14 + 20
	}
	return 14 + 40
}

func (t *Traffic) l4Header() int {
	if t.Kind == UDP {
		return 8
	}
	return 20
}

func (t *Traffic) protocol() uint8 {
	if t.Kind == UDP {
		return packet.ProtoUDP
	}
	return packet.ProtoTCP
}

// flow is the i-th flow's parts as numbers to add to the first of each range: source ports change first, then source addresses.
func (t *Traffic) flow(i uint64) (src, dst uint64, sport, dport uint16) {
	n := t.SrcPorts.Count()
	sport, i = uint16(i%n), i/n
	n = t.Src.Count()
	src, i = i%n, i/n
	n = t.DstPorts.Count()
	dport, i = uint16(i%n), i/n
	return src, i, sport, dport
}

// mix64 is the finalizer of splitmix64.
func mix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
