package dataplane

import (
	"sync/atomic"

	"weir/conntrack"
	"weir/dataplane/packet"
	"weir/dataplane/route"
)

// Sources are the local addresses and ports that connections to one backend come from, where the client's are rewritten: fullnat, or
// NAT with masquerade. A pair of address and port is used once for each server address, port and protocol at a time. The connection table sees to
// that, by the reply's tuple, so there is no list of free pairs, and no lock.
type Sources struct {
	Addrs    []conntrack.Addr // none: the address of the port that leads to the server
	From, To uint16
	Cursor   *Cursor // of the backend, the same in every snapshot
	TOA      bool    // pass the client's address on in a TCP option

	When   Masquerade
	Except *route.Table // clients that are not masqueraded; with MasqueradeExcept
}

// Masquerade is which connections have their source rewritten.
type Masquerade uint8

const (
	MasqueradeAlways  Masquerade = iota
	MasqueradeHairpin            // those whose client and server may be reached by one port, or in one segment: the answer would pass us by
	MasqueradeExcept             // all but those from the networks of Except
)

// Cursor goes round the pairs, so that the one given out longest ago is tried first: the server may still hold the connection before in
// TIME_WAIT.
type Cursor struct {
	at    atomic.Uint64
	vain  atomic.Uint64 // pairs that were found taken since one was not
	until atomic.Int64  // nanoseconds: all pairs were found taken, and none is looked for before
}

// Seed says where the cursor begins; equal seeds give equal pairs.
func (c *Cursor) Seed(seed uint64) { c.at.Store(seed) }

const (
	sourceTries = 4096       // pairs that are tried for one connection, 0.2 ms; the next one goes on behind them
	sourceBatch = 16         // of them are looked up at once
	sourcePause = 10_000_000 // nanoseconds between two searches in vain
)

// pairs is how many there are.
func (s *Sources) pairs() uint64 {
	return uint64(max(len(s.Addrs), 1)) * (uint64(s.To-s.From) + 1)
}

// stride is a number without a common factor with n, about 0.6 of it, so that its multiples modulo n pass all of n in an order that looks random.
func stride(n uint64) uint64 {
	for s := n*5/8 | 1; ; s += 2 {
		a, b := n, s
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return s
		}
	}
}

// pair is number k of them. own is the port's address, where Addrs is empty.
func (s *Sources) pair(k, n, stride uint64, own conntrack.Addr) (conntrack.Addr, uint32) {
	k = k % n * stride % n
	span := uint64(s.To-s.From) + 1
	if len(s.Addrs) > 0 {
		own = s.Addrs[k/span]
	}
	return own, uint32(s.From) + uint32(k%span)
}

// masquerades reports whether the source of a connection of t to b is rewritten.
func (w *Worker) masquerades(b *Backend, t *conntrack.Tuple) bool {
	switch s := b.Sources; s.When {
	case MasqueradeHairpin:
		if client := t.Space >> 8; client|b.VNI != 0 {
			return client == b.VNI // within a segment they reach each other
		}
		return w.route(t.Src, t.V6).Meets(w.route(b.Addr, b.V6))
	case MasqueradeExcept:
		return !covers(s.Except, t.Src, t.V6)
	}
	return true
}

// covers reports whether a route of t, a set of networks, has addr.
func covers(t *route.Table, addr conntrack.Addr, v6 bool) bool {
	if v6 {
		return t.Lookup6(addr.Hi, addr.Lo) != nil
	}
	return t.Lookup4(uint32(addr.Lo)) != nil
}

// ownAddress is that of the port that leads to b.
func (w *Worker) ownAddress(b *Backend) (conntrack.Addr, bool) {
	var l lane
	if _, ok := w.nextHop(&l, b.Addr, b.V6, 0); !ok {
		return conntrack.Addr{}, false
	}
	return w.speaker(int(l.out), b.Addr, conntrack.Addr{}, b.V6)
}

// sourceless is why a connection to b got no source.
func (w *Worker) sourceless(b *Backend, s *Sources) Drop {
	if len(s.Addrs) == 0 {
		if _, ok := w.ownAddress(b); !ok {
			return DropNoRoute
		}
	}
	return DropNoLocalPort
}

// from makes (addr, port) the source of the connection in w.conn.
func (w *Worker) from(addr conntrack.Addr, port uint32) {
	c := &w.conn
	c.ForwardTo.Src, c.ForwardTo.Ports = addr, port<<16|c.ForwardTo.Ports&0xffff
	c.Reply.Dst, c.Reply.Ports = addr, c.Reply.Ports&^0xffff|port
}

// allocate inserts the connection in w.conn with a source that no other connection to the server has. The outcome is Clash when all are
// taken.
func (w *Worker) allocate(b *Backend, s *Sources, f *packet.Frame) (conntrack.Ref, conntrack.State, conntrack.Outcome) {
	own, ok := conntrack.Addr{}, true
	if len(s.Addrs) == 0 {
		own, ok = w.ownAddress(b)
	}
	if !ok || w.now < s.Cursor.until.Load() {
		return 0, conntrack.None, conntrack.Clash
	}
	n := s.pairs()
	step := stride(n)
	at := s.Cursor.at.Add(1)
	w.from(s.pair(at, n, step, own))
	if ref, state, outcome := w.insert(b, f); outcome != conntrack.Clash {
		if s.Cursor.vain.Load() != 0 {
			s.Cursor.vain.Store(0)
		}
		return ref, state, outcome
	}
	// It is taken, so more may be: they are looked up a few at once.
	for k := uint64(1); k < min(n, sourceTries); k += sourceBatch {
		var q [sourceBatch]conntrack.Query
		for i := range q {
			w.from(s.pair(at+k+uint64(i), n, step, own))
			q[i].Tuple = w.conn.Reply
		}
		w.table.Lookup(q[:])
		for i := range q {
			if q[i].Ref != 0 {
				continue
			}
			w.from(s.pair(at+k+uint64(i), n, step, own))
			if ref, state, outcome := w.insert(b, f); outcome != conntrack.Clash {
				s.Cursor.at.Store(at + k + uint64(i))
				s.Cursor.vain.Store(0)
				return ref, state, outcome
			}
		}
	}
	// Connections that were opened one after the other, and are still there, are a block of pairs: it must not be met again and again.
	tried := min(n, sourceTries)
	s.Cursor.at.Store(at + tried - 1)
	if s.Cursor.vain.Add(tried) >= n {
		s.Cursor.vain.Store(0)
		s.Cursor.until.Store(w.now + sourcePause)
	}
	return 0, conntrack.None, conntrack.Clash
}

// borrow gives the packet in w.conn a source for itself alone. Nothing keeps it from the next one, but a connection's it must not be: the
// server's answer would go to that one's client.
func (w *Worker) borrow(s *Sources) bool {
	b := w.backend(w.conn.Backend)
	own, ok := conntrack.Addr{}, true
	if len(s.Addrs) == 0 {
		own, ok = w.ownAddress(b)
	}
	if !ok || w.now < s.Cursor.until.Load() {
		return false
	}
	n := s.pairs()
	step := stride(n)
	for range min(n, sourceTries) {
		w.from(s.pair(s.Cursor.at.Add(1), n, step, own))
		q := [1]conntrack.Query{{Tuple: w.conn.Reply}}
		if w.table.Lookup(q[:]); q[0].Ref == 0 {
			return true
		}
	}
	s.Cursor.until.Store(w.now + sourcePause)
	return false
}
