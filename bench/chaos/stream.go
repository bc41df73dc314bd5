package chaos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// stream is one TCP connection over which numbered records go to and fro for a while.
func (l *load) stream(r *rand.Rand, w way, length time.Duration) {
	number := l.numbers.Add(1)
	s := &subject{traffic: Stream, name: fmt.Sprintf("%s stream %d", w.name, number), began: time.Now()}
	l.gate.RLock()
	c, err := l.dial("tcp", netip.AddrPort{}, w.to)
	l.gate.RUnlock()
	if err != nil {
		s.traffic = Short // as far as it got
		l.failed(s, s.began, err)
		l.pause(100 * time.Millisecond)
		return
	}
	defer c.Close()
	s.name += " from " + c.LocalAddr().String()
	s.tell("connected")
	defer context.AfterFunc(l.stop, func() { c.Close() })() // nobody waits for what comes then
	t := &talk{number: number, c: c, over: make(chan struct{}), broken: make(chan error, 1)}
	defer close(t.over)
	go l.write(r, t, length)
	l.read(s, t)
}

// talk is what the two sides of a stream know of each other.
type talk struct {
	number   uint64
	c        net.Conn
	written  atomic.Uint64 // records
	finished atomic.Bool   // there will be no more
	over     chan struct{} // closed when nobody reads any more
	broken   chan error    // why nothing can be written any more: the kernel tells why a connection ended once, to whoever asks first
}

// write sends a record every 20 ms or so until the time is up, and closes its side then.
func (l *load) write(r *rand.Rand, t *talk, length time.Duration) {
	var body, out []byte
	deadline := time.Now().Add(length)
	for seq := uint64(0); time.Now().Before(deadline); seq++ {
		select {
		case <-t.over:
			return
		case <-l.stop.Done():
			return
		case <-time.After(time.Duration(10+r.IntN(20)) * time.Millisecond):
		}
		size := r.IntN(200)
		if r.IntN(8) == 0 {
			size = 1000 + r.IntN(9000)
		}
		body = bodyOf(body[:0], t.number, seq, size)
		out = (&record{what: whatEcho, conn: t.number, seq: seq, body: body}).append(out[:0])
		l.gate.RLock()
		t.written.Store(seq + 1)
		_ = t.c.SetWriteDeadline(time.Now().Add(patience))
		_, err := t.c.Write(out)
		l.gate.RUnlock()
		if err != nil {
			t.broken <- err
			return
		}
	}
	t.finished.Store(true)
	_ = t.c.(*net.TCPConn).CloseWrite() // what is wrong with it the reader sees
}

// read takes the answers, each of which must be the next, from the same server, byte for byte.
func (l *load) read(s *subject, t *talk) {
	mine := life{began: time.Now()}
	defer func() {
		mine.ended = time.Now()
		l.checker.lived(mine)
	}()
	var in record
	var buf, want []byte
	var server byte
	var incarnation, next uint64
	last := time.Now()
	for {
		_ = t.c.SetReadDeadline(time.Now().Add(patience))
		err := in.read(t.c, &buf)
		now := time.Now()
		if l.stop.Err() != nil {
			l.checker.count("streams unharmed at the end", 1)
			return
		}
		since := last
		if r := time.Unix(0, l.resumed.Load()); r.After(since) {
			since = r // it was to be silent
		}
		if now.Sub(since) > noticed {
			mine.gaps = append(mine.gaps, gap{since, now})
			s.tell("silent for %v before record %d", now.Sub(since).Round(time.Millisecond), next)
		}
		last = now
		if err == io.EOF && t.finished.Load() && next == t.written.Load() {
			l.checker.count("streams closed in good order", 1)
			return
		}
		if err == io.EOF {
			select {
			case err = <-t.broken:
			case <-time.After(100 * time.Millisecond): // the writer writes sooner, if it still does
			}
		}
		if err != nil {
			s.tell("%v after %d of %d records", err, next, t.written.Load())
			if sight, ok := sightOf(err); ok && sight == Unreachable {
				l.checker.violation(s, now, "%s: silent for %v: %v", s.name, patience, err)
				return
			}
			l.failed(s, mine.began, err)
			l.checker.count("streams broken", 1)
			return
		}
		if next == 0 {
			server, incarnation = in.server, in.incarnation
			s.server = int(server)
			s.tell("is at s%d", server)
		}
		want = bodyOf(want[:0], t.number, next, len(in.body))
		switch {
		case in.what == whatBroken:
			l.checker.violation(s, now, "%s: s%d says: %s", s.name, in.server, in.body)
		case in.server != server || in.incarnation != incarnation:
			l.checker.violation(s, now, "%s: record %d was answered by s%d (process %x), those before by s%d (process %x)", s.name, next, in.server, in.incarnation, server, incarnation)
		case in.conn != t.number || in.seq != next:
			l.checker.violation(s, now, "%s: record %d of %d came where %d of %d belongs", s.name, in.seq, in.conn, next, t.number)
		case !bytes.Equal(in.body, want):
			l.checker.violation(s, now, "%s: record %d has wrong bytes", s.name, next)
		default:
			next++
			l.checker.count("records", 1)
			continue
		}
		return
	}
}
