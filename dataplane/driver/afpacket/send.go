package afpacket

import (
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// txRing is what Send took and Flush has not sent: frames in their chunks, and the messages that name them to sendmmsg. The oldest is
// always at 0, as almost always all of them leave at once.
type txRing struct {
	n    int // frames in it
	desc []packet.Desc
	iov  []unix.Iovec
	msg  []mmsghdr // msg[i] names iov[i], once and for all
}

func (t *txRing) init(frames int) {
	t.desc, t.iov, t.msg = make([]packet.Desc, frames), make([]unix.Iovec, frames), make([]mmsghdr, frames)
	for i := range t.msg {
		t.msg[i].Iov = &t.iov[i]
		t.msg[i].SetIovlen(1)
	}
}

// drop takes the first k frames out, which have left or are lost, and frees their chunks.
func (t *txRing) drop(k int, pool *packet.Pool) {
	for _, d := range t.desc[:k] {
		pool.Put(d.Addr)
	}
	copy(t.desc, t.desc[k:t.n])
	copy(t.iov, t.iov[k:t.n])
	t.n -= k
}

// Send implements [driver.Queue]. While the device is down or gone it takes everything and counts it as lost. A frame that is shorter than
// an Ethernet header, or no bytes of one chunk, is lost and counted as invalid.
func (q *Queue) Send(d []packet.Desc) int {
	t := &q.tx
	taken := 0
	for _, desc := range d {
		if q.up && t.n == len(t.desc) {
			break
		}
		taken++
		b := q.pool.Bytes(desc)
		if q.up && len(b) >= ethernetHeader {
			t.desc[t.n] = desc
			t.iov[t.n].Base = &b[0]
			t.iov[t.n].SetLen(len(b))
			t.n++
			continue
		}
		if len(b) < ethernetHeader {
			q.counter.invalid.Add(1)
		}
		q.counter.sendLost.Add(1)
		if desc.Addr < uint64(len(q.pool.Memory())) {
			q.pool.Put(desc.Addr)
		}
	}
	if taken > 0 {
		q.idle = false
	}
	return taken
}

// transmit hands what is in the send ring to the device, until it is empty or the device takes no more.
func (q *Queue) transmit() {
	t, c := &q.tx, &q.counter
	for t.n > 0 && q.sock.tx >= 0 {
		n, errno := sendmmsg(q.sock.tx, t.msg[:t.n])
		c.wakeups.Add(1)
		switch errno {
		case 0:
			c.sent.Add(uint64(n))
			t.drop(n, q.pool)
		case unix.EINTR:
		case unix.EAGAIN: // the socket's buffer is full of frames that have not left
			return
		case unix.ENOBUFS, unix.ENOMEM: // the device's queue is full and the frame is lost; the others may do better in a moment
			q.lose(1)
			return
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV:
			q.setUp(false)
			q.loseAll()
		default: // of this frame: EMSGSIZE for one beyond the MTU, EINVAL
			q.lose(1)
		}
	}
}

// lose gives up the first k frames of the send ring.
func (q *Queue) lose(k int) {
	q.counter.sendLost.Add(uint64(k))
	q.tx.drop(k, q.pool)
}

func (q *Queue) loseAll() { q.lose(q.tx.n) }

func (q *Queue) setUp(up bool) {
	q.up = up
	q.counter.up.Store(up)
}
