package host

import (
	"errors"
)

// CleanupVIPs takes away what a dead weir has left in this namespace: what the state directory says, and whatever bears the mark. It
// must not run beside a living weir, whose VIPs bear the same.
func (h *Host) CleanupVIPs(stateDir string) (removed []Binding, err error) {
	store := newStateFile(stateDir, "vips", h)
	recorded, err := store.readVIPs()
	if err != nil {
		return nil, err
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
		if !held.alone || held.protocol != Protocol && (!known || marked) {
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

// CleanupNeighbors removes the entries that a dead weir left in this namespace, and returns them.
func (h *Host) CleanupNeighbors() (removed []Neighbor, err error) {
	ns, err := h.Neighbors()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, n := range ns {
		if !n.ours() {
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
