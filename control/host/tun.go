package host

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TUN is the way back into the kernel: an IP packet written to it is received by the host as if it had come from the device's wire.
// AF_XDP has no such way. Nobody reads from the device, which has no address unless rp_filter demands one (see Warning), and goes with
// the process.
type TUN struct {
	// read for every packet
	fd int

	h        *Host
	name     string
	index    int
	settings []Setting
	warning  string
}

// TUNOptions say how the device is made.
type TUNOptions struct {
	Name  string // exactly this; empty: the first free one of weir0, weir1, ... weir31
	MTU   int    // bytes of the largest packet: the largest MTU of the ports; 0: 1500
	Queue int    // packets that the kernel may queue towards us (nobody reads them); 0: 16
}

// NewTUN makes the device and sets it up. The errors EPERM and ENOENT of /dev/net/tun are worded with their cure.
func (h *Host) NewTUN(o TUNOptions) (*TUN, error) {
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Queue == 0 {
		o.Queue = 16
	}
	t := &TUN{h: h, fd: -1}
	err := h.in(func() error { return t.create(o.Name) })
	if err != nil {
		return nil, err
	}
	if err := t.configure(o); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// AdoptTUN is the device of another process' TUN, of which fd is a descriptor that becomes t's. The device is set up as by NewTUN.
func (h *Host) AdoptTUN(fd int, name string, o TUNOptions) (*TUN, error) {
	t := &TUN{h: h, fd: fd, name: name}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Queue == 0 {
		o.Queue = 16
	}
	req, err := unix.NewIfreq("")
	if err == nil {
		err = fail("TUNGETIFF", name, unix.IoctlIfreq(fd, unix.TUNGETIFF, req))
	}
	if err == nil && req.Name() != name {
		err = fmt.Errorf("the descriptor is of %s, not of %s", req.Name(), name)
	}
	if err == nil {
		err = t.configure(o)
	}
	if err != nil {
		return nil, err // the descriptor is the caller's still
	}
	return t, nil
}

// FD is the device's descriptor, for a successor.
func (t *TUN) FD() int { return t.fd }

// dummy is the IPv4 dummy address (RFC 7600 section 4.8): no host on any network has it.
var dummy = netip.AddrFrom4([4]byte{192, 0, 0, 8})

// iffTunExcl makes TUNSETIFF refuse a device that is there already (linux/if_tun.h).
const iffTunExcl = 0x8000

// create takes the first name that is free: a second weir in this namespace has its own device.
func (t *TUN) create(name string) error {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("open %s: %w (modprobe tun; in a container, give it the device)", path, err)
	}
	if err != nil {
		return fail("open", path, err)
	}
	names := []string{name}
	if name == "" {
		names = nil
		for i := range 32 {
			names = append(names, fmt.Sprintf("weir%d", i))
		}
	}
	for _, n := range names {
		var req *unix.Ifreq
		if req, err = unix.NewIfreq(n); err != nil {
			break
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | iffTunExcl)
		if err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err == nil {
			t.fd, t.name = fd, n
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	unix.Close(fd)
	return fail("TUNSETIFF", names[len(names)-1], err)
}

// configure makes the device one that accepts what workers hand back, and that says nothing of itself.
func (t *TUN) configure(o TUNOptions) error {
	links, err := t.h.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Name == t.name {
			t.index = l.Index
		}
	}
	v4, v6 := "net/ipv4/conf/"+t.name+"/", "net/ipv6/conf/"+t.name+"/"
	set := t.h.NewSysctls()
	// The source of a packet from a client is routed by the port, not by this device, so strict filtering drops all. The larger one of
	// "all" and the device's holds: where "all" filters at all, loosely is the best that can be had, and even that drops everything on
	// a device without an address (no_addr in the kernel's __fib_validate_source).
	filter, all := "0", t.h.sysctlInt("net/ipv4/conf/all/rp_filter")
	if all != 0 {
		filter = "2"
		t.warning = fmt.Sprintf("net/ipv4/conf/all/rp_filter is %d, so %s has the address %s and filters loosely: packets handed back "+
			"to the kernel are dropped if the host has no route to their source (cure: sysctl -w net/ipv4/conf/all/rp_filter=0)", all, t.name, dummy)
		header := addrHeader(t.index, dummy, 0)
		header[3] = unix.RT_SCOPE_HOST // never the source of anything
		// The device of another process' TUN has the address already: without NLM_F_REPLACE the kernel says EEXIST.
		err := t.h.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, nil, header,
			nl.NewRtAttr(unix.IFA_LOCAL, dummy.AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, dummy.AsSlice()))
		if err != nil {
			return fail("RTM_NEWADDR", dummy.String()+" on "+t.name, err)
		}
	}
	errs := []error{set.Set(v4+"rp_filter", filter)}
	// Packets of ours may bear a source that is an address of this host (a VIP that talks to a VIP).
	errs = append(errs, set.Set(v4+"accept_local", "1"))
	if _, err := t.h.Sysctl(v6 + "disable_ipv6"); err == nil { // not on a kernel without IPv6
		errs = append(errs,
			set.Set(v6+"addr_gen_mode", "1"), // no link-local address
			set.Set(v6+"accept_dad", "0"), set.Set(v6+"accept_ra", "0"), set.Set(v6+"autoconf", "0"), set.Set(v6+"router_solicitations", "0"))
		if t.h.sysctlInt("net/ipv6/conf/all/disable_ipv6") == 0 {
			errs = append(errs, set.Set(v6+"disable_ipv6", "0")) // net.ipv6.conf.default may have been 1
		}
	}
	t.settings = set.Changes()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(t.index), unix.IFF_UP, unix.IFF_UP
	err = t.h.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, nil, msg,
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(o.MTU))), nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(uint32(o.Queue))))
	return fail("RTM_NEWLINK", t.name, err)
}

// Name is the device's.
func (t *TUN) Name() string { return t.name }

// Index is the device's.
func (t *TUN) Index() int { return t.index }

// Settings are the kernel settings of the device that differ from those new devices get here. They go with it.
func (t *TUN) Settings() []Setting { return t.settings }

// Warning says what the host forces upon the device that costs packets; empty if nothing.
func (t *TUN) Warning() string { return t.warning }

// Write hands one IP packet, from its IP header on, to the kernel. It does not wait and allocates nothing; several workers may call it
// at the same time. It returns 0, or why the kernel refused the packet: EINVAL for what is neither IPv4 nor IPv6, EIO for a device
// that somebody set down, ENOBUFS or ENOMEM.
func (t *TUN) Write(packet []byte) syscall.Errno {
	if _, err := unix.Write(t.fd, packet); err != nil {
		if errno, ok := err.(syscall.Errno); ok {
			return errno
		}
		return unix.EIO
	}
	return 0
}

// Close removes the device. No worker may write any more: the descriptor's number may be another file's the next moment.
func (t *TUN) Close() error {
	if t.fd < 0 {
		return nil
	}
	err := unix.Close(t.fd)
	t.fd = -1
	return fail("close", t.name, err)
}
