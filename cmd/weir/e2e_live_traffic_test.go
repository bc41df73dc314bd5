package main_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUDPRoundRobin(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			for i := range b.servers {
				b.answerUDP(i, 5353, func(q []byte) []byte { return append([]byte(b.servers[i].Name+" "), q...) })
			}
			head := "port: 53, protocol: udp, scheduler: rr"
			d := b.start(b.config("services:", b.service(vip4, head, 5353)+b.service(vip6, head, 5353)))
			for n, f := range families {
				from := []string{client4, client6}[n]
				got := map[string]int{}
				for i := range 90 { // a port of its own each: one that is used again is the old connection
					query := fmt.Sprintf("name%d.example", i)
					if i%10 == 9 { // large answers come in fragments, and so do such questions
						query += string(bytes.Repeat([]byte("x"), 8000))
					}
					c, err := dialFrom(b.client, "udp", hostPort(from, 20000+i), hostPort(f.vip, 53))
					must(t, err)
					must(t, c.SetDeadline(time.Now().Add(3*time.Second)))
					_, err = c.Write([]byte(query))
					must(t, err)
					buf := make([]byte, 10000)
					n, err := c.Read(buf)
					if err != nil {
						t.Fatalf("%s query %d of %d bytes: %v\n%s", f.name, i, len(query), err, d.cli("drops"))
					}
					if string(buf[3:n]) != query {
						t.Fatalf("%s query %d: a wrong answer of %d bytes", f.name, i, n)
					}
					got[string(buf[:2])]++
					c.Close()
				}
				if !maps.Equal(got, map[string]int{"s1": 30, "s2": 30, "s3": 30}) {
					t.Errorf("%s: spread %v", f.name, got)
				}
			}
			d.settled()
		})
	}
}

func TestEveryWaitMode(t *testing.T) {
	for _, mode := range []string{"busy", "poll", "epoll-level", "epoll-edge", "signal", "adaptive"} {
		t.Run(mode, func(t *testing.T) {
			b := newBed(t, options{servers: 1})
			b.listen(0, 8000, echo)
			d := b.start(b.config("engine: {wait: "+mode+"}", "services:", b.service(vip4, "port: 80, protocol: tcp, scheduler: rr", 8000)))
			for range 200 {
				c, err := dial(b.client, "tcp", hostPort(vip4, 80))
				must(t, err)
				must(t, pingPong(c, 3*time.Second))
				c.Close()
			}
			d.settled()
		})
	}
}

// TestPathMTU has a link of 1300 bytes between weir and the server, which does not know of it and announces segments of 1460: a client that
// sends with DF learns of it from weir.
func TestPathMTU(t *testing.T) {
	b := newBed(t, options{servers: 1})
	must(t, b.lb.IP("link set lan mtu 1300"))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	b.listen(0, 8000, func(c net.Conn) {
		h := sha256.New()
		if _, err := io.CopyN(h, c, int64(len(sent))); err == nil {
			_, _ = c.Write(h.Sum(nil)) // the client tells if it does not come
		}
	})
	b.answerUDP(0, 5353, func(q []byte) []byte { return q[:1] })
	d := b.start(b.config("services:", b.service(vip4, "port: 80, protocol: tcp, scheduler: rr", 8000)+
		b.service(vip6, "port: 80, protocol: tcp, scheduler: rr", 8000)+b.service(vip4, "port: 53, protocol: udp, scheduler: rr", 5353)))
	for _, f := range families {
		c, err := dial(b.client, "tcp", hostPort(f.vip, 80))
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(15*time.Second)))
		_, err = c.Write(sent)
		must(t, err)
		got, want := make([]byte, sha256.Size), sha256.Sum256(sent)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want[:]) {
			t.Errorf("%s: an upload of 1 MiB: %v", f.name, err)
		}
		c.Close()
	}
	if n := d.settled().Verdicts.Answered; n < 2 {
		t.Errorf("%d packets were answered, want a fragmentation needed and a packet too big at least", n)
	}
	// A datagram with DF set that is too large the second time is refused by the client's own kernel.
	var fd int
	must(t, b.client.Exec(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		return err
	}))
	defer unix.Close(fd)
	must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
	must(t, unix.Connect(fd, &unix.SockaddrInet4{Port: 53, Addr: netip.MustParseAddr(vip4).As4()}))
	eventually(t, 5*time.Second, "EMSGSIZE", func() bool {
		_, err := unix.Write(fd, make([]byte, 1400))
		return err == unix.EMSGSIZE
	})
	mtu, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
	if err != nil || mtu != 1300 {
		t.Errorf("the client knows a path MTU of %d (%v)", mtu, err)
	}
}
