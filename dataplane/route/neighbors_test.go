package route

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func find(n *Neighbors, port int, a netip.Addr) *[6]byte {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return n.Lookup4(port, binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return n.Lookup6(port, binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
}

func TestNeighbors(t *testing.T) {
	mac := func(b byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, b} }
	n := NewNeighbors([]Neighbor{
		{Port: 0, Addr: netip.MustParseAddr("198.18.0.2"), MAC: mac(1), Valid: true},
		{Port: 1, Addr: netip.MustParseAddr("198.18.0.2"), MAC: mac(2), Valid: true},
		{Port: 0, Addr: netip.MustParseAddr("198.18.0.3"), MAC: mac(3)},
		{Port: 0, Addr: netip.MustParseAddr("::ffff:198.18.0.4"), MAC: mac(4), Valid: true},
		{Port: 0, Addr: netip.MustParseAddr("fe80::1%eth1"), MAC: mac(5), Valid: true},
		{Port: 0, Addr: netip.MustParseAddr("2001:db8::2"), MAC: mac(6), Valid: true},
		{Port: 0, Addr: netip.MustParseAddr("2001:db8::2"), MAC: mac(7), Valid: true},
		{Port: -1, Addr: netip.MustParseAddr("198.18.0.5"), MAC: mac(8), Valid: true},
		{Port: 2, MAC: mac(9), Valid: true},
		{Port: 0, Addr: netip.MustParseAddr("0.0.0.0"), MAC: mac(10), Valid: true},
	})
	tests := []struct {
		name string
		port int
		addr string
		want byte // 0: unknown
	}{
		{"known", 0, "198.18.0.2", 1},
		{"the same address on another link is another host", 1, "198.18.0.2", 2},
		{"on a third link it is unknown", 2, "198.18.0.2", 0},
		{"not valid yet", 0, "198.18.0.3", 0},
		{"IPv4 mapped into IPv6", 0, "198.18.0.4", 4},
		{"a zone is ignored", 0, "fe80::1", 5},
		{"of two the later counts", 0, "2001:db8::2", 7},
		{"unknown, IPv6", 0, "2001:db8::3", 0},
		{"of a device that is none of ours", -1, "198.18.0.5", 0},
		{"zero is an address like any other", 0, "0.0.0.0", 10},
		{"and not there where it is not", 1, "::", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := find(n, tt.port, netip.MustParseAddr(tt.addr))
			switch {
			case got == nil && tt.want != 0:
				t.Errorf("unknown, want %x", mac(tt.want))
			case got != nil && *got != mac(tt.want):
				t.Errorf("%x, want %x", *got, mac(tt.want))
			}
		})
	}
	if find(NewNeighbors(nil), 0, netip.MustParseAddr("198.18.0.2")) != nil {
		t.Error("an empty table knows a neighbour")
	}
}

func TestNeighborsEqualTheirTwin(t *testing.T) {
	type key struct {
		port int
		addr netip.Addr
	}
	rapid.Check(t, func(r *rapid.T) {
		twin := map[key][6]byte{}
		var all []Neighbor
		draw := func() key {
			bits := rapid.SampledFrom([]int{32, 128}).Draw(r, "family")
			b := make([]byte, bits/8)
			b[len(b)-1], b[0] = rapid.ByteRange(0, 40).Draw(r, "low"), rapid.ByteRange(0, 2).Draw(r, "high")
			a, _ := netip.AddrFromSlice(b)
			return key{rapid.IntRange(0, 3).Draw(r, "port"), a}
		}
		for i := range rapid.IntRange(0, 100).Draw(r, "neighbours") {
			k, mac := draw(), [6]byte{2, byte(i)}
			twin[k] = mac
			all = append(all, Neighbor{Port: k.port, Addr: k.addr, MAC: mac, Valid: true})
		}
		n := NewNeighbors(all)
		for k, want := range twin {
			if got := find(n, k.port, k.addr); got == nil || *got != want {
				r.Fatalf("%v: %v, want %x", k, got, want)
			}
		}
		for range 50 {
			k := draw()
			want, ok := twin[k]
			if got := find(n, k.port, k.addr); (got != nil) != ok || ok && *got != want {
				r.Fatalf("%v: %v, want %x %v", k, got, want, ok)
			}
		}
	})
}
