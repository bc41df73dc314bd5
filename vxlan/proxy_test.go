package vxlan

import "testing"

// What may be answered in a station's stead: an IPv4 address that was heard of, an IPv6 one whose station has said whether it is a router.
func TestProxy(t *testing.T) {
	four, six := Addr{Lo: 0xc6124007}, Addr{0x20010db8 << 32, 7}
	const a, b = MAC(0x02000000000a), MAC(0x02000000000b)
	n, err := NewNeighbors(NeighborsOptions{Capacity: 8, Segments: 1})
	if err != nil {
		t.Fatal(err)
	}
	n.Configure(0, 8, 60)
	for _, step := range []struct {
		name   string
		do     func()
		v6     bool
		now    Second
		mac    MAC
		router bool
	}{
		{"IPv4, unknown", nil, false, 10, 0, false},
		{"IPv4, asked for by us alone", func() { n.Resolve([]NeighborQuery{{Addr: four}}, 10) }, false, 10, 0, false},
		{"IPv4, heard of", func() { n.Learn(0, four, false, a, Heard, 10) }, false, 69, a, false},
		{"IPv4, after the ageing time", nil, false, 70, 0, false},
		{"IPv6, of which a solicitation told", func() { n.Learn(0, six, true, a, Heard, 10) }, true, 11, 0, false},
		{"IPv6, a host", func() { n.Learn(0, six, true, a, Confirmed, 12); n.Advertised(0, six, a, false) }, true, 12, a, false},
		{"IPv6, a router", func() { n.Advertised(0, six, a, true) }, true, 12, a, true},
		{"IPv6, what another MAC says of it", func() { n.Advertised(0, six, b, false) }, true, 12, a, true},
		{"IPv6, another MAC, of which nothing is known", func() { n.Learn(0, six, true, b, Heard, 13) }, true, 13, 0, false},
		{"IPv6, the MAC of before", func() { n.Learn(0, six, true, a, Heard, 14) }, true, 14, 0, false},
	} {
		if step.do != nil {
			step.do()
		}
		addr := four
		if step.v6 {
			addr = six
		}
		if mac, router := n.Proxy(0, addr, step.v6, step.now); mac != step.mac || router != step.router {
			t.Errorf("%s: %s, router %v; want %s, %v", step.name, mac, router, step.mac, step.router)
		}
	}
	n.Proxied(0)
	if n.Count(0, NeighborProxied) != 1 {
		t.Error("an answer was not counted")
	}
}

func TestPutNDProxy(t *testing.T) {
	six, asker := Addr{0x20010db8 << 32, 7}, Addr{0x20010db8 << 32, 9}
	const mac, from = MAC(0x02000000000a), MAC(0x02000000000b)
	for _, router := range []bool{false, true} {
		f := newChunk(t)
		b := make([]byte, 128)
		n := PutNDProxy(b, &ND{Src: asker, SrcMAC: from, Target: six}, mac, router)
		got, ok := ReadND(f.parsed(t, b[:n]))
		want := ND{Advertisement: true, Solicited: true, Router: router, MAC: mac, Src: six, SrcMAC: mac, Target: six}
		if !ok || got != want || MACOf(b) != from {
			t.Errorf("router %v: %+v, %v, to %s", router, got, ok, MACOf(b))
		}
	}
	if n := PutNDProxy(make([]byte, NDLen-1), &ND{}, mac, false); n != 0 {
		t.Errorf("%d bytes in a buffer that is too short", n)
	}
}
