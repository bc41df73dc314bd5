package host

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weir/dataplane/route"
)

// Neighbor is an entry of the kernel's neighbour table.
type Neighbor struct {
	Ifindex  int
	Addr     netip.Addr
	MAC      [6]byte // valid if Valid says so
	State    uint16  // NUD_*
	Managed  bool    // the kernel keeps it fresh by itself (NTF_EXT_MANAGED, Linux 5.16)
	Learned  bool    // by another daemon, a BGP speaker say (NTF_EXT_LEARNED)
	Protocol uint8   // who made it (NDA_PROTOCOL); 0 for what the kernel resolved of itself
}

// usable are the states in which the kernel itself would send to the MAC: STALE, DELAY and PROBE wait for a confirmation, but are used.
const usable = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT | unix.NUD_NOARP

// Valid says if frames may be sent to the entry's MAC.
func (n Neighbor) Valid() bool { return n.State&usable != 0 }

// Route is the entry in the data path's words. It reports false for a device that is no port's.
func (n Neighbor) Route(ports PortMap) (route.Neighbor, bool) {
	p := ports.Port(n.Ifindex)
	return route.Neighbor{Port: p, Addr: n.Addr, MAC: n.MAC, Valid: n.Valid()}, p >= 0
}

// Neighbors are all entries of both families but those of multicast and broadcast groups, which the kernel computes, and proxies.
func (h *Host) Neighbors() ([]Neighbor, error) {
	var out []Neighbor
	err := h.dump(unix.RTM_GETNEIGH, func() { out = nil }, func(msg []byte) {
		if n, ok := parseNeighbor(msg); ok {
			out = append(out, n)
		}
	}, raw(make([]byte, unix.SizeofNdMsg)))
	if err != nil {
		return nil, fail("RTM_GETNEIGH", "all", err)
	}
	return out, nil
}

// neighbor is one entry. Without one the error is ENOENT.
func (h *Host) neighbor(ifindex int, addr netip.Addr) (n Neighbor, err error) {
	found := false
	err = h.request(unix.RTM_GETNEIGH, 0, func(msg []byte) { n, found = parseNeighbor(msg) },
		neighHeader(ifindex, addr, 0, 0), nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()))
	if err == nil && !found {
		err = unix.ENOENT
	}
	return n, err
}

// parseNeighbor reads an RTM_NEWNEIGH or RTM_DELNEIGH message of an IP neighbour. Bridge entries (AF_BRIDGE) are none.
func parseNeighbor(msg []byte) (Neighbor, bool) {
	if len(msg) < unix.SizeofNdMsg || msg[0] != unix.AF_INET && msg[0] != unix.AF_INET6 || msg[10]&unix.NTF_PROXY != 0 {
		return Neighbor{}, false
	}
	n := Neighbor{Ifindex: int(u32(msg[4:])), State: u16(msg[8:]), Learned: msg[10]&unix.NTF_EXT_LEARNED != 0}
	attrs(msg[unix.SizeofNdMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.NDA_DST:
			n.Addr = ipAttr(v)
		case unix.NDA_LLADDR:
			if len(v) == 6 {
				n.MAC = [6]byte(v)
			}
		case ndaProtocol:
			if len(v) > 0 {
				n.Protocol = v[0]
			}
		case ndaFlagsExt:
			n.Managed = u32(v)&ntfExtManaged != 0
		}
	})
	return n, n.Addr.IsValid() && !n.Addr.IsMulticast() && msg[11] != unix.RTN_MULTICAST && msg[11] != unix.RTN_BROADCAST
}

// neighHeader is a struct ndmsg.
func neighHeader(ifindex int, addr netip.Addr, state uint16, flags uint8) raw {
	b := append(raw{familyOf(addr), 0, 0, 0}, nl.Uint32Attr(uint32(ifindex))...)
	return append(append(b, nl.Uint16Attr(state)...), flags, 0)
}

// use makes the kernel resolve addr as if it had a packet for it (NTF_USE). Marked managed, the entry is ours and stays resolved.
func (h *Host) use(ifindex int, addr netip.Addr, managed bool, flags int) error {
	body := []nl.NetlinkRequestData{
		neighHeader(ifindex, addr, unix.NUD_NONE, unix.NTF_USE), nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()),
	}
	if managed {
		body = append(body, nl.NewRtAttr(ndaFlagsExt, nl.Uint32Attr(ntfExtManaged)), nl.NewRtAttr(ndaProtocol, []byte{Protocol}))
	}
	return h.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK|flags, nil, body...)
}

func (h *Host) deleteNeighbor(ifindex int, addr netip.Addr) error {
	err := h.request(unix.RTM_DELNEIGH, unix.NLM_F_ACK, nil, neighHeader(ifindex, addr, 0, 0), nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil // gone by itself, or with its device
	}
	return err
}
