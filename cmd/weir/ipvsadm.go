package main

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"weir/control"
)

// printIPVSAdm prints what ipvsadm -Ln would, byte for byte in its columns, so that scripts and eyes carry over.
func printIPVSAdm(w io.Writer, services []control.ServiceView, size int) {
	fmt.Fprintf(w, "IP Virtual Server version 1.2.1 (size=%d)\n", size)
	fmt.Fprintln(w, "Prot LocalAddress:Port Scheduler Flags")
	fmt.Fprintln(w, "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn")
	for _, s := range services {
		fmt.Fprintf(w, "%-4s %s %s%s\n", strings.ToUpper(s.Protocol), endpoint(s), s.Scheduler, ipvsFlags(s))
		for _, b := range s.Backends {
			fmt.Fprintf(w, "  -> %-28s %-7s %-6d %-10d %-10d\n", hostPort(b.Address, b.Port), ipvsForward(b.Forward), b.Weight, b.Active, b.Inactive)
		}
	}
}

// ipvsFlags is what follows the scheduler, in ipvsadm's order and words.
func ipvsFlags(s control.ServiceView) string {
	var b strings.Builder
	if len(s.Flags) > 0 {
		// In the order of the kernel's bits sh-fallback comes before sh-port, and mh-fallback before mh-port.
		fmt.Fprintf(&b, " (%s)", strings.Join(slices.Sorted(slices.Values(s.Flags)), ","))
	}
	if p := s.Persistence; p != nil {
		fmt.Fprintf(&b, " persistent %d", p.TimeoutS)
		switch {
		case p.Prefix == s.VIP.Addr().BitLen():
		case s.VIP.Addr().Is4():
			var mask [4]byte
			binary.BigEndian.PutUint32(mask[:], ^uint32(0)<<(32-p.Prefix))
			fmt.Fprintf(&b, " mask %s", netip.AddrFrom4(mask))
		default:
			fmt.Fprintf(&b, " mask %d", p.Prefix)
		}
	}
	if s.OnePacket {
		b.WriteString(" ops")
	}
	return b.String()
}

// ipvsForward is a forward mode in ipvsadm's words.
func ipvsForward(mode string) string {
	switch mode {
	case "nat", "fullnat":
		return "Masq"
	case "dr":
		return "Route"
	}
	return "Tunnel"
}

// sortIPVSAdm sorts services and their backends as ipvsadm -L does unless told --nosort. The scheduler's order is not affected.
func sortIPVSAdm(services []control.ServiceView) {
	protocols := []string{"tcp", "udp", "sctp"} // in the order of their numbers
	slices.SortStableFunc(services, func(a, b control.ServiceView) int {
		return cmp.Or(
			cmp.Compare(a.VIP.Addr().BitLen(), b.VIP.Addr().BitLen()),
			cmp.Compare(slices.Index(protocols, a.Protocol), slices.Index(protocols, b.Protocol)),
			compareIPVSAdm(a.VIP.Addr(), b.VIP.Addr()),
			cmp.Compare(a.Port, b.Port))
	})
	for i := range services {
		slices.SortStableFunc(services[i].Backends, func(a, b control.BackendView) int {
			return cmp.Or(cmp.Compare(a.Address.BitLen(), b.Address.BitLen()), compareIPVSAdm(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
		})
	}
}

// compareIPVSAdm compares addresses of one family. ipvsadm takes the difference of 32-bit words for a signed number, so that of two
// which lie 2^31 or more apart the smaller comes last: 10.0.0.1 after 198.18.9.9.
func compareIPVSAdm(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for len(x) >= 4 {
		if d := int32(binary.BigEndian.Uint32(x) - binary.BigEndian.Uint32(y)); d != 0 {
			return cmp.Compare(d, 0)
		}
		x, y = x[4:], y[4:]
	}
	return 0
}
