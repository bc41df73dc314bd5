package main_test

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fitsTheUnderlay has everyone send more than fits into a tunnel: all learn of it, by the means that their protocol has.
func fitsTheUnderlay(t *testing.T, b *overlayBed) {
	for _, seg := range b.segments {
		t.Run(seg.String(), func(t *testing.T) {
			t.Run("datagrams", func(t *testing.T) { datagramsFit(t, b.behind(t, seg), seg) })
		})
	}
}

// datagramsFit has a client ask with datagrams of 1500 bytes. One whose packets may not be cut is told the MTU; what may be cut is, be it by the client
// who has learned of the MTU.
func datagramsFit(t *testing.T, b *bed, seg *overlay) {
	for i, h := range b.servers {
		answerDNS(t, h, seg.host(i))
	}
	header, level, option := 28, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	do, want := unix.IP_PMTUDISC_DO, unix.IP_PMTUDISC_WANT
	if seg.gate6 {
		header, level, option = 48, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
		do, want = unix.IPV6_PMTUDISC_DO, unix.IPV6_PMTUDISC_WANT
	}
	exchange := func(mode, n int) error {
		c, err := dial(b.client, "udp", hostPort(seg.vip(), dnsPort))
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
