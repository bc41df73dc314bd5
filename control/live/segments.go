package live

import (
	"fmt"
	"net/netip"
	"slices"

	"weir/control/host"
)

// segments looks for VTEPs that the host has no address for, and for those of the kernel's that would share what is for one of ours.
func (x *examination) segments() {
	if len(x.Config.VXLAN.Segments) == 0 {
		return
	}
	locals, err := x.Host.Locals()
	if err != nil {
		x.unseen("vtep", err)
		return
	}
	others, err := x.Host.VTEPs()
	if err != nil {
		x.unseen("vxlan", err)
	}
	for i := range x.Config.VXLAN.Segments {
		s := &x.Config.VXLAN.Segments[i]
		if !slices.Contains(locals, host.HostPrefix(s.VTEP)) {
			x.at(Warning, "vtep", &s.Place, "vtep", NoVTEP(s.VTEP), fmt.Sprintf("ip addr add %s dev lo", host.HostPrefix(s.VTEP)))
		}
		for _, v := range others {
			if v.VNI == s.VNI && v.Port == s.Port {
				x.at(Warning, "vxlan", &s.Place, "vni", fmt.Sprintf("the kernel's %s has VNI %d on port %d, too: what comes for it is weir's, so %s receives nothing any more", v.Name, v.VNI, v.Port, v.Name),
					"ip link del "+v.Name)
			}
		}
	}
}

// NoVTEP says that a VTEP is no address of the host, and what to do.
func NoVTEP(a netip.Addr) string {
	return fmt.Sprintf("the VTEP %s is no address of this host, so nobody answers ARP or ND for it (cure: ip addr add %s dev lo)", a, host.HostPrefix(a))
}
