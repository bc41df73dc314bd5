package chaos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// flow is numbered datagrams between two addresses and ports. Those of every third are larger than the links, so that they go in fragments. Each is
// answered once, by the same server as long as there is an entry of it.
func (l *load) flow(r *rand.Rand, i int, to string) {
	number := l.numbers.Add(1)
	s := &subject{traffic: Flow, name: fmt.Sprintf("flow %d to %s", number, to), began: time.Now()}
	c, err := l.dial("udp", netip.AddrPort{}, to)
	if err != nil {
		l.failed(s, s.began, err)
		l.pause(100 * time.Millisecond)
		return
	}
	defer c.Close()
	roomy(c)
	s.name += " from " + c.LocalAddr().String()
	length := time.Duration(5+r.IntN(30)) * time.Second
	if i == 0 {
		length = time.Hour
	}
	f := &flow{load: l, subject: s, c: c, number: number, missing: map[uint64]datagram{}, large: i%3 == 2}
	f.run(r, time.Now().Add(length))
}

// flow is one while it lasts, on one goroutine.
type flow struct {
	*load
	subject *subject
	c       net.Conn
	number  uint64
	next    uint64
	missing map[uint64]datagram // sent, not answered
	since   time.Time           // that it is known to be where it is
	large   bool
	body    []byte
	out     []byte
	buf     [16 << 10]byte
}

// datagram is one that was sent.
type datagram struct {
	sent   time.Time
	server int // that the flow was at then
}

func (f *flow) run(r *rand.Rand, until time.Time) {
	due := time.Now()
	for f.stop.Err() == nil {
		now := time.Now()
		if now.After(until) && len(f.missing) == 0 {
			f.checker.count("flows ended in good order", 1)
			return
		}
		if now.After(due) {
			if now.Before(until) {
				f.send(r)
			}
			f.miss(now)
			due = now.Add(time.Duration(20+r.IntN(30)) * time.Millisecond)
		}
		f.receive(due)
	}
}

func (f *flow) send(r *rand.Rand) {
	size := r.IntN(300)
	if f.large {
		size = 2000 + r.IntN(5000)
	}
	f.body = bodyOf(f.body[:0], f.number, f.next, size)
	f.out = (&record{what: whatEcho, conn: f.number, seq: f.next, body: f.body}).append(f.out[:0])
	f.gate.RLock()
	defer f.gate.RUnlock()
	_, err := f.c.Write(f.out)
	if err != nil { // an ICMP error about an earlier one, which counts by itself
		_, err = f.c.Write(f.out)
	}
	if err == nil {
		f.missing[f.next] = datagram{time.Now(), f.subject.server}
		f.next++
	}
}

// miss judges datagrams that nobody waits for any more.
func (f *flow) miss(now time.Time) {
	for seq, d := range f.missing {
		sent := d.sent
		if now.Sub(sent) < missedAfter {
			continue
		}
		delete(f.missing, seq)
		then := *f.subject // it may have gone elsewhere meanwhile
		then.server = d.server
		f.checker.count("datagrams lost", 1)
		// What lost it had begun within a moment after it was sent.
		f.checker.saw(&then, Lost, sent, sent.Add(2*time.Second), "datagram %d, sent at %.3f", seq, sent.Sub(f.checker.journal.start).Seconds())
	}
}

// receive takes answers until due.
func (f *flow) receive(due time.Time) {
	for {
		_ = f.c.SetReadDeadline(due)
		n, err := f.c.Read(f.buf[:])
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() || f.stop.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
			continue
		}
		f.take(f.buf[:n])
	}
}

func (f *flow) take(b []byte) {
	var in record
	now, s := time.Now(), f.subject
	if err := in.parse(b); err != nil || in.what != whatAnswer || in.conn != f.number {
		f.checker.violation(s, now, "%s: %d bytes of somebody else's, conn %d: %v", s.name, len(b), in.conn, err)
		return
	}
	if _, ok := f.missing[in.seq]; !ok {
		f.checker.violation(s, now, "%s: datagram %d of %d was answered twice, or 10 s late", s.name, in.seq, f.next)
		return
	}
	delete(f.missing, in.seq)
	if !bytes.Equal(in.body, bodyOf(f.body[:0], f.number, in.seq, len(in.body))) {
		f.checker.violation(s, now, "%s: datagram %d has wrong bytes", s.name, in.seq)
	}
	f.checker.count("datagrams", 1)
	if s.server == int(in.server) {
		return
	}
	if s.server != 0 {
		was := s.server
		s.tell("is answered by s%d", in.server)
		s.server = 0 // both servers' events count
		f.checker.saw(s, Moved, f.since, now, "from s%d, where it was since %.3f, to s%d", was, f.since.Sub(f.checker.journal.start).Seconds(), in.server)
	}
	s.server, f.since = int(in.server), now
	s.tell("is at s%d", in.server)
}
