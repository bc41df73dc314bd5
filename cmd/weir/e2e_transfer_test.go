package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTransfersBothWays moves data through a connection in both directions at once, 1 GiB to the client where it matters most, and compares
// hashes at both ends.
func TestTransfersBothWays(t *testing.T) {
	for _, o := range append(slices.Clone(drivers), options{driver: "af_xdp", xdpMode: "native", live: true}) {
		for _, f := range families {
			t.Run(o.String()+"/"+f.name, func(t *testing.T) {
				download, upload := int64(32<<20), int64(32<<20)
				if o.xdpMode == "native" && !o.live && f.vip == vip4 && !testing.Short() {
					download, upload = 1<<30, 256<<20
				}
				o.servers = 1
				transfer(t, newBed(t, o), f.vip, download, upload)
			})
		}
	}
}

// moved is what one end received.
type moved struct {
	sum [sha256.Size]byte
	n   int64
	err error
}

func receive(r io.Reader) moved {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return moved{[sha256.Size]byte(h.Sum(nil)), n, err}
}

func transfer(t *testing.T, b *bed, vip string, download, upload int64) {
	down := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), download) }
	up := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{2}), upload) }
	received := make(chan moved, 1)
	b.listen(0, 8000, func(c net.Conn) {
		done := make(chan moved)
		go func() { done <- receive(c) }()
		if _, err := io.Copy(c, down()); err == nil {
			_ = c.(*net.TCPConn).CloseWrite() // otherwise the client tells what is missing
		}
		received <- <-done
	})
	if b.options.live {
		b.takeXDP(true)
	}
	d := b.start(b.config("services:", b.service(vip, "port: 80, protocol: tcp", 8000)))
	c, err := dial(b.client, "tcp", hostPort(vip, 80))
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
	begun := time.Now()
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.Copy(c, up()); err != nil {
			t.Errorf("sending: %v", err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
	})
	ours := receive(c)
	sending.Wait()
	took := time.Since(begun)
	c.Close() // so that the server's end comes to an end in any case
	theirs := <-received
	if want := receive(down()); ours != want {
		t.Errorf("to the client came %d bytes of %d, the same: %v; %v", ours.n, download, ours.sum == want.sum, ours.err)
	}
	if want := receive(up()); theirs != want {
		t.Errorf("to the server came %d bytes of %d, the same: %v; %v", theirs.n, upload, theirs.sum == want.sum, theirs.err)
	}
	s := d.settled()
	if x := s.Services[0]; x.InBytes < uint64(upload) || x.OutBytes < uint64(download) || x.Conns != 1 {
		t.Errorf("counted %+v", x.Traffic)
	}
	t.Logf("%d MiB down and %d MiB up in %v, %d packets, %d lost", download>>20, upload>>20, took.Round(time.Millisecond), s.Verdicts.Received, s.Verdicts.Dropped)
}

// TestWorkersShareTheirServices has two workers with every driver. Connections that the device spreads over both are still scheduled in
// one sequence and counted once, and answers find their connection on whichever worker they come back.
func TestWorkersShareTheirServices(t *testing.T) {
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			o.queues = 2
			b := newBed(t, o)
			b.named(8000)
			for i := range b.servers {
				b.answerUDP(i, 5353, bytes.ToUpper)
			}
			dns := "port: 53, protocol: udp, scheduler: rr"
			d := b.start(b.config("engine: {workers: 2}", "services:", b.service(vip4, "port: 80, scheduler: wrr", 8000, 3, 2, 1),
				b.service(vip6, "port: 80, scheduler: wrr", 8000, 3, 2, 1), b.service(vip4, dns, 5353), b.service(vip6, dns, 5353)))
			for i, f := range families {
				var conns []net.Conn // all stay open, so that no port is used again
				for range 60 {
					c, _ := reach(t, b, f.vip, 80)
					conns = append(conns, c)
				}
				for _, c := range slices.Backward(conns) {
					must(t, pingPong(c, dialLimit))
				}
				for range 60 {
					c, err := dial(b.client, "udp", hostPort(f.vip, 53))
					must(t, err)
					defer c.Close()
					must(t, c.SetDeadline(time.Now().Add(dialLimit)))
					_, err = io.WriteString(c, "question")
					must(t, err)
					answer := make([]byte, 16)
					if n, err := c.Read(answer); err != nil || string(answer[:n]) != "QUESTION" {
						t.Fatalf("%s: answer %q, %v", f.name, answer[:n], err)
					}
				}
				s := d.settled()
				web, dns := s.Services[i], s.Services[i+2]
				if b := web.Backends; web.Conns != 60 || b[0].Conns != 30 || b[1].Conns != 20 || b[2].Conns != 10 || b[0].Active != 30 || b[1].Active != 20 || b[2].Active != 10 {
					t.Errorf("%s: web %+v", f.name, web)
				}
				if b := dns.Backends; dns.InPackets != 60 || dns.OutPackets != 60 || b[0].Conns != b[1].Conns || b[1].Conns != b[2].Conns || dns.Conns != 60 {
					t.Errorf("%s: dns %+v", f.name, dns)
				}
			}
			workers := view[[]struct{ Received uint64 }](d, "workers")
			s := d.settled()
			both := o.xdpMode != "generic" // without native XDP a veth device tells of the queue one less than it was, so all is on the first
			if len(workers) != 2 || both && (workers[0].Received == 0 || workers[1].Received == 0) || workers[0].Received+workers[1].Received != s.Verdicts.Received {
				t.Errorf("workers received %v, together %d", workers, s.Verdicts.Received)
			}
			if s.Verdicts.Dropped+s.Verdicts.Punted != 0 {
				t.Errorf("verdicts %+v, %s", s.Verdicts, d.cli("drops"))
			}
			for _, p := range s.Ports {
				if p.Queues != 2 {
					t.Errorf("port %s has %d queues", p.Name, p.Queues)
				}
			}
		})
	}
}

