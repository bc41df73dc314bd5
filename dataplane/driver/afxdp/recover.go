package afxdp

import (
	"time"

	"golang.org/x/sys/unix"
)

//	            ENETDOWN, or IFF_UP clear,
//	            or EBUSY and no carrier
//	   up  ------------------------------>  down
//	    ^  <------------------------------   |
//	    |      IFF_UP and IFF_RUNNING        |
//	    |                                    |  ENXIO, or the name has
//	    |  a device has the name again:      |  no device or another one
//	    |  new socket, new generation        v
//	    +---------------------------------  gone
//
// In down the socket stays, and so do the chunks in its rings; the XSKMAP entry remains valid. In gone there is no socket and no chunk.

// setUp notes whether the device is up.
func (q *Queue) setUp(up bool) {
	q.up = up
	q.isUp.Store(up)
	if !up {
		q.stuck = int(q.tx.left())
	}
}

// drained counts what the kernel has taken out of the send ring while the link is down and we do not call it. Who waits on a socket in copy mode drives its sending
// (xsk_poll in the kernel), and a device that is up without a carrier drops what it is given, without a word to anybody. If there is a carrier these have left, and we
// are late to know.
func (q *Queue) drained() {
	left := int(q.tx.left())
	if left >= q.stuck {
		return
	}
	if q.dev.flags()&unix.IFF_RUNNING == 0 {
		q.lost.Add(uint64(q.stuck - left))
	} else {
		q.watched = time.Time{} // so that watch looks now
	}
	q.stuck = left
}

// watch asks after the device, ten times a second at most: the kernel tells an AF_XDP socket nothing by itself.
func (q *Queue) watch() {
	now := time.Now()
	if now.Sub(q.watched) < watchEvery {
		return
	}
	q.watched = now
	if q.dev.gone() {
		q.disconnect()
		return
	}
	switch flags := q.dev.flags(); {
	case flags&unix.IFF_UP == 0:
		q.setUp(false)
	case flags&unix.IFF_RUNNING != 0:
		q.setUp(true)
	case q.doubted: // without the evidence of a refused frame, a carrier that is late to be reported would lose frames
		q.setUp(false)
	}
	q.doubted = false
}

// recover tries to make the socket again, ten times a second at most. It costs some hundred microseconds of system calls, and allocates, when
// a device of the name is there, else one ioctl. The kernel may still be releasing the queue's last socket: that is one more try.
func (q *Queue) recover() (pending bool) {
	if q.closed {
		return false
	}
	now := time.Now()
	if now.Sub(q.watched) < watchEvery {
		return true
	}
	q.watched = now
	if _, err := q.dev.lookup(); err != nil {
		return true
	}
	err := q.dev.checkMTU(q.pool.ChunkSize() - kernelHeadroom - q.umem.options.Headroom)
	if err == nil {
		err = q.connect()
	}
	if err != nil {
		q.trouble.Store(&err)
	}
	return true
}

// adopt makes s the socket of q, which has none.
func (q *Queue) adopt(s *socket) {
	q.mu.Lock()
	q.socket = *s
	q.mu.Unlock()
	q.trouble.Store(nil)
	q.isZero.Store(s.zerocopy)
	q.bind(s.fd, q.dev.index)
	q.epoch.Add(1)
	q.watched = time.Now()
	q.doubted = false
	q.setUp(q.dev.flags()&unix.IFF_UP != 0)
}

// disconnect ends the socket and takes all its chunks back. Frames that the kernel had not taken to send are lost; those that had been
// received but not fetched are counted as dropped.
//
// In copy mode the kernel touches no chunk afterwards. In zero copy a device may do so until its queue is released, which is
// soon, but later; a vanished device does not, and leaveZerocopy waits for it before packets flow.
func (q *Queue) disconnect() {
	if q.fd < 0 {
		return
	}
	if q.unsent {
		q.lost.Add(uint64(q.tx.left()))
	}
	if q.live != nil {
		q.lost.Add(uint64(len(q.live.staged)))
		q.live.staged = q.live.staged[:0]
	}
	unread := q.rx.available(q.rx.mask + 1)
	q.setUp(false)
	q.bind(-1, 0)
	q.epoch.Add(1)
	q.mu.Lock()
	q.past.add(q.fd)
	q.past.Dropped += uint64(unread)
	q.socket.close()
	q.socket.rings, q.socket.zerocopy = plainRings(), false
	q.mu.Unlock()
	q.reclaim()
	q.watched = time.Now()
}

// discard ends a socket that was not adopted and takes the chunks of its fill ring back.
func (q *Queue) discard(s *socket) {
	s.close()
	q.reclaim()
}

// Close implements [driver.Queue]. Everything the queue holds goes back to the pool; what was not sent yet is lost.
func (q *Queue) Close() error {
	if q.closed {
		return nil
	}
	q.disconnect()
	q.closed = true
	if q.live != nil {
		q.live.call.pin.Unpin()
	}
	q.dev.close()
	q.umem.remove(q)
	return nil
}
