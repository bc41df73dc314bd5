package host

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link is a network device as the kernel describes it now.
type Link struct {
	Name      string
	Index     int // in this namespace; kept for as long as the device lives here
	MAC       [6]byte
	MTU       int    // of the IP packet, in bytes
	Up        bool   // by the administrator (IFF_UP)
	Carrier   bool   // a signal on the wire (IFF_LOWER_UP)
	Kind      string // "veth", "vlan", "bond", "bridge", "tun", ...; "device" for hardware
	Master    int    // index of the bond or bridge that it is a part of; 0 if none
	Parent    int    // index of the device below a vlan; of a veth, its peer's index in the peer's namespace; 0 if none
	VLAN      uint16 // 802.1Q identifier of a vlan
	RxQueues  int    // allocated when the device was made; fewer may be in use, see Channels
	TxQueues  int
	Addresses []netip.Prefix // address with the prefix length it was given, also those weir bound

	// read by Link alone, not by Links and not in events
	Driver   string
	Channels Channels
}

// Channels are the queues that a device uses, and may use (`ethtool -l`).
type Channels struct {
	Rx, Tx       int // in use, combined ones counted in both
	MaxRx, MaxTx int
	Combined     bool // the device counts in pairs: `ethtool -L DEV combined N`; otherwise `rx N tx N`
}

// Links are all devices of the namespace with their addresses.
func (h *Host) Links() ([]Link, error) {
	var links []Link
	err := h.dump(unix.RTM_GETLINK, func() { links = nil }, func(msg []byte) {
		if l, ok := parseLink(msg); ok {
			links = append(links, l)
		}
	}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fail("RTM_GETLINK", "all", err)
	}
	addrs, err := h.addresses()
	if err != nil {
		return nil, err
	}
	for i := range links {
		for _, a := range addrs {
			if a.Ifindex == links[i].Index {
				links[i].Addresses = append(links[i].Addresses, a.Prefix)
			}
		}
	}
	return links, nil
}

// Link is the device of that name, with its driver and its channels.
func (h *Host) Link(name string) (Link, error) {
	links, err := h.Links()
	if err != nil {
		return Link{}, err
	}
	i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, fmt.Errorf("interface %s: not in this network namespace (see `ip link`): %w", name, unix.ENODEV)
	}
	l := links[i]
	l.Channels = Channels{Rx: l.RxQueues, Tx: l.TxQueues, MaxRx: l.RxQueues, MaxTx: l.TxQueues}
	err = h.ethtool(func(e *ethtool.Ethtool) error {
		// A driver that knows neither ioctl (lo, some tunnels) is not an error: the queue counts of netlink stand.
		l.Driver, _ = e.DriverName(name)
		if c, err := channelsOf(e, name); err == nil {
			l.Channels = c
		}
		return nil
	})
	return l, err
}

// Channels are those of the device of that name, and of no others: no event tells of a change of them, so who must know looks, which should be cheap.
// The error is that of a device that is gone, or of a driver that does not tell.
func (h *Host) Channels(name string) (c Channels, err error) {
	err = h.ethtool(func(e *ethtool.Ethtool) (err error) {
		c, err = channelsOf(e, name)
		return fail("ETHTOOL_GCHANNELS", name, err)
	})
	return c, err
}

func channelsOf(e *ethtool.Ethtool, name string) (Channels, error) {
	c, err := e.GetChannels(name)
	if err != nil {
		return Channels{}, err
	}
	return Channels{
		Rx: int(c.RxCount + c.CombinedCount), Tx: int(c.TxCount + c.CombinedCount),
		MaxRx: int(c.MaxRx + c.MaxCombined), MaxTx: int(c.MaxTx + c.MaxCombined),
		Combined: c.MaxCombined > 0,
	}, nil
}

// SetUp sets the device administratively up or down.
func (h *Host) SetUp(name string, up bool) error {
	l, err := h.Link(name)
	if err != nil {
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Change = int32(l.Index), unix.IFF_UP
	if up {
		msg.Flags = unix.IFF_UP
	}
	return fail("RTM_NEWLINK", name, h.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, nil, msg))
}

// ethtool runs f with an ioctl socket of the namespace. sysfs would be that of another namespace inside `ip netns exec` or a container.
func (h *Host) ethtool(f func(*ethtool.Ethtool) error) error {
	return h.in(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return fail("socket", "AF_INET", err)
		}
		defer e.Close()
		return f(e)
	})
}

// parseLink reads an RTM_NEWLINK or RTM_DELLINK message. The bridge's own announcements (AF_BRIDGE) of a port are not links.
func parseLink(msg []byte) (Link, bool) {
	if len(msg) < unix.SizeofIfInfomsg || msg[0] != unix.AF_UNSPEC {
		return Link{}, false
	}
	n, err := netlink.LinkDeserialize(nil, msg)
	if err != nil {
		return Link{}, false
	}
	a := n.Attrs()
	l := Link{
		Name: a.Name, Index: a.Index, MTU: a.MTU, Kind: n.Type(),
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Master: a.MasterIndex, Parent: a.ParentIndex, RxQueues: a.NumRxQueues, TxQueues: a.NumTxQueues,
	}
	if len(a.HardwareAddr) == 6 {
		l.MAC = [6]byte(a.HardwareAddr)
	}
	if v, ok := n.(*netlink.Vlan); ok {
		l.VLAN = uint16(v.VlanId)
	}
	return l, true
}
