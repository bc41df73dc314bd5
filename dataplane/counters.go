package dataplane

// Counters of one worker. Only the worker writes them, and anyone may read them at any time: each is one aligned word, written by
// add and read by load (counters_word.go), so no reader sees half a number and no worker pays for a locked instruction.
type Counters struct {
	Received  counter // frames taken from receive rings; what steering in software passed is not among them
	Forwarded counter
	Answered  counter
	Punted    counter
	Consumed  counter
	Held      counter // a gauge: frames that wait now
	Sent      counter // frames sent in addition to the forwarded: answers, fragments after the first
	Passed    counter // frames left to the kernel by steering in software
	Drops     [NumDrops]counter

	Vectors counter // non-empty vectors
	Rounds  counter
	Sleeps  counter

	// of shield.go
	CookiesSent counter // SYNs answered by a cookie
	CookiesGood counter // that came back and opened a connection, or should have
	CookiesBad  counter // ACKs of no connection, while cookies are out, that bring none of ours back
	Challenges  counter // SYNs answered by a challenge
	Vouched     counter // challenges that were met

	AnswerLost counter // answers made but not sent: no route, neighbour or room; their cause counts as answered
}

// BackendCounters are one worker's counts for one backend. In is from the client, Out from the server; bytes are of IP packets.
type BackendCounters struct {
	Ways            [2]WayCounters // by conntrack.Ref.Direction: in, out
	Conns           counter
	Retried, Opened counter    // SYNs that clients sent once more, and handshakes that were done
	_               [1]counter // a cache line of its own
}

// WayCounters are those of one direction.
type WayCounters struct{ Packets, Bytes counter }

func (c *WayCounters) add(bytes uint64) {
	c.Packets.add(1)
	c.Bytes.add(bytes)
}

// Verdicts are a worker's or all workers' sums, as `weir stats` shows them: Received is the sum of the others.
type Verdicts struct {
	Received  uint64 `json:"received"`
	Forwarded uint64 `json:"forwarded"`
	Answered  uint64 `json:"answered"`
	Punted    uint64 `json:"punted"`
	Consumed  uint64 `json:"consumed"`
	Dropped   uint64 `json:"dropped"`
	Held      uint64 `json:"held"`
}

// Add sums the counters up into v and drops, which are indexed by Drop. A worker that runs meanwhile counts a frame as received first and
// says later what became of it, so they are read the other way round: the verdicts are never more than the frames received.
func (c *Counters) Add(v *Verdicts, drops *[NumDrops]uint64) {
	v.Forwarded += c.Forwarded.load()
	v.Answered += c.Answered.load()
	v.Punted += c.Punted.load()
	v.Consumed += c.Consumed.load()
	for d := range c.Drops {
		n := c.Drops[d].load()
		drops[d] += n
		v.Dropped += n
	}
	v.Held += c.Held.load()
	v.Received += c.Received.load()
}

// Handshakes sums up, for the backend with the given ID, the SYNs that clients sent once more because there was no answer yet, and the TCP handshakes
// that were done.
func (e *Engine) Handshakes(id uint32) (retried, opened uint64) {
	for _, w := range e.workers {
		retried += w.Backends[id].Retried.load()
		opened += w.Backends[id].Opened.load()
	}
	return retried, opened
}

// Backend sums up what all workers counted for the backend with the given ID.
func (e *Engine) Backend(id uint32) (t Traffic) {
	for _, w := range e.workers {
		t = t.Plus(w.Backends[id].Sum())
	}
	return t
}

// WorkerSums are one worker's counters that no verdict shows.
type WorkerSums struct {
	Received, Sent, Passed, Vectors, Rounds, Sleeps, Held, AnswerLost uint64
	CookiesSent, CookiesGood, CookiesBad, Challenges, Vouched         uint64
}

// Sum reads the counters that Add leaves out, and those that show how busy the worker is.
func (c *Counters) Sum() WorkerSums {
	return WorkerSums{
		c.Received.load(), c.Sent.load(), c.Passed.load(), c.Vectors.load(), c.Rounds.load(), c.Sleeps.load(), c.Held.load(), c.AnswerLost.load(),
		c.CookiesSent.load(), c.CookiesGood.load(), c.CookiesBad.load(), c.Challenges.load(), c.Vouched.load(),
	}
}

// Traffic is what was counted for a backend or service. In is from the clients, bytes are of IP packets.
type Traffic struct {
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"in_packets"`
	InBytes    uint64 `json:"in_bytes"`
	OutPackets uint64 `json:"out_packets"`
	OutBytes   uint64 `json:"out_bytes"`
}

// Plus is the sum of both.
func (t Traffic) Plus(o Traffic) Traffic {
	return Traffic{t.Conns + o.Conns, t.InPackets + o.InPackets, t.InBytes + o.InBytes, t.OutPackets + o.OutPackets, t.OutBytes + o.OutBytes}
}

// Minus is what was counted since o.
func (t Traffic) Minus(o Traffic) Traffic {
	return Traffic{t.Conns - o.Conns, t.InPackets - o.InPackets, t.InBytes - o.InBytes, t.OutPackets - o.OutPackets, t.OutBytes - o.OutBytes}
}

// Sum reads one worker's counters for the backend.
func (c *BackendCounters) Sum() Traffic {
	in, out := &c.Ways[0], &c.Ways[1]
	return Traffic{c.Conns.load(), in.Packets.load(), in.Bytes.load(), out.Packets.load(), out.Bytes.load()}
}