// TestQueueCountsThatDoNotFit follows the advice that the refusal gives, and then it runs.
func TestQueueCountsThatDoNotFit(t *testing.T) {
	needs(t, "ethtool")
	b := newBed(t, options{servers: 1, queues: 2})
	b.echoes(8000)
	config := b.config("engine: {workers: 1}", "services:", b.service(vip4, "port: 80", 8000))
	for _, dev := range b.ports() {
		d := launch(t, b.lb, b.dir, config)
		if code := d.wait(10 * time.Second); code != 1 {
			t.Fatalf("exit %d", code)
		}
		advice := fmt.Sprintf("ethtool -L %s rx 1 tx 1", dev)
		if !bytes.Contains([]byte(d.log.String()), []byte("`"+advice+"`")) {
			t.Fatalf("no %q in %s", advice, d.log)
		}
		if r := command(t, b.lb.Command("sh", "-c", advice)); r.code != 0 {
			t.Skipf("%s: %v", advice, r)
		}
	}
	b.start(config)
	c, err := dial(b.client, "tcp", hostPort(vip4, 80))
	must(t, err)
	defer c.Close()
	must(t, pingPong(c, dialLimit))
}

// TestUDPPathMTU has an IPv6 client learn by EMSGSIZE what its path carries, and an IPv4 client without DF send through the narrow link in fragments.
func TestUDPPathMTU(t *testing.T) {
	b := newBed(t, options{servers: 1, serverMTU: 1300})
	must(t, b.lb.IP("link set lan mtu 1300"))
	b.answerUDP(0, 5353, bytes.ToUpper)
	dns := "port: 53, protocol: udp, scheduler: rr"
	d := b.start(b.config("services:", b.service(vip4, dns, 5353), b.service(vip6, dns, 5353)))
	exchange := func(c net.Conn, n int) error {
		must(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
		if _, err := c.Write(bytes.Repeat([]byte("q"), n)); err != nil {
			return err
		}
		answer := make([]byte, 2048)
		m, err := c.Read(answer)
		if err == nil && !bytes.Equal(answer[:m], bytes.Repeat([]byte("Q"), n)) {
			t.Errorf("a wrong answer of %d bytes to %d", m, n)
		}
		return err
	}
	for _, f := range families {
		c, err := dial(b.client, "udp", hostPort(f.vip, 53))
		must(t, err)
		defer c.Close()
		raw, err := c.(*net.UDPConn).SyscallConn()
		must(t, err)
		v6 := f.vip == vip6
		must(t, raw.Control(func(fd uintptr) {
			if v6 {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
			}
		}))
		must(t, err)
		if !v6 {
			// DF is clear: cut on the way, put together at the server, and back as well.
			if err := exchange(c, 1400); err != nil {
				t.Errorf("%s: a datagram that has to be cut: %v", f.name, err)
			}
			if s := d.settled(); s.Sent == 0 {
				t.Errorf("no fragment was counted: %+v, sent besides %d", s.Verdicts, s.Sent)
			}
			continue
		}
		eventually(t, dialLimit, "the client learns of the path's MTU", func() bool {
			err := exchange(c, 1400)
			if err == nil {
				t.Fatalf("%s: 1400 bytes went through a link of 1300", f.name)
			}
			return errors.Is(err, unix.EMSGSIZE)
		})
		if err := exchange(c, 1300-40-8); err != nil {
			t.Errorf("%s: the largest that fits: %v", f.name, err)
		}
		if err := exchange(c, 1300-40-8+1); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%s: a byte more than fits: %v", f.name, err)
		}
	}
}
