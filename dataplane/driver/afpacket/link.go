package afpacket

import (
	"time"

	"golang.org/x/sys/unix"
)

// Flush implements [driver.Queue]. It reports true while frames wait for the device, and while the device is down or gone, so that
// somebody notices when it is back.
//
//	        ENODEV, another index                link down, ENETDOWN
//	gone <------------------------ up or down   up ----------------> down
//	  | every reopenEvery: the device is there    ^                    |
//	  +-------------------------------------------+--- link up --------+
//
// A socket outlives its device's going down, the kernel connects it again. It does not outlive the device.
func (q *Queue) Flush() (pending bool) {
	if q.tx.n > 0 {
		q.transmit()
	}
	if q.rounds++; q.idle || q.rounds >= lookRounds {
		q.rounds = 0
		if now := time.Since(q.start); now-q.looked >= lookEvery && !q.closed {
			q.looked = now
			q.watch(now)
		}
	}
	q.idle = true
	return q.tx.n > 0 || !q.up
}

// watch looks at the device, or for it.
func (q *Queue) watch(now time.Duration) {
	if q.sock.rx < 0 {
		if now-q.tried < reopenEvery {
			return
		}
		q.tried = now
		if q.open() != nil { // not there yet, or not whole; the queue is down, and Stats says so
			return
		}
		q.counter.reopened.Add(1)
	}
	q.look()
}

// look brings what we know of the device up to date: is it still there, is it up, what has the kernel lost.
func (q *Queue) look() {
	// A pending error makes poll return at once until it is read; it says that the link went down, which we see below.
	unix.GetsockoptInt(q.sock.rx, unix.SOL_SOCKET, unix.SO_ERROR)
	unix.GetsockoptInt(q.sock.tx, unix.SOL_SOCKET, unix.SO_ERROR)
	if s, err := unix.GetsockoptTpacketStats(q.sock.rx, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		q.counter.ringFull.Add(uint64(s.Drops)) // reading sets it to zero
	}
	index, flags, mtu, err := device(q.sock.rx, q.name)
	if err != nil || index != q.sock.index { // gone, or another device by this name
		q.setUp(false)
		q.loseAll()
		q.shut()
		return
	}
	if mtu != q.sock.mtu {
		q.resize(mtu)
	}
	up := isUp(flags)
	if up && !q.joined {
		if q.join(q.sock.rx) != nil { // alone, we would double what the others of the group take; so we are down until it works
			up = false
		} else {
			q.joined = true
		}
	}
	q.setUp(up)
	if !up {
		q.loseAll()
	}
}

// resize takes over the device's new MTU. A ring with slots that are too short for it is given up; the next look makes another.
func (q *Queue) resize(mtu int) {
	room := min(mtu+ethernetHeader+vlanTag, q.chunkRoom())
	if slotHead+room > q.rx.size {
		q.setUp(false)
		q.loseAll()
		q.shut()
		return
	}
	q.sock.mtu, q.rx.room = mtu, uint32(room)
}
