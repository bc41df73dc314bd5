package host

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Binding is a VIP on a device: an address of it, or a local route to a whole prefix.
type Binding struct {
	Device string
	Prefix netip.Prefix // masked; of one address, or of more
}

func (b Binding) String() string {
	if b.Prefix.IsSingleIP() {
		return b.Prefix.Addr().String() + " on " + b.Device
	}
	return b.Prefix.String() + " on " + b.Device
}

func bindingOf(device string, a netip.Addr) Binding { return Binding{device, HostPrefix(a)} }

// HostPrefix is the prefix that holds a and nothing else.
func HostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// VIPs binds service addresses to the host, so that the kernel answers ARP and ND for them and owns what the balancer leaves to it. The
// addresses that full NAT takes as sources are bound no differently.
//
// An IPv4 VIP goes to lo: the kernel answers ARP on every device for any address of its own. An IPv6 VIP goes to each port whose link
// it is on, as ND is answered for the addresses of the device that was asked alone; one that is on no port's link is routed to us, and
// goes to lo.
//
// A VIP that is a whole prefix is a route of type local on lo, which makes every address of it the host's own; see prefixes.go.
//
// What the host had before is left alone, at bind and at unbind. Ours are known by their IFA_PROTO (Linux 5.18) or route protocol, and on
// older kernels by a file in the state directory, which also tells two weirs in one namespace apart: each needs a directory of its own.
type VIPs struct {
	h     *Host
	ports []Port
	store stateFile

	mu       sync.Mutex
	bound    map[Binding]bool // ours, on the host; the value says that the kernel keeps the mark
	touched  []string         // devices that we set up
	announce announcer
}

// NewVIPs binds nothing yet. What a killed weir with the same state directory left is taken over by the next Set.
func (h *Host) NewVIPs(ports []Port, stateDir string) (*VIPs, error) {
	v := &VIPs{h: h, ports: ports, store: newStateFile(stateDir, "vips", h)}
	var err error
	if v.bound, err = v.store.readVIPs(); err != nil {
		return nil, err
	}
	v.announce.start(h, ports)
	return v, nil
}

// SetPorts makes the ports others, and reports whether they were: then Set may have another place for a VIP.
func (v *VIPs) SetPorts(ports []Port) (changed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.Equal(ports, v.ports) {
		return false
	}
	v.ports = ports
	v.announce.setPorts(ports)
	return true
}

// Set makes the VIPs that weir has bound those of want: unbinds the others, binds what is missing, and announces the addresses that are
// new. It may be called again at any time, as after a change of the ports' addresses. On an error what could be done is done; the error
// names the rest.
func (v *VIPs) Set(want []netip.Prefix) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	links, err := v.h.Links()
	if err != nil {
		return err
	}
	addresses, err := v.h.addresses()
	if err != nil {
		return err
	}
	have, err := v.h.holdings(links, addresses)
	if err != nil {
		return err
	}
	index := make(map[string]int)
	name := make(map[int]string)
	for _, l := range links {
		index[l.Name], name[l.Index] = l.Index, l.Name
	}
	m := mapPorts(links, v.ports) // a port that is gone must not keep the others from their VIPs

	// What of ours is really there: a recorded address without the mark, where the kernel keeps marks, is somebody's who added it anew;
	// a marked one of want is a predecessor's whose record is lost.
	ours := make(map[Binding]bool)
	all := make(map[Binding]bool)
	everywhere := make(map[netip.Prefix]int) // on how many devices
	wanted := make(map[Binding]bool)
	var errs []error
	onLink := places(m, addresses)
	for _, p := range want {
		vip := unmapped(p)
		if !bindable(vip) {
			errs = append(errs, fmt.Errorf("VIP %s: must be unicast, and neither the loopback's nor link-local", printed(p)))
			continue
		}
		for _, ifindex := range onLink(vip) {
			device := "lo"
			if ifindex != 0 {
				device = name[ifindex]
			}
			wanted[Binding{device, vip}] = true
		}
	}
	for _, held := range have {
		b := held.Binding
		all[b] = true
		everywhere[b.Prefix]++
		marked, recorded := v.bound[b]
		if held.alone && (recorded && (!marked || held.protocol == Protocol) || wanted[b] && held.protocol == Protocol) {
			ours[b] = held.protocol == Protocol
		}
	}

	before := len(ours)
	for _, b := range sorted(ours) {
		if wanted[b] {
			continue
		}
		if err := v.h.unbind(index[b.Device], b); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(ours, b)
		delete(all, b)
		everywhere[b.Prefix]--
	}
	var missing []Binding
	for _, b := range sorted(wanted) {
		// Any device will do for IPv4, and for an IPv6 VIP that is routed to us.
		if !all[b] && (b.Device != "lo" || everywhere[b.Prefix] == 0) {
			missing = append(missing, b)
		}
	}
	missing, refused := v.h.harmless(missing, addresses, links, m)
	errs = append(errs, refused...)
	if len(missing) == 0 && len(ours) == before && maps.Equal(ours, v.bound) {
		return errors.Join(errs...) // as after most reloads: what is written down is right, and has been announced
	}
	// The record comes before the deed, so that no kill between the two leaves an address that nobody knows.
	v.bound = ours
	for _, b := range missing {
		v.bound[b] = false
	}
	if err := v.store.writeVIPs(v.bound); err != nil {
		for _, b := range missing {
			delete(v.bound, b)
		}
		return errors.Join(append(errs, err)...)
	}
	fresh := addrSet{}
	for _, b := range missing {
		err := v.bind(index[b.Device], b, links)
		if err != nil {
			delete(v.bound, b)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) { // added by somebody this moment: theirs
			errs = append(errs, err)
		}
		if err == nil {
			fresh.add(b)
		}
	}
	errs = append(errs, v.remark())
	v.announce.set(v.bound)
	v.announce.send(fresh.all)
	return errors.Join(errs...)
}

