package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Binding is a VIP on a device.
type Binding struct {
	Device  string
	Address netip.Addr
}

func (b Binding) String() string { return b.Address.String() + " on " + b.Device }

// VIPs binds service addresses to the host, so that the kernel answers ARP and ND for them and owns what the balancer leaves to it.
//
// An IPv4 VIP goes to lo: the kernel answers ARP on every device for any address of its own. An IPv6 VIP goes to each port whose link
// it is on, as ND is answered for the addresses of the device that was asked alone; one that is on no port's link is routed to us, and
// goes to lo.
//
// An address that the host had before is left alone, at bind and at unbind. Ours are known by their IFA_PROTO (Linux 5.18), and on
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
	v := &VIPs{h: h, ports: ports, store: newStateFile(stateDir, h)}
	var err error
	if v.bound, err = v.store.read(); err != nil {
		return nil, err
	}
	v.announce.start(h, ports)
	return v, nil
}

// Set makes the VIPs that weir has bound those of want: unbinds the others, binds what is missing, and announces what is new. It may be
// called again at any time, as after a change of the ports' addresses. On an error what could be done is done; the error names the rest.
func (v *VIPs) Set(want []netip.Addr) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	links, err := v.h.Links()
	if err != nil {
		return err
	}
	have, err := v.h.addresses()
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
	everywhere := make(map[netip.Addr]int) // on how many devices
	wanted := make(map[Binding]bool)
	var errs []error
	onLink := places(m, have)
	for _, a := range want {
		if !bindable(a) {
			errs = append(errs, fmt.Errorf("VIP %s: must be a unicast address that is not the loopback's or link-local", a))
			continue
		}
		for _, ifindex := range onLink(a.Unmap()) {
			device := "lo"
			if ifindex != 0 {
				device = name[ifindex]
			}
			wanted[Binding{device, a.Unmap()}] = true
		}
	}
	for _, a := range have {
		b := Binding{name[a.Ifindex], a.Prefix.Addr()}
		all[b] = true
		everywhere[b.Address]++
		marked, recorded := v.bound[b]
		if a.Prefix.IsSingleIP() && (recorded && (!marked || a.Protocol == Protocol) || wanted[b] && a.Protocol == Protocol) {
			ours[b] = a.Protocol == Protocol
		}
	}

	for _, b := range sorted(ours) {
		if wanted[b] {
			continue
		}
		err := v.h.deleteAddress(index[b.Device], b.Address)
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !isGone(err) {
			errs = append(errs, fail("RTM_DELADDR", b.String(), err))
			continue
		}
		delete(ours, b)
		delete(all, b)
		everywhere[b.Address]--
	}
	var missing []Binding
	for _, b := range sorted(wanted) {
		// Any device will do for IPv4, and for an IPv6 VIP that is routed to us.
		if !all[b] && (b.Device != "lo" || everywhere[b.Address] == 0) {
			missing = append(missing, b)
		}
	}
	// The record comes before the deed, so that no kill between the two leaves an address that nobody knows.
	v.bound = ours
	for _, b := range missing {
		v.bound[b] = false
	}
	if err := v.store.write(v.bound); err != nil {
		for _, b := range missing {
			delete(v.bound, b)
		}
		return errors.Join(append(errs, err)...)
	}
	var fresh []netip.Addr
	for _, b := range missing {
		err := v.bind(index[b.Device], b, links)
		if err != nil {
			delete(v.bound, b)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) { // added by somebody this moment: theirs
			errs = append(errs, fail("RTM_NEWADDR", b.String(), err))
		}
		if err == nil && !slices.Contains(fresh, b.Address) {
			fresh = append(fresh, b.Address)
		}
	}
	errs = append(errs, v.remark())
	v.announce.set(v.bound)
	v.announce.send(fresh)
	return errors.Join(errs...)
}

// places returns a function that says on which devices a VIP belongs; 0 stands for lo.
func places(m PortMap, have []Address) func(netip.Addr) []int {
	have = slices.DeleteFunc(slices.Clone(have), func(a Address) bool {
		return a.Prefix.Addr().Is4() || a.Prefix.IsSingleIP() || m.Port(a.Ifindex) < 0
	})
	return func(vip netip.Addr) (out []int) {
		if vip.Is4() {
			return []int{0}
		}
		for _, a := range have {
			if a.Prefix.Contains(vip) && !slices.Contains(out, a.Ifindex) {
				out = append(out, a.Ifindex)
			}
		}
		if out == nil {
			out = []int{0}
		}
		return out
	}
}

// bind adds one address. lo is down in a namespace that nobody has touched, and an address on it would not be local; a port that is
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
	return v.h.addAddress(ifindex, b.Address)
}

// remark reads back which of ours the kernel keeps the mark of, and records them.
func (v *VIPs) remark() error {
	if len(v.bound) > 0 {
		have, err := v.h.addresses()
		if err != nil {
			return err
		}
		links, err := v.h.Links()
		if err != nil {
			return err
		}
		for _, a := range have {
			for _, l := range links {
				b := Binding{l.Name, a.Prefix.Addr()}
				if _, ok := v.bound[b]; ok && l.Index == a.Ifindex {
					v.bound[b] = a.Protocol == Protocol
				}
			}
		}
	}
	return v.store.write(v.bound)
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
	var addrs []netip.Addr
	for _, b := range sorted(v.bound) {
		if !slices.Contains(addrs, b.Address) {
			addrs = append(addrs, b.Address)
		}
	}
	v.announce.send(addrs)
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

// bindable says that an address may be a VIP.
func bindable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && a.Zone() == ""
}

// sorted are the bindings in m, by device, then address.
func sorted(m map[Binding]bool) []Binding {
	out := make([]Binding, 0, len(m))
	for b := range m {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Binding) int {
		if a.Device != b.Device {
			if a.Device < b.Device {
				return -1
			}
			return 1
		}
		return a.Address.Compare(b.Address)
	})
	return out
}
