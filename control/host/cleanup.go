package host

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// CleanupVIPs takes away what a dead weir has left in this namespace: what the state directory says, and whatever bears the mark. It
// must not run beside a living weir, whose VIPs bear the same.
func (h *Host) CleanupVIPs(stateDir string) (removed []Binding, err error) {
	store := newStateFile(stateDir, h)
	recorded, err := store.read()
	if err != nil {
		return nil, err
	}
	links, err := h.Links()
	if err != nil {
		return nil, err
	}
	have, err := h.addresses()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range have {
		i := slices.IndexFunc(links, func(l Link) bool { return l.Index == a.Ifindex })
		if i < 0 || !a.Prefix.IsSingleIP() {
			continue
		}
		b := Binding{links[i].Name, a.Prefix.Addr()}
		marked, known := recorded[b]
		if a.Protocol != Protocol && (!known || marked) {
			continue
		}
		if err := h.deleteAddress(a.Ifindex, b.Address); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fail("RTM_DELADDR", b.String(), err))
			continue
		}
		removed = append(removed, b)
	}
	if len(errs) == 0 {
		errs = append(errs, store.write(nil))
	}
	return removed, errors.Join(errs...)
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
