// Package afpacket is the driver for devices without XDP: a packet socket with a receive ring.
//
//	device -> the kernel's taps -> ring (TPACKET_V2) -> Receive copies -> chunk
//	chunk -> Send keeps -> Flush: sendmmsg, past the qdisc -> device
//
// The ring is of version 2, where each frame is ours as soon as it is written. Version 3 hands over blocks when they are full or after
// a timeout of no less than a millisecond, which a balancer would add to every packet of a quiet line. Sending is by sendmmsg:
// the kernel copies out of our chunk into the packet it makes, which a send ring would need us to do first, and says at once what
// became of each frame.
//
// What a frame was on the wire is restored: a VLAN tag that the kernel has put aside goes back in, a checksum left to the hardware is
// computed (packet sockets see what another socket of this host sends through a veth before any hardware does). Segments that
// the kernel has merged (GRO) or not cut yet (TSO) cannot be restored; they are dropped and counted as merged. Switch the offloads off:
// `ethtool -K DEV gro off lro off`, and `tso off gso off` on a veth's other end.
//
// A packet socket takes copies: unlike with AF_XDP the kernel's own stack sees each frame as well, and answers it if it has the VIP.
package afpacket

import (
	"fmt"
	"sync/atomic"
	"time"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// Options of a queue. The zero value is a good one for a port with one worker.
type Options struct {
	RingFrames int // frames that the receive ring holds, a power of two from 64 to 65536; 0: 2048
	SendFrames int // frames that Send takes before a Flush, 1 to 1024; 0: 512

	// Fanout joins the queue to a group, so that the workers' queues of one device share its frames. All of a device use the same
	// number, and no other process of the network namespace may. 0: the queue gets every frame.
	Fanout uint16
	// FanoutMode is one of unix.PACKET_FANOUT_*; 0 is PACKET_FANOUT_HASH: both directions of a flow come to one queue, and later
	// fragments, which have no ports, perhaps to another.
	FanoutMode int

	Promiscuous bool // take frames for other MACs, as an access port of a VXLAN segment must
	Qdisc       bool // send through the device's qdisc, for shaping and for tcpdump to see it
}

const (
	defaultRing = 2048
	defaultSend = 512
	maxSend     = 1024 // messages that one sendmmsg looks at (UIO_MAXIOV)

	// lookEvery is how often the link's state and the kernel's losses are looked at, reopenEvery how often a lost device is looked for.
	lookEvery   = 10 * time.Millisecond
	reopenEvery = 100 * time.Millisecond
	// lookRounds is how many busy rounds may pass before the clock is read; a round that moved nothing reads it at once.
	lookRounds = 64
)

// Queue is a packet socket's rings. See [driver.Queue] for who may call what.
type Queue struct {
	// read for every burst
	pool *packet.Pool
	rx   rxRing
	tx   txRing
	up   bool // frames can be sent
	idle bool // nothing has moved since the last Flush

	// read when the link is looked at
	name    string
	opts    Options
	sock    sockets // closed while the device is gone
	joined  bool    // the fanout group
	rounds  uint32  // flushes since the clock was read
	start   time.Time
	looked  time.Duration // since start
	tried   time.Duration // to reopen
	closed  bool
	counter counters
}

var _ driver.Queue = (*Queue)(nil)

// counters are written by the worker and read by anyone.
type counters struct {
	received, sent, sendLost, ringFull, invalid, wakeups atomic.Uint64
	tooLong, merged, outgoing, inconsistent, unread      atomic.Uint64
	summed, reopened                                     atomic.Uint64
	up                                                   atomic.Bool
}

// Counters is what a packet socket has that other drivers have not. The first five are frames that never reached Receive.
type Counters struct {
	TooLong      uint64 // longer than the device's MTU or a chunk allows
	Merged       uint64 // several packets in one frame: GRO, LRO, or TSO of a veth's other end
	Outgoing     uint64 // this host's own, from kernels that cannot leave them out
	Inconsistent uint64 // the ring's header contradicts itself: a bug of the kernel's or of ours
	Unread       uint64 // still in the ring when it was given up: the device is gone, or its MTU has outgrown the ring
	Summed       uint64 // frames whose checksum we had to compute
	Reopened     uint64 // times that a lost device came back
}

// Open makes a queue of the device. It needs CAP_NET_RAW in the device's network namespace, where the worker's thread must be, too.
// A device that is down is fine; one that is not there is not.
func Open(ifname string, pool *packet.Pool, o Options) (*Queue, error) {
	if o.RingFrames == 0 {
		o.RingFrames = defaultRing
	}
	if o.SendFrames == 0 {
		o.SendFrames = defaultSend
	}
	if n := o.RingFrames; n < 64 || n > 1<<16 || n&(n-1) != 0 {
		return nil, fmt.Errorf("afpacket: %s: receive ring of %d frames: must be a power of two from 64 to 65536", ifname, n)
	}
	if n := o.SendFrames; n < 1 || n > maxSend {
		return nil, fmt.Errorf("afpacket: %s: send ring of %d frames: must be 1 to %d", ifname, n, maxSend)
	}
	q := &Queue{pool: pool, name: ifname, opts: o, sock: noSockets, start: time.Now(), idle: true}
	q.tx.init(o.SendFrames)
	if err := q.open(); err != nil {
		return nil, fmt.Errorf("afpacket: %w", err)
	}
	q.look()
	return q, nil
}

// FD implements [driver.Queue]. It is -1 while the device is gone. While the link goes down it can be readable (POLLERR) for up to
// lookEvery without a frame.
func (q *Queue) FD() int { return q.sock.rx }

// Held implements [driver.Queue]: frames that Send took and Flush has not yet sent. What is in the receive ring is in no chunk.
func (q *Queue) Held() int { return q.tx.n }

// Stats implements [driver.Queue]. RxRingFull is as of the last look, at most lookEvery before the last Flush. What Counters tells apart is RxDropped
// here, or nobody would hear of a sender whose merged frames all are lost; the host's own frames, which are no loss, are not among them.
func (q *Queue) Stats() driver.Stats {
	c := &q.counter
	dropped := c.tooLong.Load() + c.merged.Load() + c.inconsistent.Load() + c.unread.Load()
	return driver.Stats{Received: c.received.Load(), Sent: c.sent.Load(), SendLost: c.sendLost.Load(), RxRingFull: c.ringFull.Load(), RxDropped: dropped,
		InvalidDescriptor: c.invalid.Load(), Wakeups: c.wakeups.Load(), Up: c.up.Load(), Mode: "af_packet"}
}

// Counters may be called from any goroutine.
func (q *Queue) Counters() Counters {
	c := &q.counter
	return Counters{TooLong: c.tooLong.Load(), Merged: c.merged.Load(), Outgoing: c.outgoing.Load(),
		Inconsistent: c.inconsistent.Load(), Unread: c.unread.Load(), Summed: c.summed.Load(), Reopened: c.reopened.Load()}
}

// Close implements [driver.Queue]. What was sent and not flushed is tried once.
func (q *Queue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	q.transmit()
	q.setUp(false)
	q.loseAll()
	return q.shut()
}
