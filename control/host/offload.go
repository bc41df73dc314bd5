package host

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/safchain/ethtool"
)

// receiveOffloads change what a frame looks like before a packet socket or generic XDP gets it, by the kernel's names
// (net/ethtool/common.c): a VLAN tag moved into metadata, several segments merged into one. LRO also refuses native XDP.
var receiveOffloads = []string{
	"rx-vlan-hw-parse", "rx-vlan-stag-hw-parse",
	"rx-lro", "rx-gro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding",
	"rx-checksum",
}

// sendOffloads leave work for the wire's end of a device: checksums that are only sums of pseudo headers, frames larger than the MTU,
// tags in metadata.
var sendOffloads = []string{
	"tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-ip-generic", "tx-checksum-sctp", "tx-checksum-fcoe-crc",
	"tx-scatter-gather-fraglist",
	"tx-generic-segmentation", "tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation",
	"tx-udp-segmentation", "tx-gso-list", "tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation",
	"tx-ipxip6-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-gso-partial", "tx-sctp-segmentation",
	"tx-vlan-hw-insert", "tx-vlan-stag-hw-insert",
}

// wireless are drivers whose frames reach the next host without a wire between, so that nothing ever finishes what tx offloads left undone.
var wireless = []string{"veth", "virtio_net", "tun", "macvlan", "ifb", "bridge"}

// DisableOffloads switches off what would hide from us, or from who receives by XDP on the other end, what is on the wire. It returns
// the names of the features that it changed, sorted, and a function that switches those on again.
//
// Receive offloads go always, send offloads only where no wire finishes them (veth and the like). Those of a veth's peer cannot be
// reached from here: a peer with tx checksums on sends partial sums, which are wrong sums to us, so call this on the peer as well. A
// driver may refuse to switch a feature off: the error names those that stay on, after all others were switched.
func (h *Host) DisableOffloads(ifname string) (restore func() error, changed []string, err error) {
	var stuck []string
	err = h.ethtool(func(e *ethtool.Ethtool) error {
		before, err := e.FeaturesWithState(ifname)
		if err != nil {
			return fail("ETHTOOL_GFEATURES", ifname, err)
		}
		off := make(map[string]bool)
		for _, name := range unwanted(e, ifname, before) {
			off[name] = false
		}
		if len(off) == 0 {
			return nil
		}
		if err := e.Change(ifname, off); err != nil {
			return fail("ETHTOOL_SFEATURES", ifname, err)
		}
		after, err := e.FeaturesWithState(ifname)
		if err != nil {
			return fail("ETHTOOL_GFEATURES", ifname, err)
		}
		for name := range off {
			if before[name].Requested && !after[name].Requested || before[name].Active && !after[name].Active {
				changed = append(changed, name)
			}
			if after[name].Active {
				stuck = append(stuck, name)
			}
		}
		return nil
	})
	slices.Sort(changed)
	slices.Sort(stuck)
	names := slices.Clone(changed)
	restore = func() error { return h.enableOffloads(ifname, names) }
	if err == nil && len(stuck) > 0 {
		err = fmt.Errorf("offloads of %s: %w: %s", ifname, ErrStuck, strings.Join(stuck, " "))
	}
	return restore, changed, err
}

// unwanted are the features that DisableOffloads switches off, in the order of the lists above.
func unwanted(e *ethtool.Ethtool, ifname string, now map[string]ethtool.FeatureState) (names []string) {
	all := receiveOffloads
	if driver, _ := e.DriverName(ifname); slices.Contains(wireless, driver) {
		all = slices.Concat(receiveOffloads, sendOffloads)
	}
	for _, name := range all {
		if f := now[name]; f.Active && !f.NeverChanged || f.Requested && f.Available {
			names = append(names, name)
		}
	}
	return names
}

// UnwantedOffloads are the features that DisableOffloads would switch off now, and those of receiving that the driver does not let anybody switch off.
func (h *Host) UnwantedOffloads(ifname string) (on, stuck []string, err error) {
	err = h.ethtool(func(e *ethtool.Ethtool) error {
		now, err := e.FeaturesWithState(ifname)
		if err != nil {
			return fail("ETHTOOL_GFEATURES", ifname, err)
		}
		on = unwanted(e, ifname, now)
		for _, name := range receiveOffloads {
			if f := now[name]; f.Active && f.NeverChanged {
				stuck = append(stuck, name)
			}
		}
		return nil
	})
	return on, stuck, err
}

// ErrStuck says that a driver left an offload on.
var ErrStuck = errors.New("the driver does not switch off")

// RestoreOffloads switches on again what another process' DisableOffloads has switched off, by name.
func (h *Host) RestoreOffloads(ifname string, names []string) error {
	return h.enableOffloads(ifname, names)
}

// enableOffloads switches on the features of the device by name. A device that is gone has none left to restore.
func (h *Host) enableOffloads(ifname string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	on := make(map[string]bool, len(names))
	for _, name := range names {
		on[name] = true
	}
	return h.ethtool(func(e *ethtool.Ethtool) error {
		err := e.Change(ifname, on)
		if isGone(err) {
			return nil
		}
		return fail("ETHTOOL_SFEATURES", ifname, err)
	})
}

// Offloads are the features of a device by the kernel's names: true if it is on now.
func (h *Host) Offloads(ifname string) (map[string]bool, error) {
	var out map[string]bool
	err := h.ethtool(func(e *ethtool.Ethtool) (err error) {
		out, err = e.Features(ifname)
		return fail("ETHTOOL_GFEATURES", ifname, err)
	})
	return out, err
}
