package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fitsTheUnderlay has everyone send more than fits into a tunnel: all learn of it, by the means that their protocol has.
func fitsTheUnderlay(t *testing.T, b *overlayBed) {
	for _, seg := range b.segments {
		t.Run(seg.String(), func(t *testing.T) {
			t.Run("datagrams", func(t *testing.T) { datagramsFit(t, b.behind(t, seg), seg) })
			t.Run("TCP", func(t *testing.T) { segmentsFit(t, b, seg) })
			if len(seg.access) > 0 {
				t.Run("frames of a port", func(t *testing.T) { framesFit(t, b, seg) })
			}
		})
	}
}

// datagramsFit has a client ask with datagrams of 1500 bytes. One whose packets may not be cut is told the MTU; what may be cut is, be it by the client
// who has learned of the MTU.
func datagramsFit(t *testing.T, b *bed, seg *overlay) {
	for i, h := range b.servers {
		answersAsk(t, h, seg.host(i))
	}
	header, level, option := 28, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	do, want, off := unix.IP_PMTUDISC_DO, unix.IP_PMTUDISC_WANT, unix.IP_PMTUDISC_DONT
	if seg.gate6 {
		header, level, option = 48, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
		do, want, off = unix.IPV6_PMTUDISC_DO, unix.IPV6_PMTUDISC_WANT, unix.IPV6_PMTUDISC_DONT
	}
	exchange := func(mode, n int) error {
		c, err := dial(b.client, "udp", hostPort(seg.vip(), askPort))
		must(t, err)
		defer c.Close()
		raw, err := c.(*net.UDPConn).SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, mode) }))
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
		q := bytes.Repeat([]byte("q"), n)
		if _, err := c.Write(q); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err = c.Read(buf)
		if err == nil && !bytes.HasSuffix(buf[:n], append([]byte(" "), q...)) {
			t.Errorf("a wrong answer of %d bytes to %d", n, len(q))
		}
		return err
	}
	if !seg.gate6 { // only IPv4 is cut on the way
		if err := exchange(off, 1500-header); err != nil {
			t.Errorf("a packet that may be cut: %v", err)
		}
	}
	eventually(t, dialLimit, "the client is told the MTU", func() bool {
		err := exchange(do, 1500-header)
		if err == nil {
			t.Fatalf("1500 bytes went through a tunnel")
		}
		return errors.Is(err, unix.EMSGSIZE)
	})
	if err := exchange(do, seg.mtu()-header+1); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("one byte more than the tunnel takes: %v", err)
	}
	for mode, n := range map[int]int{do: seg.mtu() - header, want: 1500 - header} {
		if err := exchange(mode, n); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	must(t, b.client.IP(map[bool]string{false: "route flush cache", true: "-6 route flush cache"}[seg.gate6]))
}

// segmentsFit has servers that believe in 1500 bytes. The underlay drops what is larger than it takes, without a word, so connections work only if their
// MSS is clamped in both directions.
func segmentsFit(t *testing.T, b *overlayBed, seg *overlay) {
	x := b.behind(t, seg)
	x.named(8000 + echoPort)
	for i, h := range seg.hosts {
		far := fmt.Sprintf("link set h%d mtu ", seg.vni)
		must(t, b.servers[i].IP(far+"1500"))
		must(t, h.IP("link set eth0 mtu 1500"))
		defer func() {
			must(t, h.IP(fmt.Sprint("link set eth0 mtu ", seg.mtu())))
			must(t, b.servers[i].IP(far+fmt.Sprint(seg.mtu())))
		}()
	}
	sent, got := make([]byte, 256<<10), make([]byte, 256<<10)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(sent)
	for range seg.hosts {
		c, name := reach(t, x, seg.vip(), echoPort)
		go func() { _, _ = c.Write(sent) }()
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: what came back differs, %v", name, err)
		}
		c.Close()
	}
}

// framesFit has a station on a port send packets of 1500 bytes that may not be cut. It is told so by the gateway, in the gateway's family.
func framesFit(t *testing.T, b *overlayBed, seg *overlay) {
	needs(t, "ping")
	s := seg.access[0]
	must(t, s.IP("link set eth0 mtu 1500"))
	defer func() { must(t, s.IP(fmt.Sprint("link set eth0 mtu ", seg.mtu()))) }()
	header, says := 28, fmt.Sprintf("mtu = %d", seg.mtu())
	if seg.gate6 {
		header, says = 48, fmt.Sprintf("mtu=%d", seg.mtu())
	}
	for i := range seg.hosts {
		in(t, s, "ping", "-n", "-c1", "-W2", seg.host(i))
		r := command(t, s.Command("ping", "-n", "-c1", "-W1", "-M", "do", "-s", fmt.Sprint(1500-header), seg.host(i)))
		if !strings.Contains(strings.ToLower(r.out+r.errors), says) {
			t.Errorf("%s: of %q nothing was heard: %v", seg.host(i), says, r)
		}
		in(t, s, "ping", "-n", "-c2", "-i0.01", "-W2", "-M", "do", "-s", fmt.Sprint(seg.mtu()-header), seg.host(i))
	}
}
