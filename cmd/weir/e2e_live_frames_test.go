package main_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"weir/control"
)

// takeXDP has the far ends of the balancer's devices take XDP frames, or not.
func (b *bed) takeXDP(yes bool) {
	b.t.Helper()
	needs(b.t, "ethtool")
	how := map[bool]string{true: "on", false: "off"}[yes]
	for _, c := range [][]string{{"eth0", "client"}, {"lb", "fabric"}} {
		space := b.client
		if c[1] == "fabric" {
			space = b.fabric
		}
		if out, err := space.Command("ethtool", "-K", c[0], "gro", how).CombinedOutput(); err != nil {
			b.t.Fatalf("ethtool in the %s: %v: %s", c[1], err, out)
		}
	}
}

// download fetches what serveBytes serves, and compares it.
func (b *bed) download(to string, n int64) {
	b.t.Helper()
	c, err := dial(b.client, "tcp", to)
	must(b.t, err)
	defer c.Close()
	must(b.t, c.SetDeadline(time.Now().Add(time.Minute)))
	want := sha256.New()
	_, _ = io.CopyN(want, rand.NewChaCha8([32]byte{1}), n)
	if got := receive(c); got.err != nil || got.n != n || got.sum != [sha256.Size]byte(want.Sum(nil)) {
		b.t.Fatalf("%d bytes of %d came, %v", got.n, n, got.err)
	}
}

// TestLiveFramesFollowTheDevice: bursts are sent as live frames while the device takes XDP frames, by the ring while it does not, and in the weir that takes over
// as before. Nothing is broken by that.
func TestLiveFramesFollowTheDevice(t *testing.T) {
	needsPins(t)
	const size = 16 << 20
	b := newBed(t, options{servers: 1, driver: "af_xdp", xdpMode: "native", live: true})
	b.listen(0, 8000, func(c net.Conn) { _, _ = io.CopyN(c, rand.NewChaCha8([32]byte{1}), size) })
	b.takeXDP(true)
	config := b.config("services:", b.service(vip4, "port: 80, protocol: tcp", 8000))
	d := b.start(config)
	if strings.Contains(d.log.String(), "/dev/net/tun") {
		t.Skipf("needs live frames: %s", d.log)
	}
	// live is how many live frames the device to the client has sent, when weir has noticed how that is.
	live := func(takes bool) uint64 {
		t.Helper()
		eventually(t, 10*time.Second, "weir notices what the device takes", func() bool {
			var s control.Status
			return control.NewClient(d.socket).Get("/status", &s) == nil && strings.Contains(strings.Join(s.Warnings, "\n"), "xdp_send of wan") != takes
		})
		for _, p := range d.stats().Ports {
			if p.Name == "wan" {
				return p.SentLive
			}
		}
		return 0
	}
	download := func(takes bool) {
		t.Helper()
		before := live(takes)
		b.download(hostPort(vip4, 80), size)
		after := live(takes)
		t.Logf("%d live frames for %d bytes", after-before, size)
		if (after > before) != takes {
			t.Errorf("%d live frames were sent to a device that takes them: %v", after-before, takes)
		}
	}
	download(true)
	b.takeXDP(false)
	download(false)
	b.takeXDP(true)
	download(true)
	d = b.takeover(d, config)
	download(true)
	for _, p := range d.stats().Ports { // some may be lost, as the far ends have room for 256
		if p.Invalid != 0 {
			t.Errorf("%+v", p)
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.nothingLeft(d)
}
