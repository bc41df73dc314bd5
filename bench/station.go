package bench

import (
	"math"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"

	"weir/dataplane/driver"
	"weir/dataplane/packet"
)

// role is what a station does with what it receives besides counting.
type role struct {
	own     []Range // addresses that it answers ARP and neighbour solicitations for
	echo    bool    // send stamped frames back to where they came from
	opener  bool    // go on with TCP connections that it opened
	respond bool    // go on with TCP connections that others open
}

// station is one port: the queues of a driver, what it sends and what it received. It is driven by one thread.
type station struct {
	name   string
	mac    [6]byte
	driver string
	pool   *packet.Pool
	queues []driver.Queue
	role   role
	burst  int

	lanes  []*crafter // one a queue; empty: it only receives
	lane   int        // whose turn it is
	pace   pacer
	began  bool
	unsent []packet.Desc // made for lane, not taken by its queue yet
	held   int64         // when the first of them was due

	rx      [packet.VectorSize]packet.Desc
	tx      []packet.Desc
	highest [256]uint64 // by stream: the next number expected
	tcp     tcpCounters
	count   tally

	latency, lag *hdrhistogram.Histogram // ns; the thread's until it has ended

	sending atomic.Bool
	settled atomic.Bool // sending has ended, and all that was sent is shown
	shown   shown
	closers []func() error
}

// tally is what a station counts, and shown what others see of it, once a round.
type tally struct {
	sent, sentBytes, received, receivedBytes, other, reordered, replied, replyLost uint64
}

type shown struct {
	sent, sentBytes, received, receivedBytes, established, closed atomic.Uint64
}

const (
	highestLatency = int64(60e9) // ns; what is above counts as that
	bytesOnWire    = fcs
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, highestLatency, 3) }

func record(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, 1), highestLatency)) // within its range
}

// round receives, answers and sends once, and says how much it moved and whether it must come back soon.
func (s *station) round(now int64, clock clock) (moved int, pending bool) {
	for _, q := range s.queues {
		if n := q.Receive(s.rx[:]); n > 0 {
			s.receive(q, s.rx[:n], clock.now()) // read behind Receive, or a frame could have arrived before it was sent
			moved += n
		}
	}
	sending := len(s.lanes) > 0 && s.sending.Load()
	if sending {
		moved += s.send(now)
	}
	for _, q := range s.queues {
		pending = q.Flush() || pending
	}
	if moved > 0 {
		s.show()
	}
	if !sending && s.began && !s.settled.Load() {
		s.settled.Store(true)
	}
	return moved, pending || sending && len(s.unsent) > 0
}

func (s *station) show() {
	s.shown.sent.Store(s.count.sent)
	s.shown.sentBytes.Store(s.count.sentBytes)
	s.shown.received.Store(s.count.received)
	s.shown.receivedBytes.Store(s.count.receivedBytes)
	s.shown.established.Store(s.tcp.established)
	s.shown.closed.Store(s.tcp.closed)
}

// receive counts a burst and sends what it gives rise to.
func (s *station) receive(q driver.Queue, d []packet.Desc, now int64) {
	s.tx = s.tx[:0]
	for i := range d {
		if !s.take(&d[i], now) {
			s.pool.Put(d[i].Addr)
		}
	}
	if len(s.tx) == 0 {
		return
	}
	n := q.Send(s.tx)
	for i := range s.tx[n:] {
		s.pool.Put(s.tx[n+i].Addr)
	}
	s.count.replied += uint64(n)
	s.count.replyLost += uint64(len(s.tx) - n)
}

// take counts one frame. It reports true if the frame's chunk went into s.tx.
func (s *station) take(d *packet.Desc, now int64) (kept bool) {
	b := s.pool.Bytes(*d)
	stream, number, when, ok := readStamp(b)
	if ok {
		s.arrived(len(b))
		if number < s.highest[stream] {
			s.count.reordered++
		} else {
			s.highest[stream] = number + 1
		}
		if took := now - when; took >= 0 && took < highestLatency { // else the clock of another host
			record(s.latency, took)
		}
		if s.role.echo && turn(b) {
			s.tx = append(s.tx, *d)
			return true
		}
		return false
	}
	if seg, ok := parseSegment(b); ok && (s.role.opener || s.role.respond) {
		return s.segment(d, b, seg, now)
	} else if ok && seg.flags&(flagSYN|flagACK) == flagSYN { // of a flood
		s.arrived(len(b))
		s.tcp.accepted++
		record(s.latency, since(now, seg.seq))
		return false
	}
	if n := answerNeighbor(b, s.mac, s.role.own); n > 0 {
		d.Len = uint32(n)
		s.tx = append(s.tx, *d)
		return true
	}
	s.count.other++
	return false
}

