package main_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

// toaKind is the TCP option that tells a server who the client is: kind, length, port and address of the client, as the kernel modules for
// servers (toa.ko of LVS and DPVS) read it from the segment that completes the handshake.
const toaKind = 254

// greeting is a TCP segment of a client to nginx.
type greeting struct {
	from, to netip.AddrPort
	flags    byte
	told     netip.AddrPort // what the option says; the zero value without it
}

func (g greeting) String() string {
	return fmt.Sprintf("flags %#02x from %v telling %v", g.flags, g.from, g.told)
}

// greetingOf reads a TCP segment in an Ethernet frame.
func greetingOf(frame []byte) (g greeting, ok bool) {
	if len(frame) < 14 {
		return g, false
	}
	h, err := headerOf(frame[14:])
	b := h.payload
	if err != nil || h.proto != unix.IPPROTO_TCP || h.part || len(b) < 20 || int(b[12]>>4)*4 > len(b) {
		return g, false
	}
	g.from, g.to = netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(b[2:]))
	g.flags = b[13]
	for o := b[20 : int(b[12]>>4)*4]; len(o) > 0 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return g, false
		}
		if o[0] == toaKind && (o[1] == 8 || o[1] == 20) {
			addr, _ := netip.AddrFromSlice(o[4:o[1]])
			g.told = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(o[2:]))
		}
		o = o[o[1]:]
	}
	return g, true
}

// TestFullNATTellsTheClient has the segment that completes the handshake bear the client's address and port, and nginx serves all the same.
func TestFullNATTellsTheClient(t *testing.T) {
	f := newForwardBed(t, options{})
	f.serve(1 << 20)
	var mu sync.Mutex
	var all []greeting
	frames(t, f.servers[2], "eth0", func(frame []byte) {
		if g, ok := greetingOf(frame); ok && g.to.Port() == portWeb {
			mu.Lock()
			all = append(all, g)
			mu.Unlock()
		}
	})
	type test struct {
		name, vip, lan, client, server string
		told                           string // client_address
	}
	var tests []test
	var services string
	for i, fam := range families {
		for n, told := range []string{"none", "toa"} {
			x := test{fam.name + " " + told, numbered(fam.vip, 30+n), []string{lan4, lan6}[i], []string{client4, client6}[i], []string{server4(2), server6(2)}[i], told}
			tests = append(tests, x)
			services += fmt.Sprintf("  - {vip: %q, port: %d, forward: fullnat, fullnat: {addresses: [%q], ports: 40000-44999, client_address: %s}, backends: [{address: %q}]}\n",
				x.vip, portWeb, x.lan, told, x.server)
		}
	}
	f.start(f.config("services:", services))
	for i, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			mu.Lock()
			all = nil
			mu.Unlock()
			from := hostPort(x.client, 30000+i)
			c, err := dialFrom(f.client, "tcp", from, hostPort(x.vip, portWeb))
			must(t, err)
			defer c.Close()
			must(t, c.SetDeadline(time.Now().Add(dialLimit)))
			_, err = fmt.Fprintf(c, "GET /who HTTP/1.0\r\n\r\n")
			must(t, err)
			answer, err := io.ReadAll(c)
			if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\ns3 "+x.lan+"\n") {
				t.Errorf("nginx answers %q, %v", answer, err)
			}
			var want netip.AddrPort
			if x.told == "toa" {
				want = netip.MustParseAddrPort(from)
			}
			const syn, ack = 0x02, 0x10
			mu.Lock()
			defer mu.Unlock()
			// Segments of the test before may still have come. Ours begin with a SYN.
			var handshake []greeting
			for _, g := range all {
				if g.flags&syn != 0 || len(handshake) > 0 && g.from == handshake[0].from {
					handshake = append(handshake, g)
				}
			}
			if len(handshake) < 2 || handshake[1].flags != ack || handshake[1].told != want {
				t.Errorf("the segment behind the SYN tells of another than %v: %v", want, handshake)
			}
		})
	}
}

// TestFullNATPortsRunOut has four local ports a server: the connection that needs a fifth is refused under its own name, and gets one when
// another has ended. A port is free for another server, and for another protocol, all the while.
func TestFullNATPortsRunOut(t *testing.T) {
	for i, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			f := newForwardBed(t, options{})
			f.echoes(8000)
			lan, server := []string{lan4, lan6}[i], []func(int) string{server4, server6}[i]
			service := func(port int, protocol string, servers ...int) string {
				s := fmt.Sprintf("  - {vip: %q, port: %d, protocol: %s, scheduler: rr, forward: fullnat, fullnat: {addresses: [%q], ports: 40000-40003}, "+
					"timeouts: {tcp_time_wait: 1s, tcp_close: 1s, tcp_fin_wait: 1s, tcp_last_ack: 1s, tcp_syn_recv: 1s, udp: 1s}, backends: [", fam.vip, port, protocol, lan)
				for _, x := range servers {
					s += fmt.Sprintf("{address: %q, port: %d}, ", server(x), map[string]int{"tcp": 8000, "udp": portEcho}[protocol])
				}
				return strings.TrimSuffix(s, ", ") + "]}\n"
			}
			d := f.start(f.config("services:", service(80, "tcp", 0, 2), service(53, "udp", 0), service(81, "tcp", 1)))
			var open []net.Conn
			for n := range 8 {
				c, err := dial(f.client, "tcp", hostPort(fam.vip, 80))
				if err != nil {
					t.Fatalf("connection %d: %v\n%s", n, err, d.cli("drops"))
				}
				defer c.Close()
				must(t, pingPong(c, dialLimit))
				open = append(open, c)
			}
			for n := range 4 {
				c, err := dial(f.client, "udp", hostPort(fam.vip, 53))
				must(t, err)
				defer c.Close()
				if err := say(c, "s1", 100); err != nil {
					t.Errorf("datagram %d: %v", n, err)
				}
			}
			if n := d.settled().Drops["no_local_port"]; n != 0 {
				t.Fatalf("%d refused before the ports ran out", n)
			}
			if c, err := dialWithin(f.client, hostPort(fam.vip, 80), time.Second); err == nil {
				c.Close()
				t.Error("there is a ninth connection")
			}
			if n := d.settled().Drops["no_local_port"]; n == 0 {
				t.Errorf("no_local_port was not counted: %s", d.cli("drops"))
			}
			other, err := dial(f.client, "tcp", hostPort(fam.vip, 81)) // another server, with the same ports
			must(t, err)
			defer other.Close()
			for _, c := range open {
				must(t, pingPong(c, dialLimit))
			}
			must(t, open[0].Close())
			var again net.Conn
			eventually(t, 15*time.Second, "the port of a connection that ended is used again", func() (ok bool) {
				again, err = dialWithin(f.client, hostPort(fam.vip, 80), time.Second)
				return err == nil
			})
			defer again.Close()
			must(t, pingPong(again, dialLimit))
		})
	}
}

// dialWithin connects, or gives up early.
func dialWithin(s *testnet.Space, to string, limit time.Duration) (c net.Conn, err error) {
	err = s.Exec(func() error {
		c, err = net.DialTimeout("tcp", to, limit)
		return err
	})
	return c, err
}
