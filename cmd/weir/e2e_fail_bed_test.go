package main_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/control"
	"weir/control/host/testnet"
)

// stream is a connection to an echo server over which a message goes to and fro until the test ends or something breaks.
type stream struct {
	rounds atomic.Int64
	halt   atomic.Bool
	conn   net.Conn
	ended  chan struct{}
	err    error // why it broke; valid once ended is closed
}

// works opens n streams, wants data to flow, and ends them.
func works(t testing.TB, s *testnet.Space, to string, n int) {
	t.Helper()
	finish(t, streams(t, s, to, n, 5*time.Second))
}

// finish ends streams in good order: each still works, is halted and closed.
func finish(t testing.TB, all []*stream) {
	t.Helper()
	for i, x := range all {
		x.halt.Store(true)
		<-x.ended
		if x.err != nil {
			t.Errorf("stream %d broke after %d rounds: %v", i, x.rounds.Load(), x.err)
		}
		x.conn.Close()
	}
}

// streams opens n connections from a namespace, each with data flowing at once. Each gives up after a silence of limit.
func streams(t testing.TB, s *testnet.Space, to string, n int, limit time.Duration) []*stream {
	t.Helper()
	all := make([]*stream, n)
	for i := range all {
		c, err := dial(s, "tcp", to)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		x := &stream{conn: c, ended: make(chan struct{})}
		all[i] = x
		t.Cleanup(func() { c.Close() })
		go func() {
			defer close(x.ended)
			for ; x.err == nil && !x.halt.Load(); time.Sleep(5 * time.Millisecond) { // 200 messages a second, lest two cores do nothing else
				if x.err = pingPong(c, limit); x.err == nil {
					x.rounds.Add(1)
				}
			}
		}()
	}
	flows(t, all, 5*time.Second)
	return all
}

// flows waits until every stream has made progress since now.
func flows(t testing.TB, all []*stream, limit time.Duration) {
	t.Helper()
	was := make([]int64, len(all))
	for i, x := range all {
		was[i] = x.rounds.Load()
	}
	for i, x := range all {
		eventually(t, limit, fmt.Sprintf("data flows in stream %d", i), func() bool {
			select {
			case <-x.ended:
				t.Fatalf("stream %d ended after %d rounds: %v", i, x.rounds.Load(), x.err)
			default:
			}
			return x.rounds.Load() >= was[i]+2
		})
	}
}

// echoes makes every server echo at a TCP port.
func (b *bed) echoes(port int) {
	b.t.Helper()
	for i := range b.servers {
		b.listen(i, port, echo)
	}
}

// segment is what a tap sees of one TCP segment or UDP datagram without IP options or extension headers.
type segment struct {
	src, dst netip.AddrPort
	flags    byte // TCP's; 0 with UDP
	ttl      byte
}

const flagRST = 0x04

// segmentOf reads a frame. It reports false for what is neither TCP nor UDP.
func segmentOf(f []byte) (s segment, ok bool) {
	if len(f) < 14 {
		return s, false
	}
	p, proto := f[14:], byte(0)
	var src, dst netip.Addr
	switch binary.BigEndian.Uint16(f[12:]) {
	case unix.ETH_P_IP:
		if len(p) < 20 || p[0] != 0x45 {
			return s, false
		}
		src, dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		proto, s.ttl, p = p[9], p[8], p[20:]
	case unix.ETH_P_IPV6:
		if len(p) < 40 {
			return s, false
		}
		src, dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		proto, s.ttl, p = p[6], p[7], p[40:]
	default:
		return s, false
	}
	if proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP || len(p) < 8 || proto == unix.IPPROTO_TCP && len(p) < 20 {
		return s, false
	}
	s.src, s.dst = netip.AddrPortFrom(src, binary.BigEndian.Uint16(p)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(p[2:]))
	if proto == unix.IPPROTO_TCP {
		s.flags = p[13]
	}
	return s, true
}

// tap hands every TCP segment and UDP datagram that a device receives to see, on a goroutine of its own, until the test ends.
func tap(t testing.TB, s *testnet.Space, dev string, see func(segment)) {
	t.Helper()
	frames(t, s, dev, func(f []byte) {
		if x, ok := segmentOf(f); ok {
			see(x)
		}
	})
}

// frames hands every frame that a device receives to see, on a goroutine of its own, until the test ends. The frame is see's until it returns.
func frames(t testing.TB, s *testnet.Space, dev string, see func(frame []byte)) {
	t.Helper()
	fd := packetSocket(t, s, dev, unix.ETH_P_ALL)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000}))
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 2048)
		for !stop.Load() {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue // nothing came, or the device is down
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			see(buf[:n])
		}
	})
	t.Cleanup(func() {
		stop.Store(true)
		done.Wait()
		unix.Close(fd)
	})
}

// packetSocket is a raw socket on a device. protocol 0 only sends.
func packetSocket(t testing.TB, s *testnet.Space, dev string, protocol uint16) (fd int) {
	t.Helper()
	must(t, s.Exec(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		order := binary.BigEndian.AppendUint16(nil, protocol)
		wire := binary.NativeEndian.Uint16(order)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(wire)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: wire})
	}))
	return fd
}

// resets counts the RSTs that reach the client.
func (b *bed) resets() *atomic.Int64 {
	b.t.Helper()
	n := new(atomic.Int64)
	tap(b.t, b.client, "eth0", func(s segment) {
		if s.flags&flagRST != 0 {
			n.Add(1)
		}
	})
	return n
}

// now are the counters, asked for without a process in between.
func (d *daemon) now() (s control.Stats) {
	d.t.Helper()
	must(d.t, control.NewClient(d.socket).Get("/stats", &s))
	return s
}

// runs fails the test if the daemon has ended.
func (d *daemon) runs() {
	d.t.Helper()
	select {
	case <-d.ended:
		d.t.Fatalf("the daemon ended: %v", d.cmd.ProcessState)
	default:
	}
}

// usage is how much processor time the daemon has used.
func (d *daemon) usage() time.Duration {
	d.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid()))
	must(d.t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	user, err := strconv.Atoi(f[11])
	must(d.t, err)
	system, err := strconv.Atoi(f[12])
	must(d.t, err)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ is 100
}

// xdp is the ID of the XDP program on a device, 0 without one.
func xdp(t testing.TB, s *testnet.Space, dev string) (id uint32) {
	t.Helper()
	must(t, s.Exec(func() error {
		link, err := netlink.LinkByName(dev)
		if err == nil && link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached {
			id = link.Attrs().Xdp.ProgId
		}
		return err
	}))
	return id
}

// has says if an address is on some device of the namespace.
func has(t testing.TB, s *testnet.Space, addr string) (found bool) {
	t.Helper()
	must(t, s.Exec(func() error {
		all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range all {
			found = found || a.IP.Equal(net.ParseIP(addr))
		}
		return err
	}))
	return found
}