// addrSet is addresses in the order of their bindings, each once, on however many devices it is. Prefixes are left out: none is announced.
type addrSet struct {
	all  []netip.Addr
	seen map[netip.Addr]bool
}

func (s *addrSet) add(b Binding) {
	a := b.Prefix.Addr()
	if !b.Prefix.IsSingleIP() || s.seen[a] {
		return
	}
	if s.seen == nil {
		s.seen = map[netip.Addr]bool{}
	}
	s.seen[a] = true
	s.all = append(s.all, a)
}

// unmapped is p with an IPv4 address where it has one that is mapped into IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// printed is p as a user writes a VIP: one address without its length.
func printed(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// places returns a function that says on which devices a VIP belongs; 0 stands for lo.
func places(m PortMap, have []Address) func(netip.Prefix) []int {
	have = slices.DeleteFunc(slices.Clone(have), func(a Address) bool {
		return a.Prefix.Addr().Is4() || a.Prefix.IsSingleIP() || m.Port(a.Ifindex) < 0
	})
	return func(vip netip.Prefix) (out []int) {
		if vip.Addr().Is4() || !vip.IsSingleIP() {
			return []int{0}
		}
		for _, a := range have {
			if a.Prefix.Contains(vip.Addr()) && !slices.Contains(out, a.Ifindex) {
				out = append(out, a.Ifindex)
			}
		}
		if out == nil {
			out = []int{0}
		}
		return out
	}
}

// bind adds one address or route. lo is down in a namespace that nobody has touched, and an address on it would not be local; a port that is
// down is the operator's to set up.
func (v *VIPs) bind(ifindex int, b Binding, links []Link) error {
	if b.Device == "lo" {
		for _, l := range links {
			if l.Name == "lo" && !l.Up {
				if err := v.h.SetUp("lo", true); err != nil {
					return err
				}
				v.touched = []string{"lo"}
			}
		}
	}
	if !b.Prefix.IsSingleIP() {
		return fail("RTM_NEWROUTE", "local "+b.String(), v.h.addLocalRoute(ifindex, b.Prefix))
	}
	return fail("RTM_NEWADDR", b.String(), v.h.addAddress(ifindex, b.Prefix.Addr()))
}

// unbind is the opposite of bind, done already or not.
func (h *Host) unbind(ifindex int, b Binding) error {
	call, err := "RTM_DELADDR", error(nil)
	if b.Prefix.IsSingleIP() {
		err = h.deleteAddress(ifindex, b.Prefix.Addr())
	} else {
		call, err = "RTM_DELROUTE", h.deleteLocalRoute(ifindex, b.Prefix)
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ESRCH) || isGone(err) {
		return nil
	}
	return fail(call, b.String(), err)
}

// remark reads back which of ours the kernel keeps the mark of, and records them.
func (v *VIPs) remark() error {
	if len(v.bound) > 0 {
		links, err := v.h.Links()
		if err != nil {
			return err
		}
		addresses, err := v.h.addresses()
		if err != nil {
			return err
		}
		have, err := v.h.holdings(links, addresses)
		if err != nil {
			return err
		}
		for _, held := range have {
			if _, ok := v.bound[held.Binding]; ok && held.alone {
				v.bound[held.Binding] = held.protocol == Protocol
			}
		}
	}
	return v.store.writeVIPs(v.bound)
}

// Bound are the VIPs that weir has bound, sorted. Those the host had before are not among them.
func (v *VIPs) Bound() []Binding {
	v.mu.Lock()
	defer v.mu.Unlock()
	return sorted(v.bound)
}

// SetUp are devices that Set found down and set up: lo. They stay up, as others may have come to need them.
func (v *VIPs) SetUp() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.touched)
}

// Announce tells the ports' neighbours again where the VIPs are that weir has bound, as after a port came up.
func (v *VIPs) Announce() {
	v.mu.Lock()
	defer v.mu.Unlock()
	bound := addrSet{}
	for _, b := range sorted(v.bound) {
		bound.add(b)
	}
	v.announce.send(bound.all)
}

// Announced counts the announcements sent, and those that a device refused (it was down, mostly).
func (v *VIPs) Announced() (sent, refused uint64) {
	return v.announce.sent.Load(), v.announce.refused.Load()
}

// Release unbinds what weir has bound and ends the announcements.
func (v *VIPs) Release() error {
	v.announce.stop()
	return v.Set(nil)
}

// bindable says that an address or prefix may be a VIP.
func bindable(p netip.Prefix) bool {
	if !p.IsValid() || p != p.Masked() || p.Bits() == 0 {
		return false
	}
	for _, no := range notVIPs {
		if no.Overlaps(p) {
			return false
		}
	}
	return true
}

// notVIPs are the loopback's, link-local, multicast and reserved addresses, and those of "this" network.
var notVIPs = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// sorted are the bindings in m, by device, then prefix.
func sorted(m map[Binding]bool) []Binding {
	return slices.SortedFunc(maps.Keys(m), func(a, b Binding) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.Prefix.Compare(b.Prefix))
	})
}
