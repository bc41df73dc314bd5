package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stuck is what a persistent client knows of where it belongs.
type stuck struct {
	server int
	since  time.Time      // that it is known to belong there
	ports  map[uint16]int // the server of the latest connection from each port; somewhere if that is not known
}

const somewhere = -1

// Ports that clients choose from: Linux' own range (ip_local_port_range).
const firstPort, lastPort = 32768, 60999

// request is one connection for one request, from an address of the client's or any. A persistent client always gets the same server.
func (l *load) request(r *rand.Rand, w way, from string, at *stuck) {
	if !l.pause(time.Duration(20+r.IntN(120)) * time.Millisecond) {
		return
	}
	l.gate.RLock()
	defer l.gate.RUnlock()
	number := l.numbers.Add(1)
	s := &subject{traffic: Short, name: fmt.Sprintf("%s request %d", w.name, number), began: time.Now()}
	if at != nil {
		s.traffic = Stick // at a server that is not known until it has answered: where it belongs is judged then
		s.name += " of " + from
	}
	by := netip.AddrPort{}
	if at != nil { // who lets the kernel choose is not told the port of a connection that is refused
		by = netip.AddrPortFrom(netip.MustParseAddr(from), uint16(firstPort+r.IntN(lastPort-firstPort+1)))
	}
	got, err := l.ask(s, number, by, w.to, r.IntN(60_000))
	if errors.Is(err, unix.EADDRINUSE) {
		return // another time
	}
	if err != nil {
		if at != nil {
			at.ports[by.Port()] = somewhere
		}
		if l.stop.Err() == nil {
			l.checker.count("requests that failed", 1)
		}
		l.failed(s, s.began, err)
		return
	}
	l.checker.count("requests", 1)
	if at == nil {
		return
	}
	before := at.ports[by.Port()]
	at.ports[by.Port()] = got
	if at.server != got && (before == got || before == somewhere) {
		// IPVS takes a SYN from a port that it still knows for the old connection's, if that was opened by persistence (is_new_conn_expected): where
		// it goes says nothing of where the client belongs.
		l.checker.count("requests from a port that was used before", 1)
		return
	}
	if at.server != 0 && at.server != got {
		s.tell("is answered by s%d", got)
		l.checker.saw(s, Moved, at.since, time.Now(), "from s%d, where it belongs since %.3f, to s%d", at.server, at.since.Sub(l.checker.journal.start).Seconds(), got)
		at.server = 0
	}
	if at.server == 0 {
		at.server, at.since = got, time.Now()
	}
}

// ask asks for n bytes, from an address and port or any, and returns the server that gave them.
func (l *load) ask(s *subject, number uint64, from netip.AddrPort, to string, n int) (server int, err error) {
	c, err := l.dial("tcp", from, to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(l.stop, func() { c.Close() })()
	s.tell("connected from %s", c.LocalAddr())
	_ = c.SetDeadline(time.Now().Add(patience))
	question := record{what: whatGet, conn: number, body: strconv.AppendInt(nil, int64(n), 10)}
	if _, err := c.Write(question.append(nil)); err != nil {
		return 0, err
	}
	var in record
	var buf []byte
	if err := in.read(c, &buf); err != nil {
		return 0, err
	}
	if in.what != whatAnswer || in.conn != number || !bytes.Equal(in.body, bodyOf(nil, number, 0, n)) {
		return 0, fmt.Errorf("asked for %d bytes of conn %d, got another %d of conn %d from s%d", n, number, len(in.body), in.conn, in.server)
	}
	return int(in.server), nil
}
