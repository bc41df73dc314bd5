// Package afxdp moves frames between a worker and queues of network devices through AF_XDP sockets.
//
// A [Umem] is the frame memory of one worker and the [packet.Pool] over it; a [Queue] is one socket on one queue of one device. All
// queues of a worker share the memory in the kernel, too, so a frame received on one leaves by another without a copy. There are
// four rings to a socket, in memory shared with the kernel:
//
//	fill        chunks we give to the kernel to receive into
//	rx          frames the kernel received
//	tx          frames we give to the kernel to send
//	completion  chunks the kernel is done sending
//
// github.com/asavie/xdp sets up the first socket of a worker where it can: copy mode, pages of 4 KiB, Linux 6.4 or later. It is not on the
// packets' way: its data path scans all frames for a free one, calls the kernel for every burst and panics when the link goes
// down. So its rings are mapped again on the same descriptor, and from then on all sockets are alike. Where it cannot be used, and for
// every socket that joins, the set-up is ours, which costs the same few system calls.
//
// A chunk belongs to exactly one of: the pool, a queue, the worker. One byte per chunk says which queue has it; with it a queue
// whose device has vanished gives back exactly what it held, and a chunk that the kernel returns twice is noticed instead of
// used twice. A device that is down or gone is looked for ten times a second by Flush, on the worker's own thread; there are no
// goroutines here. So a worker must call Flush about once a second even when it has nothing to do: the kernel wakes no one when
// a device vanishes or comes back.
package afxdp

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Modes that may be asked for, and all but auto what a queue may have got.
const (
	ModeAuto     = "auto"     // zerocopy if all ports of the worker can, else a copy
	ModeZerocopy = "zerocopy" // the device reads and writes the pool's memory itself; the program is attached in native mode
	ModeNative   = "native"   // the kernel copies, from the driver's own hook
	ModeGeneric  = "generic"  // the kernel copies, from an skb: any device
)

const (
	defaultRing = 2048
	maxRing     = 1 << 15
	// sendBudget is how many frames one system call sends in copy mode, if the kernel lets us say so (Linux 6.17); 32 otherwise.
	sendBudget = 256
	// sendBuffer bounds the bytes in flight of a socket in copy mode; a small frame counts about 1 KiB. The default of 212992 would stop
	// a burst of 256.
	sendBuffer = 4 << 20
	// kernelHeadroom lies before every received frame: XDP_PACKET_HEADROOM.
	kernelHeadroom = unix.XDP_PACKET_HEADROOM
	// linkHeaders is what a frame has beyond the device's MTU at most: Ethernet and two tags.
	linkHeaders = 14 + 2*4
	// maxMTU is what native XDP without multi-buffer can do with pages of 4 KiB.
	maxMTU = 3500
	// busyFor is how long binding is tried again while the kernel still releases the last socket of that queue, which it does later.
	busyFor = time.Second
	// watchEvery bounds how often a queue asks after its device.
	watchEvery = 100 * time.Millisecond
)

// Options of a queue. The zero value is usable.
type Options struct {
	Mode     string // see ModeAuto; default auto
	Attached string // how the XDP program is attached: native (default) or generic; generic rules out zerocopy
	RingSize int    // entries of each of the four rings, a power of two from 64 to 32768; default 2048
}

func (o *Options) complete() error {
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
	if o.Attached == "" {
		o.Attached = ModeNative
		if o.Mode == ModeGeneric {
			o.Attached = ModeGeneric
		}
	}
	if o.RingSize == 0 {
		o.RingSize = defaultRing
	}
	switch o.Mode {
	case ModeAuto, ModeZerocopy, ModeNative, ModeGeneric:
	default:
		return fmt.Errorf("xdp mode %q: must be auto, zerocopy, native or generic", o.Mode)
	}
	if o.Attached != ModeNative && o.Attached != ModeGeneric {
		return fmt.Errorf("xdp program attached %q: must be native or generic", o.Attached)
	}
	if o.Mode == ModeZerocopy && o.Attached == ModeGeneric {
		return errors.New("xdp mode zerocopy: needs the program attached in native mode, it is generic")
	}
	if n := o.RingSize; n < 64 || n > maxRing || n&(n-1) != 0 {
		return fmt.Errorf("ring size %d: must be a power of two from 64 to %d", n, maxRing)
	}
	return nil
}

// Open makes the socket of queue number queue of the device ifname, in the network namespace of the calling thread, and fills its
// fill ring. The caller attaches the XDP program and enters [Queue.SocketFD] into its XSKMAP, again whenever [Queue.Generation]
// changes. Open is not for the packets' way: it waits up to a second for a queue that another socket has just left.
//
// When the worker's memory is in zero copy and this port cannot do it, the ports that are open already are opened again with copies,
// unless one of them insists. Open must not run at the same time as anything else on u or its queues.
func Open(u *Umem, ifname string, queue int, o Options) (*Queue, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%s queue %d: %w", ifname, queue, err)
	}
	dev, err := newDevice(ifname)
	if err != nil {
		return nil, fmt.Errorf("%s queue %d: %w", ifname, queue, err)
	}
	q, err := u.add(dev, queue, o)
	if err != nil {
		dev.close()
		return nil, fmt.Errorf("%s queue %d: %w", ifname, queue, err)
	}
	if err := q.start(); err != nil {
		u.remove(q)
		dev.close()
		return nil, err
	}
	return q, nil
}

// start makes the first socket of q, and those of its siblings anew if the memory must leave zero copy for it.
func (q *Queue) start() error {
	if err := q.dev.checkMTU(q.umem.pool.ChunkSize() - kernelHeadroom - q.umem.options.Headroom); err != nil {
		return err
	}
	wantsCopy := q.options.Mode == ModeNative || q.options.Mode == ModeGeneric || q.options.Attached == ModeGeneric
	if wantsCopy {
		if err := q.umem.leaveZerocopy(q); err != nil {
			return err
		}
	}
	err := q.connectWithin(busyFor)
	if err != nil && unsupported(err) && q.umem.zerocopy() && q.options.Mode == ModeAuto {
		if err := q.umem.leaveZerocopy(q); err != nil {
			return err
		}
		err = q.connectWithin(busyFor)
	}
	return err
}

// connectWithin makes the socket, trying again for a while as long as the queue is busy.
func (q *Queue) connectWithin(patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := q.connect()
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// unsupported says that the device cannot do what was asked for, as opposed to: it could, but not now.
func unsupported(err error) bool {
	const enotsupp = unix.Errno(524) // not for user space, but some drivers let it out
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, enotsupp)
}
