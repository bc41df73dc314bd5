package judge

// Flags of TCP.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
	flagURG = 0x20
)

// life is how far a flow has come. Most of its packets are those that come next in the life of a connection, some are any.
type life struct {
	v6       bool
	protocol string
	phase    int
}

// Phases of a TCP connection, as its ends see it.
const (
	unborn = iota
	asked
	answered
	established
	clientClosed
	serverClosed
	bothClosed
	dead
)

// live lets a flow go on.
func (g *generator) live(flow int) {
	l := &g.lives[flow]
	for range 1 + g.IntN(3) {
		o := Op{Do: DoPacket, Flow: flow}
		switch {
		case l.protocol == "tcp":
			g.liveTCP(l, &o)
		case l.protocol == "sctp":
			g.liveSCTP(l, &o)
		default:
			g.liveUDP(l, &o)
		}
		g.vary(l, &o)
		g.add(o)
	}
}

func (g *generator) liveUDP(l *life, o *Op) {
	o.Data = g.IntN(100)
	if l.phase > 0 && g.chance(45) {
		o.Side = Server
	}
	l.phase = 1
}

func (g *generator) liveTCP(l *life, o *Op) {
	if g.chance(12) {
		g.anyTCP(l, o)
		return
	}
	switch l.phase {
	case unborn, dead:
		o.Flags = flagSYN
		l.phase = asked
	case asked:
		o.Side, o.Flags = Server, flagSYN|flagACK
		if l.phase = answered; g.chance(15) {
			l.phase, o.Side, o.Flags = asked, Client, flagSYN // once more
		}
	case answered:
		o.Flags = flagACK
		l.phase = established
	case established:
		o.Side = g.IntN(2)
		switch {
		case g.chance(60):
			o.Flags, o.Data = flagACK|flagPSH, g.IntN(100)
		case g.chance(25):
			o.Flags = pick(g, flagRST, flagRST|flagACK)
			l.phase = dead
		default:
			o.Flags = flagFIN | flagACK
			l.phase = clientClosed + o.Side
		}
	case clientClosed, serverClosed:
		other := Server - (l.phase - clientClosed)
		o.Side, o.Flags = other, flagACK
		if g.chance(70) {
			o.Flags |= flagFIN
			l.phase = bothClosed
		}
	case bothClosed:
		o.Side, o.Flags = g.IntN(2), flagACK
		l.phase = dead
	}
}

// anyTCP is any segment at any time. A SYN with ACK, FIN or RST from a client that has no connection is a departure (docs/ipvs.md), so
// such a one comes only where there is one.
func (g *generator) anyTCP(l *life, o *Op) {
	o.Side = g.IntN(2)
	o.Flags = pick(g, flagSYN, flagACK, flagFIN, flagFIN|flagACK, flagRST, flagRST|flagACK, flagPSH|flagACK, 0, flagURG|flagACK, flagSYN|flagACK,
		flagSYN|flagFIN, flagSYN|flagRST)
	o.Data = g.IntN(10)
	if o.Flags&flagSYN != 0 && o.Flags != flagSYN && o.Side == Client {
		o.Alive = true
	}
}

// Chunks of SCTP (RFC 9260 section 3.2).
const (
	chunkData = iota
	chunkInit
	chunkInitAck
	chunkSACK
	chunkHeartbeat
	chunkHeartbeatAck
	chunkAbort
	chunkShutdown
	chunkShutdownAck
	chunkError
	chunkCookieEcho
	chunkCookieAck
	_
	_
	chunkShutdownComplete
)

// liveSCTP walks through an association; Flags is the chunk's type.
func (g *generator) liveSCTP(l *life, o *Op) {
	type turn struct{ side, chunk int }
	walk := []turn{{Client, chunkInit}, {Server, chunkInitAck}, {Client, chunkCookieEcho}, {Server, chunkCookieAck}, {Client, chunkData}, {Server, chunkSACK},
		{Server, chunkData}, {Client, chunkShutdown}, {Server, chunkShutdownAck}, {Client, chunkShutdownComplete}}
	t := walk[l.phase%len(walk)]
	if g.chance(15) {
		t = turn{g.IntN(2), g.IntN(chunkShutdownComplete + 1)}
	} else if !g.chance(15) {
		l.phase++
	}
	o.Side, o.Flags, o.Data = t.side, t.chunk, 16+4*g.IntN(4)
	if (t.chunk == chunkCookieEcho || t.chunk == chunkCookieAck) && g.chance(20) {
		o.Spoil = "abort" // bundled behind it
	}
}

// vary gives a packet what packets have besides.
func (g *generator) vary(l *life, o *Op) {
	if g.chance(8) {
		o.TOS = pick(g, 1, 2, 3, 0x28, 0xb8)
	}
	o.DF = g.chance(50)
	switch {
	case g.chance(4):
		ttl := pick(g, 0, 1, 1, 2)
		o.TTL = &ttl
		o.Alive = o.Alive || o.Side == Server // or the kernel, routing it on, answers instead
	case g.chance(3) && o.Spoil == "" && !l.v6:
		o.Spoil = pick(g, "nop", "ra")
	case g.have.Garbage && o.Spoil == "" && g.chance(4):
		o.Spoil = pick(g, "sum", "ipsum", "short", "trailer", "tiny", "ihl", "version", "nosum")
		o.Alive = o.Alive || o.Side == Server
	case g.have.Fragments && l.protocol != "sctp" && g.chance(5): // its checksum is over the whole datagram
		o.Data = 200 + 8*g.IntN(100)
		at := 24 + 8*g.IntN(10)
		o.Cut = []int{at}
		if g.chance(50) {
			o.Cut = append(o.Cut, at+8+8*g.IntN(8))
		}
		o.Reverse = g.chance(30)
	case g.chance(3):
		o.Data = 1100 + g.IntN(300)
	}
}
