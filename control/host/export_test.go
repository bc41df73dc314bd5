package host

import (
	"context"
	"net/netip"
)

// What the tests in package host_test need of the inside; they cannot be in this package, as testnet imports it.
var (
	Announcement = announcement
)

// WatchBuffered is Watch with a receive buffer of that many bytes.
func (h *Host) WatchBuffered(ctx context.Context, events chan<- Event, buffer int) error {
	return h.watch(ctx, events, buffer)
}

// AsBefore516 makes k do as on a kernel without NTF_EXT_MANAGED, and returns what its ticker calls.
func (k *Keeper) AsBefore516() (tick func()) {
	k.unmanaged = true
	return k.again
}

// Unmark makes addresses of the namespace look as on a kernel without IFA_PROTO: it adds addr to lo without the mark, and records it.
func (v *VIPs) Unmark(addr netip.Addr) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bound[bindingOf("lo", addr)] = false
	return v.store.writeVIPs(v.bound)
}

// DiesWriting makes l fail where it would write the list, before it has done so or after, as if it were killed there.
func (l *LocalPorts) DiesWriting(after bool) {
	write := l.write
	l.write = func(list string) error {
		if after {
			if err := write(list); err != nil {
				return err
			}
		}
		return context.Canceled
	}
}
