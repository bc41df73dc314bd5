package host_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"weir/control/host"
)

// TestSockets: the kernel's list, read in another namespace, has what was opened there, in both families.
func TestSockets(t *testing.T) {
	p := newPair(t)
	var want []host.Socket
	must(t, p.lb.Exec(func() error {
		for _, at := range []string{"198.18.0.1:8080", "[2001:db8::1]:8081"} {
			l, err := net.Listen("tcp", at)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			u, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			t.Cleanup(func() { u.Close() })
			addr := netip.MustParseAddrPort(at)
			want = append(want, host.Socket{Protocol: "tcp", Local: addr, Waits: true}, host.Socket{Protocol: "udp", Local: addr, Waits: true})
		}
		c, err := net.Dial("udp", "198.18.0.2:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		want = append(want, host.Socket{Protocol: "udp", Local: netip.MustParseAddrPort(c.LocalAddr().String())})
		return nil
	}))
	got, err := p.h.Sockets()
	must(t, err)
	order := func(s []host.Socket) (lines []string) {
		for _, x := range s {
			lines = append(lines, fmt.Sprint(x))
		}
		slices.Sort(lines)
		return lines
	}
	if g, w := order(got), order(want); !slices.Equal(g, w) {
		t.Errorf("sockets %q, want %q", g, w)
	}
}
