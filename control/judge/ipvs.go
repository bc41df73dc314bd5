package judge

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel's generic netlink family IPVS (linux/ip_vs.h).
const (
	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7
	cmdSetConfig  = 12

	attrService       = 1
	attrDest          = 2
	attrTimeoutTCP    = 4
	attrTimeoutTCPFin = 5
	attrTimeoutUDP    = 6

	svcAF        = 1
	svcProtocol  = 2
	svcAddr      = 3
	svcPort      = 4
	svcSched     = 6
	svcFlags     = 7
	svcTimeout   = 8
	svcNetmask   = 9
	destAddr     = 1
	destPort     = 2
	destForward  = 3
	destWeight   = 4
	destUpper    = 5
	destLower    = 6
	destFamily   = 11
	destTunType  = 13
	destTunPort  = 14
	destTunFlags = 15

	flagPersistent = 1
	flagOnePacket  = 4
)

// ipvsFlags are the bits of a service's scheduler flags.
var ipvsFlags = map[string]uint32{"sh-fallback": 8, "sh-port": 16, "mh-fallback": 8, "mh-port": 16}

// ipvsForwards are forwarding method and tunnel type.
var ipvsForwards = map[string][2]uint32{"": {0, 0}, "nat": {0, 0}, "ipip": {2, 0}, "gue": {2, 1}, "gre": {2, 2}, "dr": {3, 0}}

var ipvsProtocols = map[string]uint16{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// ipvs speaks to the kernel in the network namespace of its thread.
type ipvs struct{ family uint16 }

func newIPVS() (*ipvs, error) {
	f, err := netlink.GenlFamilyGet("IPVS")
	if err != nil {
		return nil, fmt.Errorf("generic netlink family IPVS: %w", err)
	}
	return &ipvs{f.ID}, nil
}

func (v *ipvs) do(command uint8, attrs ...*nl.RtAttr) error {
	req := nl.NewNetlinkRequest(int(v.family), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: command, Version: 1})
	for _, a := range attrs {
		req.AddData(a)
	}
	_, err := req.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

func (v *ipvs) setTimeouts(t *Timeouts) error {
	if err := v.do(cmdSetConfig, nl.NewRtAttr(attrTimeoutTCP, nl.Uint32Attr(uint32(t.TCP))), nl.NewRtAttr(attrTimeoutTCPFin, nl.Uint32Attr(uint32(t.TCPFin))),
		nl.NewRtAttr(attrTimeoutUDP, nl.Uint32Attr(uint32(t.UDP)))); err != nil {
		return fmt.Errorf("ipvsadm --set %d %d %d: %w", t.TCP, t.TCPFin, t.UDP, err)
	}
	return nil
}

func (v *ipvs) addService(s *Service) error {
	if err := v.service(cmdNewService, s, true); err != nil {
		return err
	}
	for i := len(s.Backends) - 1; i >= 0; i-- { // the kernel puts each in front of its list
		if err := v.dest(cmdNewDest, s, &s.Backends[i]); err != nil {
			return err
		}
	}
	return nil
}

func (v *ipvs) edit(e *Edit) error {
	switch {
	case e.AddService != nil:
		return v.addService(e.AddService)
	case e.RemoveService != nil:
		return v.service(cmdDelService, e.RemoveService, false)
	case e.EditService != nil:
		return v.service(cmdSetService, e.EditService, true)
	case e.AddBackendFirst != nil:
		return v.dest(cmdNewDest, e.Service, e.AddBackendFirst)
	case e.RemoveBackend != nil:
		return v.dest(cmdDelDest, e.Service, e.RemoveBackend)
	}
	return v.dest(cmdSetDest, e.Service, e.EditBackend)
}

func (v *ipvs) service(command uint8, s *Service, full bool) error {
	a, err := serviceAttr(s, full)
	if err == nil {
		err = v.do(command, a)
	}
	if err != nil {
		return fmt.Errorf("IPVS command %d, %v: %w", command, s, err)
	}
	return nil
}

func serviceAttr(s *Service, full bool) (*nl.RtAttr, error) {
	vip, err := netip.ParseAddr(s.VIP)
	if err != nil {
		return nil, err
	}
	a := nl.NewRtAttr(attrService|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(svcAF, nl.Uint16Attr(familyOf(vip)))
	a.AddRtAttr(svcProtocol, nl.Uint16Attr(ipvsProtocols[s.Protocol]))
	a.AddRtAttr(svcAddr, address16(vip))
	a.AddRtAttr(svcPort, binary.BigEndian.AppendUint16(nil, uint16(s.Port)))
	if !full {
		return a, nil
	}
	flags, timeout := uint32(0), 0
	for _, name := range s.Flags {
		flags |= ipvsFlags[name]
	}
	if s.OnePacket {
		flags |= flagOnePacket
	}
	prefix := 0
	if s.Persistence != nil {
		flags |= flagPersistent
		timeout, prefix = s.Persistence.TimeoutS, s.Persistence.Prefix
	}
	if prefix == 0 {
		prefix = vip.BitLen()
	}
	netmask := nl.Uint32Attr(uint32(prefix)) // IPv6: the length in host order
	if vip.Is4() {
		netmask = binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix))
	}
	a.AddRtAttr(svcSched, nl.ZeroTerminated(s.Scheduler))
	a.AddRtAttr(svcFlags, append(nl.Uint32Attr(flags), nl.Uint32Attr(^uint32(0))...))
	a.AddRtAttr(svcTimeout, nl.Uint32Attr(uint32(timeout)))
	a.AddRtAttr(svcNetmask, netmask)
	return a, nil
}

func (v *ipvs) dest(command uint8, s *Service, b *Backend) error {
	service, err := serviceAttr(s, false)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(b.Address)
	if err != nil {
		return err
	}
	forward, ok := ipvsForwards[b.Forward]
	if !ok {
		return fmt.Errorf("forward %q", b.Forward)
	}
	a := nl.NewRtAttr(attrDest|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(destFamily, nl.Uint16Attr(familyOf(address)))
	a.AddRtAttr(destAddr, address16(address))
	a.AddRtAttr(destPort, binary.BigEndian.AppendUint16(nil, uint16(b.Port)))
	a.AddRtAttr(destForward, nl.Uint32Attr(forward[0]))
	a.AddRtAttr(destWeight, nl.Uint32Attr(uint32(b.Weight)))
	a.AddRtAttr(destUpper, nl.Uint32Attr(uint32(b.Upper)))
	a.AddRtAttr(destLower, nl.Uint32Attr(uint32(b.Lower)))
	if forward[1] != 0 {
		a.AddRtAttr(destTunType, []byte{uint8(forward[1])})
		a.AddRtAttr(destTunPort, binary.BigEndian.AppendUint16(nil, uint16(b.TunnelPort)))
		a.AddRtAttr(destTunFlags, nl.Uint16Attr(0))
	}
	if err := v.do(command, service, a); err != nil {
		return fmt.Errorf("IPVS command %d, %s %v: %w", command, strings.SplitN(s.String(), " -s", 2)[0], b, err)
	}
	return nil
}

func familyOf(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func address16(a netip.Addr) []byte {
	b := make([]byte, 16)
	copy(b, a.AsSlice())
	return b
}
