package host

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// refresh is how often a kernel before 5.16 is told to use our next hops. It is below the 30 s after which an entry turns STALE
// (base_reachable_time), and far below the 60 s after which an unused one may be collected (gc_stale_time).
const refresh = 5 * time.Second

// Keeper keeps next hops resolved. Traffic by AF_XDP does not pass the kernel's neighbour code, so without it an entry that only weir
// uses would turn stale, be collected, and take the traffic with it.
//
// From Linux 5.16 on an entry is marked NTF_EXT_MANAGED and the kernel probes it by itself, also when it has failed. Before, the
// Keeper asks for it again and again. An entry that an operator or another daemon made (PERMANENT, NOARP, managed, learned, or with
// a protocol number not ours) is never touched: it is theirs to keep.
type Keeper struct {
	h         *Host
	unmanaged bool // this kernel has no NTF_EXT_MANAGED

	mu    sync.Mutex
	kept  map[hop]bool // true: the entry was there before, so it is not deleted but let go
	stop  chan struct{}
	ended chan struct{}
}

type hop struct {
	ifindex int
	addr    netip.Addr
}

// NewKeeper returns a Keeper that keeps nothing yet. It takes over the entries that a killed weir left on devices that are ours, so that those
// nobody asks for again go at the next Retain or Release. Those on others may be another weir's.
func (h *Host) NewKeeper(ours func(ifindex int) bool) (*Keeper, error) {
	k := &Keeper{h: h, kept: make(map[hop]bool), stop: make(chan struct{}), ended: make(chan struct{})}
	ns, err := h.Neighbors()
	if err != nil {
		return nil, err
	}
	for _, n := range ns {
		if n.ours() && ours(n.Ifindex) {
			k.kept[hop{n.Ifindex, n.Addr}] = false
		}
	}
	go k.run()
	return k, nil
}

// ours says that weir made the entry. Both marks are asked for: one that was let go keeps the number, as the kernel cannot clear it.
func (n Neighbor) ours() bool { return n.Managed && n.Protocol == Protocol }

// theirs says that somebody else keeps the entry.
func (n Neighbor) theirs() bool {
	return n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 || n.Learned || n.Managed && n.Protocol != Protocol ||
		n.Protocol != 0 && n.Protocol != Protocol
}

// Each calls f for every next hop that is kept: of a new Keeper those that a weir before this one kept.
func (k *Keeper) Each(f func(ifindex int, addr netip.Addr)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for at := range k.kept {
		f(at.ifindex, at.addr)
	}
}

// Keeps reports whether a next hop is kept, or was until somebody took it away.
func (k *Keeper) Keeps(ifindex int, addr netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, kept := k.kept[hop{ifindex, addr}]
	return kept
}

// Resolve makes the kernel resolve addr on the device and keep it resolved until Release or Forget. It does not wait for the answer,
// which comes as an event of the watch. It may be called again at any time.
func (k *Keeper) Resolve(ifindex int, addr netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	object := fmt.Sprintf("neighbour %s on interface %d", addr, ifindex)
	at := hop{ifindex, addr}
	for range 3 { // an entry can come or go between the look and the act
		n, err := k.h.neighbor(ifindex, addr)
		switch {
		case errors.Is(err, unix.ENOENT):
			err = k.use(at, false, unix.NLM_F_EXCL)
			if errors.Is(err, unix.EEXIST) {
				continue
			}
			return fail("RTM_NEWNEIGH", object, err)
		case err != nil:
			return fail("RTM_GETNEIGH", object, err)
		case n.theirs():
			delete(k.kept, at)
			return nil
		default:
			before, known := k.kept[at]
			return fail("RTM_NEWNEIGH", object, k.use(at, before || !known, 0))
		}
	}
	return nil
}

// use asks for one entry, by the newer way if there is one. EINVAL for the newer attribute means a kernel before 5.16; one that ignores
// it is found by reading the entry back.
func (k *Keeper) use(at hop, before bool, flags int) error {
	if !k.unmanaged {
		err := k.h.use(at.ifindex, at.addr, true, flags)
		if err == nil {
			n, err := k.h.neighbor(at.ifindex, at.addr)
			k.unmanaged = err == nil && !n.Managed
			k.kept[at] = before
			return nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	err := k.h.use(at.ifindex, at.addr, false, flags)
	if err == nil {
		k.unmanaged = true
		k.kept[at] = true // the kernel's own entry: it ages when nobody asks for it
	}
	return err
}

// run asks for the entries again and again where the kernel does not do it by itself.
func (k *Keeper) run() {
	defer close(k.ended)
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		select {
		case <-k.stop:
			return
		case <-tick.C:
		}
		k.again()
	}
}

// again asks once for every entry kept. An entry that has become somebody's meanwhile (PERMANENT) would lose that by NTF_USE, hence the look.
func (k *Keeper) again() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.unmanaged {
		return
	}
	for at := range k.kept {
		if n, err := k.h.neighbor(at.ifindex, at.addr); err == nil && n.theirs() {
			delete(k.kept, at)
			continue
		}
		// An error here (the device is down or gone) is the watch's to tell; the next tick tries again.
		_ = k.h.use(at.ifindex, at.addr, false, 0)
	}
}

// Retain forgets every next hop that wanted does not name, as after a reload or a change of routes.
func (k *Keeper) Retain(wanted func(ifindex int, addr netip.Addr) bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for at, before := range k.kept {
		if wanted(at.ifindex, at.addr) {
			continue
		}
		errs = append(errs, k.forget(at, before))
	}
	return errors.Join(errs...)
}

// forget takes away what we made and lets go of what was there before. What somebody has taken over meanwhile stays.
func (k *Keeper) forget(at hop, before bool) error {
	delete(k.kept, at)
	n, err := k.h.neighbor(at.ifindex, at.addr)
	if err != nil || !n.ours() {
		return nil
	}
	object := fmt.Sprintf("neighbour %s on interface %d", at.addr, at.ifindex)
	if before {
		// Without the flag the kernel takes it off; the entry stays, and nobody's traffic waits for a new resolution.
		return fail("RTM_NEWNEIGH", object, k.h.use(at.ifindex, at.addr, false, 0))
	}
	return fail("RTM_DELNEIGH", object, k.h.deleteNeighbor(at.ifindex, at.addr))
}

// Release forgets everything and ends the Keeper.
func (k *Keeper) Release() error {
	close(k.stop)
	<-k.ended
	return k.Retain(func(int, netip.Addr) bool { return false })
}
