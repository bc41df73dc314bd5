package health

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pinger has one raw socket of a family for all checks: a socket each would have the kernel copy every echo reply to all of them. It is open while
// an echo is under way.
type pinger struct {
	network  string // ip4:icmp, ip6:ipv6-icmp
	request  byte   // type of an echo request
	reply    byte
	level    int // and the option that lets echo replies through alone
	option   int
	filter   []byte
	id       uint16
	mu       sync.Mutex
	conn     *net.IPConn
	sequence uint16
	waiting  map[uint16]waiter // by sequence number
}

// waiter is one echo under way.
type waiter struct {
	from netip.Addr
	back chan struct{} // closed when the reply has come
}

const (
	solRaw     = 255 // SOL_RAW and ICMP_FILTER of linux/icmp.h
	icmpFilter = 1
)

var (
	pinger4 = &pinger{network: "ip4:icmp", request: 8, reply: 0, level: solRaw, option: icmpFilter, filter: blockedBut(0)[:4],
		id: uint16(rand.Uint32()), waiting: map[uint16]waiter{}}
	pinger6 = &pinger{network: "ip6:ipv6-icmp", request: 128, reply: 129, level: unix.IPPROTO_ICMPV6, option: unix.ICMPV6_FILTER, filter: blockedBut(129),
		id: uint16(rand.Uint32()), waiting: map[uint16]waiter{}}
)

// blockedBut is a filter of ICMP types, a bit each that blocks one: all but this.
func blockedBut(kind byte) []byte {
	var b [32]byte
	for word := range 8 {
		w := ^uint32(0)
		if int(kind)/32 == word {
			w &^= 1 << (kind % 32)
		}
		binary.NativeEndian.PutUint32(b[4*word:], w)
	}
	return b[:]
}

// askICMP sends an echo request and waits for its reply.
func askICMP(ctx context.Context, c *Check) error {
	p, to := pinger4, c.Target.Addr()
	if to.Is6() {
		p = pinger6
	}
	conn, seq, back, err := p.begin(to)
	if err != nil {
		return plain("icmp", err)
	}
	defer p.end(seq)
	if _, err := conn.WriteToIP(p.echo(seq), &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		return plain("icmp", err)
	}
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin opens the socket if it is not open, and takes a number for an echo to a server.
func (p *pinger) begin(to netip.Addr) (*net.IPConn, uint16, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		conn, err := net.ListenPacket(p.network, "")
		if err != nil {
			return nil, 0, nil, err
		}
		p.conn = conn.(*net.IPConn)
		if raw, err := p.conn.SyscallConn(); err == nil { // without the filter there is more to read and nothing else
			_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptString(int(fd), p.level, p.option, string(p.filter)) })
		}
		go p.read(p.conn)
	}
	for p.sequence++; p.waiting[p.sequence].back != nil; p.sequence++ { // there are at most as many as checks at once
	}
	w := waiter{to.WithZone(""), make(chan struct{})}
	p.waiting[p.sequence] = w
	return p.conn, p.sequence, w.back, nil
}

// end forgets an echo, and closes the socket with the last one.
func (p *pinger) end(seq uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, seq)
	if len(p.waiting) == 0 {
		p.conn.Close()
		p.conn = nil
	}
}

// echo is an echo request. Its ICMPv6 checksum is the kernel's to make (RFC 3542 section 3.1).
func (p *pinger) echo(seq uint16) []byte {
	b := make([]byte, 16)
	b[0] = p.request
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], seq)
	copy(b[8:], "weir-hc.")
	if p == pinger4 {
		sum := uint32(0)
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	}
	return b
}

// read hands replies to those who wait for them, until the socket is closed.
func (p *pinger) read(conn *net.IPConn) {
	b := make([]byte, 256)
	for {
		n, from, err := conn.ReadFromIP(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no memory: others still wait for theirs
			time.Sleep(10 * time.Millisecond)
			continue
		}
		addr, _ := netip.AddrFromSlice(from.IP)
		if seq, ok := p.parse(b[:n]); ok {
			p.deliver(addr.Unmap(), seq)
		}
	}
}

// parse is the number of an echo reply to us.
func (p *pinger) parse(b []byte) (seq uint16, ok bool) {
	if len(b) < 8 || b[0] != p.reply || b[1] != 0 || binary.BigEndian.Uint16(b[4:]) != p.id {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[6:]), true
}

func (p *pinger) deliver(from netip.Addr, seq uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := p.waiting[seq]; ok && w.from == from {
		select {
		case <-w.back:
		default:
			close(w.back)
		}
	}
}
