package host

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Promiscuous has devices take the frames that are for other stations' MAC addresses, and for VLANs that the host does not know, which hardware leaves out else:
// neither XDP nor a packet socket sees them. The kernel counts who wants that of a device, and the sockets that stand for us there are closed
// however the process ends. Nothing is received by them.
type Promiscuous struct {
	h *Host

	mu sync.Mutex
	on map[int]int // by device: its socket
}

// NewPromiscuous has no device do so yet.
func (h *Host) NewPromiscuous() *Promiscuous { return &Promiscuous{h: h, on: map[int]int{}} }

// Set makes the devices those of want, by index. On an error what could be done is done; the error names the rest, and the next Set tries again. A device that is
// made anew has another index.
func (p *Promiscuous) Set(want []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for ifindex, fd := range p.on {
		if !slices.Contains(want, ifindex) {
			delete(p.on, ifindex)
			errs = append(errs, fail("close", device(ifindex), unix.Close(fd)))
		}
	}
	for _, ifindex := range want {
		if _, is := p.on[ifindex]; is {
			continue
		}
		err := p.h.in(func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: hears nothing
			if err != nil {
				return fail("socket", "AF_PACKET", err)
			}
			m := unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC}
			if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
				unix.Close(fd)
				return fail("PACKET_MR_PROMISC", device(ifindex), err)
			}
			p.on[ifindex] = fd
			return nil
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func device(ifindex int) string { return fmt.Sprintf("device %d", ifindex) }

// Devices are those that do so for us, in ascending order.
func (p *Promiscuous) Devices() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.on))
}

// Close lets go of all.
func (p *Promiscuous) Close() error { return p.Set(nil) }
