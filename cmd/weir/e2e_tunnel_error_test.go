package main_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet/pkttest"
)

// TestTunnelErrorsReachTheClient has packets in tunnels come to servers that have no end of them. What such a server's kernel says to the balancer,
// the client's kernel hears about its own datagram: as of a server without the tunnel, so the service is not silent.
func TestTunnelErrorsReachTheClient(t *testing.T) {
	f := newForwardBed(t, options{})
	modes := tunnelModes(f.servers[2], server4(2), server6(2), 4)
	d := f.start(f.config("services:", modes[0].services()))
	for _, m := range modes {
		outer6 := strings.Contains(m.server, ":")
		var want error
		switch gue := m.forward == "gue"; {
		case outer6 && (!gue || m.backend == ""):
			continue // the kernel says nothing that is an error of the path: a parameter problem, or silence for UDP without a checksum
		case m.v6() != outer6:
			want = unix.EHOSTUNREACH // another family has no better word (RFC 7915 4.2, 5.2)
		case gue:
			want = unix.ECONNREFUSED
		default:
			want = unix.ENOPROTOOPT
		}
		t.Run(m.name, func(t *testing.T) {
			f, d := f.with(t), d.with(t)
			d.reload(f.config("services:", m.services()))
			c, err := dial(f.client, "udp", hostPort(m.vip, portEcho))
			must(t, err)
			defer c.Close()
			onSocket(t, c.(*net.UDPConn), func(fd int) error { // every error, not only those that are for good
				if m.v6() {
					return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
				}
				return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
			})
			buf := make([]byte, 100)
			eventually(t, dialLimit, fmt.Sprintf("the client hears %v", want), func() bool {
				_, err = c.Write([]byte("anybody?"))
				if err == nil {
					must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
					_, err = c.Read(buf)
				}
				return errors.Is(err, want)
			})
		})
	}
}

// TestTracerouteThroughTunnels has a datagram die at the router behind the balancer: the client gets the time exceeded, which quotes the
// datagram as the client has sent it.
func TestTracerouteThroughTunnels(t *testing.T) {
	f := newForwardBed(t, options{})
	type told struct {
		from  netip.Addr
		quote []byte
	}
	var mu sync.Mutex
	var all []told
	frames(t, f.client, "eth0", func(frame []byte) {
		h, err := headerOf(frame[14:])
		exceeded := err == nil && len(h.payload) > 8 && (h.proto == unix.IPPROTO_ICMP && h.payload[0] == 11 || h.proto == unix.IPPROTO_ICMPV6 && h.payload[0] == 3)
		if !exceeded {
			return
		}
		if err := pkttest.Verify(frame[14:]); err != nil {
			t.Errorf("time exceeded: %v", err)
		}
		mu.Lock()
		all = append(all, told{h.src, append([]byte(nil), h.payload[8:]...)})
		mu.Unlock()
	})
	modes := tunnelModes(f.remote, remote4, remote6, 4)
	d := f.start(f.config("services:", modes[0].services()))
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			f, d := f.with(t), d.with(t)
			d.reload(f.config("services:", m.services()))
			mu.Lock()
			all = nil
			mu.Unlock()
			c, err := dial(f.client, "udp", hostPort(m.vip, portEcho))
			must(t, err)
			defer c.Close()
			onSocket(t, c.(*net.UDPConn), func(fd int) error {
				if m.v6() {
					return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 2)
				}
				return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 2)
			})
			_, err = c.Write([]byte("how far?"))
			must(t, err)
			eventually(t, dialLimit, "the client is told of its datagram", func() bool {
				mu.Lock()
				defer mu.Unlock()
				for _, x := range all {
					q, err := headerOf(x.quote)
					if err == nil && q.dst.String() == m.vip && len(q.payload) >= 8 &&
						int(binary.BigEndian.Uint16(q.payload)) == c.LocalAddr().(*net.UDPAddr).Port {
						return true
					}
				}
				return false
			})
		})
	}
}
