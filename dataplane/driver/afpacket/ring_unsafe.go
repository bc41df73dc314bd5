package afpacket

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slot is one frame of the receive ring, as the kernel lays it out for TPACKET_V2 (include/uapi/linux/if_packet.h):
//
//	0                      struct tpacket2_hdr, 32 bytes
//	32                     struct sockaddr_ll, 20 bytes
//	Mac-10                 struct virtio_net_hdr
//	Mac                    the frame, from its Ethernet header on
//
// Header is the first of them. Its status word belongs to whoever it says; the rest is written by the kernel before it hands over.
func (r *rxRing) header(slot []byte) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(unsafe.SliceData(slot)))
}

// status reads whose a slot is, with acquire order: what the kernel wrote before it is seen.
func status(h *unix.Tpacket2Hdr) uint32 { return atomic.LoadUint32(&h.Status) }

// release hands a slot back, with release order: our reads of it are done.
func release(h *unix.Tpacket2Hdr) { atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL) }

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	sent uint32 // written by the kernel
}

// sendmmsg sends m without waiting and returns how many it sent; an error tells of the first that it did not, if there was none before.
func sendmmsg(fd int, m []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