func (s *station) arrived(length int) {
	s.count.received++
	s.count.receivedBytes += uint64(length + bytesOnWire)
}

// segment goes on with the connection that a TCP segment is of.
func (s *station) segment(d *packet.Desc, b []byte, seg segment, now int64) (kept bool) {
	s.arrived(len(b))
	if !s.role.opener {
		flags, seq, ack := s.tcp.accept(seg)
		if flags == 0 {
			return false
		}
		d.Len = uint32(seg.answer(b, flags, seq, ack))
		s.tx = append(s.tx, *d)
		return true
	}
	first, second, ack, took := s.tcp.open(seg, now)
	if took >= 0 {
		record(s.latency, took)
	}
	if first == 0 {
		return false
	}
	n := seg.answer(b, first, seg.ack, ack)
	d.Len = uint32(n)
	s.tx = append(s.tx, *d)
	if second != 0 {
		if addr, ok := s.pool.Get(); ok {
			e := packet.Desc{Addr: addr + packet.Headroom, Len: uint32(n)}
			f := s.pool.Bytes(e)
			copy(f, b[:n])
			swap(f[0:6], f[6:12]) // answer turns it around once more
			swap(f[seg.l4:seg.l4+2], f[seg.l4+2:seg.l4+4])
			if seg.v4 {
				swap(f[26:30], f[30:34])
			} else {
				swap(f[22:38], f[38:54])
			}
			seg.answer(f, second, seg.ack, ack)
			s.tx = append(s.tx, e)
		} else {
			s.count.replyLost++
		}
	}
	return true
}

// send sends what is due, a burst at most.
func (s *station) send(now int64) (sent int) {
	if !s.began {
		s.began, s.pace.start = true, now
	}
	q := s.queues[s.lane]
	if len(s.unsent) == 0 {
		s.prepare(now)
		if len(s.unsent) == 0 {
			return 0
		}
	}
	sent = q.Send(s.unsent)
	for _, d := range s.unsent[:sent] {
		s.count.sentBytes += uint64(d.Len + bytesOnWire)
	}
	s.count.sent += uint64(sent)
	s.unsent = s.unsent[:copy(s.unsent, s.unsent[sent:])]
	if len(s.unsent) == 0 {
		if s.pace.rate > 0 {
			record(s.lag, now-s.held)
		}
		s.lane = (s.lane + 1) % len(s.lanes)
	}
	return sent
}

// prepare makes the next burst of the lane whose turn it is.
func (s *station) prepare(now int64) {
	due := min(s.pace.due(now), uint64(s.burst))
	c := s.lanes[s.lane]
	for i := range due {
		addr, ok := s.pool.Get()
		if !ok {
			due = i
			break
		}
		d := packet.Desc{Addr: addr + packet.Headroom, Len: uint32(s.pool.ChunkSize() - packet.Headroom)}
		when := s.pace.when(i, now)
		if i == 0 {
			s.held = when
		}
		d.Len = uint32(c.next(s.pool.Bytes(d), when))
		s.unsent = append(s.unsent, d)
	}
	s.pace.sent += due
}

// gap is how long it is until the station has something to send, in ns.
func (s *station) gap(now int64) int64 {
	if len(s.lanes) == 0 || !s.sending.Load() {
		return math.MaxInt64
	}
	if !s.began || len(s.unsent) > 0 {
		return 0
	}
	return s.pace.gap(now)
}

// turn makes a frame go back to its sender: addresses and ports change places, which no checksum notices. It reports false for what
// is neither TCP nor UDP.
func turn(b []byte) bool {
	l4 := 34
	switch {
	case b[12] == 0x08 && b[13] == 0x00 && b[14] == 0x45 && (b[23] == packet.ProtoUDP || b[23] == packet.ProtoTCP):
		swap(b[26:30], b[30:34])
	case b[12] == 0x86 && b[13] == 0xdd && len(b) >= 62 && (b[20] == packet.ProtoUDP || b[20] == packet.ProtoTCP):
		l4 = 54
		swap(b[22:38], b[38:54])
	default:
		return false
	}
	if len(b) < l4+4 {
		return false
	}
	swap(b[0:6], b[6:12])
	swap(b[l4:l4+2], b[l4+2:l4+4])
	return true
}

func (s *station) close() (err error) {
	for _, d := range s.unsent {
		s.pool.Put(d.Addr)
	}
	s.unsent = nil
	for i := len(s.closers) - 1; i >= 0; i-- {
		if e := s.closers[i](); err == nil {
			err = e
		}
	}
	return err
}
