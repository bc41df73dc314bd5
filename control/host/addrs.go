package host

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Address is one address of a device.
type Address struct {
	Ifindex  int
	Prefix   netip.Prefix // the address with the length of its prefix, not masked
	Flags    uint32       // IFA_F_*
	Protocol uint8        // who added it (IFA_PROTO, Linux 5.18); 0 if nobody said so or the kernel does not keep it
}

// addresses are all addresses of the namespace, of both families.
func (h *Host) addresses() ([]Address, error) {
	var out []Address
	err := h.dump(unix.RTM_GETADDR, func() { out = nil }, func(msg []byte) {
		if a, ok := parseAddress(msg); ok {
			out = append(out, a)
		}
	}, raw(make([]byte, unix.SizeofIfAddrmsg)))
	if err != nil {
		return nil, fail("RTM_GETADDR", "all", err)
	}
	return out, nil
}

// parseAddress reads an RTM_NEWADDR or RTM_DELADDR message. IPv4 has the address in IFA_LOCAL and, on a point-to-point link, the
// peer's in IFA_ADDRESS; IPv6 has it in IFA_ADDRESS unless there is a peer.
func parseAddress(msg []byte) (Address, bool) {
	if len(msg) < unix.SizeofIfAddrmsg {
		return Address{}, false
	}
	a := Address{Flags: uint32(msg[2]), Ifindex: int(u32(msg[4:]))}
	var local, addr netip.Addr
	attrs(msg[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFA_LOCAL:
			local = ipAttr(v)
		case unix.IFA_ADDRESS:
			addr = ipAttr(v)
		case unix.IFA_FLAGS:
			a.Flags = u32(v)
		case ifaProto:
			if len(v) > 0 {
				a.Protocol = v[0]
			}
		}
	})
	if !local.IsValid() {
		local = addr
	}
	a.Prefix = netip.PrefixFrom(local, int(msg[1]))
	return a, a.Prefix.IsValid()
}

// infinite is the lifetime of an address that does not age.
const infinite = ^uint32(0)

// addAddress adds addr as a host prefix to the device, marked as ours. It reports EEXIST if the device has it.
//
// An IPv6 VIP is not probed for (IFA_F_NODAD: a failed probe would silence it, and its twin on another port of ours would be the one
// to answer), brings no route (IFA_F_NOPREFIXROUTE) and is deprecated from the start (preferred lifetime 0), so that the host never
// takes it as the source of a connection of its own, as keepalived does. An IPv4 VIP on lo is a source only for a device with no address.
func (h *Host) addAddress(ifindex int, addr netip.Addr) error {
	flags := uint32(unix.IFA_F_PERMANENT)
	body := []nl.NetlinkRequestData{
		raw(nil), // the header, once the flags are known
		nl.NewRtAttr(unix.IFA_LOCAL, addr.AsSlice()),
		nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()),
		nl.NewRtAttr(ifaProto, []byte{Protocol}),
	}
	if addr.Is6() {
		flags |= unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		life := append(nl.Uint32Attr(0), nl.Uint32Attr(infinite)...) // preferred, valid, and two that are the kernel's to write
		body = append(body, nl.NewRtAttr(unix.IFA_CACHEINFO, append(life, make([]byte, 8)...)))
	}
	body[0] = addrHeader(ifindex, addr, uint8(flags))
	body = append(body, nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
	return h.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, nil, body...)
}

func (h *Host) deleteAddress(ifindex int, addr netip.Addr) error {
	return h.request(unix.RTM_DELADDR, unix.NLM_F_ACK, nil, addrHeader(ifindex, addr, 0),
		nl.NewRtAttr(unix.IFA_LOCAL, addr.AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
}

// addrHeader is a struct ifaddrmsg for a host prefix.
func addrHeader(ifindex int, addr netip.Addr, flags uint8) raw {
	b := append(raw{familyOf(addr), uint8(addr.BitLen()), flags, unix.RT_SCOPE_UNIVERSE}, nl.Uint32Attr(uint32(ifindex))...)
	return b
}
