package host

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of the kernel's generic netlink family "netdev" (Documentation/netlink/specs/netdev.yaml).
const (
	netdevDevGet      = 1
	netdevIfindex     = 1
	netdevXDPFeatures = 3
	netdevNDOXmit     = 1 << 2 // in XDP features
)

// TakesXDPFrames reports whether a device takes frames that an XDP program redirects to it. A veth does while its other end has an XDP program or GRO.
// Kernels that do not tell (before 6.3) are given the benefit of the doubt.
func (h *Host) TakesXDPFrames(ifindex int) (takes bool, err error) {
	err = h.in(func() error {
		f, err := netlink.GenlFamilyGet("netdev")
		if errors.Is(err, unix.ENOENT) {
			takes = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("netlink family netdev: %w", err)
		}
		r := nl.NewNetlinkRequest(int(f.ID), 0)
		r.AddData(raw{netdevDevGet, 1, 0, 0}) // struct genlmsghdr; the kernel wants zeros in the end, where nl.Genlmsg has what comes
		r.AddData(nl.NewRtAttr(netdevIfindex, nl.Uint32Attr(uint32(ifindex))))
		msgs, err := r.Execute(unix.NETLINK_GENERIC, 0)
		if err != nil {
			return fmt.Errorf("XDP features of device %d: %w", ifindex, err)
		}
		for _, m := range msgs {
			attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
			if err != nil {
				return fmt.Errorf("XDP features of device %d: %w", ifindex, err)
			}
			for _, a := range attrs {
				if a.Attr.Type == netdevXDPFeatures && len(a.Value) >= 8 {
					takes = binary.NativeEndian.Uint64(a.Value)&netdevNDOXmit != 0
				}
			}
		}
		return nil
	})
	return takes, err
}
