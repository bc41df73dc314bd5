package host

import (
	"errors"
	"maps"
)

// CleanupVIPs takes away what a dead weir has left in this namespace: what the state directory says, and whatever bears the mark but is of the record of
// another weir, living or not, in one of the directories others.
func (h *Host) CleanupVIPs(stateDir string, others ...string) (removed []Binding, err error) {
	store := newStateFile(stateDir, "vips", h)
	recorded, err := store.readVIPs()
	if err != nil {
		return nil, err
	}
	theirs := map[Binding]bool{}
	for _, dir := range others {
		x, err := newStateFile(dir, "vips", h).readVIPs()
		if err != nil {
			return nil, err
		}
		maps.Copy(theirs, x)
	}
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	addresses, err := h.addresses()
	if err != nil {
		return nil, err
	}
	have, err := h.holdings(links, addresses)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, held := range have {
		marked, known := recorded[held.Binding]
		if _, other := theirs[held.Binding]; other || !held.alone || held.protocol != Protocol && (!known || marked) {
			continue
		}
		if err := h.unbind(held.ifindex, held.Binding); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, held.Binding)
	}
	if len(errs) == 0 {
		errs = append(errs, store.remove())
	}
	return removed, errors.Join(errs...)
}

// CleanupLocalPorts takes out of net.ipv4.ip_local_reserved_ports what a dead weir with that state directory has added.
func (h *Host) CleanupLocalPorts(stateDir string) (removed []PortRange, err error) {
	l, err := h.NewLocalPorts(stateDir)
	if err != nil {
		return nil, err
	}
	was := l.ours
	if was == (portSet{}) {
		return nil, nil
	}
	now, err := h.reservedPorts()
	if err != nil {
		return nil, err
	}
	if err := l.Release(); err != nil {
		return nil, err
	}
	gone := was.and(now)
	return gone.ranges(), nil
}

// CleanupNeighbors removes the entries that a dead weir left in this namespace, and returns them. Those on a device, or a VLAN of it, that an XDP program
// still stands in front of are another weir's, so it comes after the dead one's program has gone.
func (h *Host) CleanupNeighbors() (removed []Neighbor, err error) {
	ns, err := h.Neighbors()
	if err != nil {
		return nil, err
	}
	theirs, err := h.behindXDP()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, n := range ns {
		if !n.ours() || theirs[n.Ifindex] {
			continue
		}
		if err := h.deleteNeighbor(n.Ifindex, n.Addr); err != nil {
			errs = append(errs, fail("RTM_DELNEIGH", n.Addr.String(), err))
			continue
		}
		removed = append(removed, n)
	}
	return removed, errors.Join(errs...)
}
