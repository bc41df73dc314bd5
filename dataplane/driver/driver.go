// Package driver says what a queue of a port does, at burst level, whatever moves the frames: AF_XDP rings (package afxdp), a packet
// socket (afpacket), capture files (pcapfile) or memory (mem). The pipeline cannot tell them apart.
//
// A queue takes and returns chunks of its worker's [packet.Pool], which all queues of that worker share: a frame received on one port
// leaves by another without a copy where the driver allows it.
package driver

import "weir/dataplane/packet"

// Queue is one receive and one send ring of a port. All methods but Stats are called by its one worker only, never wait, and allocate
// nothing. A port whose device is down or gone keeps its queue: it receives nothing, counts what it is given to send as lost, and
// comes back by itself.
type Queue interface {
	// Receive moves up to len(d) frames that have arrived into d and returns their number. Their chunks are the caller's.
	Receive(d []packet.Desc) int

	// Send takes frames from the front of d, in order, and returns how many it took; a full ring takes fewer. The chunks of those it
	// took are the queue's, which puts them back into the pool once they are sent.
	Send(d []packet.Desc) int

	// Flush makes the kernel see what was sent, takes back the chunks of frames that have left and refills the receive ring. The
	// worker calls it once a round. It reports true while something is unfinished, so that the worker must come back soon
	// rather than sleep without limit.
	Flush() (pending bool)

	// FD is readable when Receive has something to give; -1 if there is no such descriptor. It can change when a lost device comes back.
	FD() int

	// Held is the number of chunks that the queue holds now: those in rings and in the kernel.
	Held() int

	// Stats may be called from any goroutine.
	Stats() Stats

	// Close gives back all chunks that can be had and releases the queue. It is called after the worker has stopped.
	Close() error
}

// Stats of a queue since it was opened. Losses are of frames that never reached Receive, or that Send took and the device refused.
type Stats struct {
	Received uint64 // frames given out by Receive
	Sent     uint64 // frames taken by Send and handed to the device
	SendLost uint64 // frames taken by Send that the device refused (link down, no memory)

	RxRingFull        uint64 // the kernel had no room in the receive ring
	FillRingEmpty     uint64 // the kernel had no chunk to put a frame in
	RxDropped         uint64 // longer than a chunk's room, still in the receive ring when the device vanished, or several packets in one frame
	InvalidDescriptor uint64 // the kernel refused a descriptor of ours: a bug

	Wakeups uint64 // system calls made to move frames
	Live    uint64 // frames that were sent as live frames of an XDP program; they are of Sent, too
	Up      bool   // the device is there and up
	Mode    string // what the driver got: "zerocopy", "native", "generic" for AF_XDP, else the driver's name
}
