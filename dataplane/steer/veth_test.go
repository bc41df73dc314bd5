package steer

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// veth is a veth pair: near is where the program stands, far is the other station.
type veth struct {
	near, far int // ifindexes
	send      int // packet socket on far
	tap       int // packet socket on near: sees what the XDP program passes
}

func newVeth(t *testing.T, name string) veth {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name+"n", net.HardwareAddr(ourMAC[:])
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "f"}); err != nil {
		t.Skipf("needs veth: %v", err)
	}
	v := veth{}
	for _, d := range []struct {
		name    string
		ifindex *int
		socket  *int
	}{{name + "n", &v.near, &v.tap}, {name + "f", &v.far, &v.send}} {
		dev, err := netlink.LinkByName(d.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(dev); err != nil {
			t.Fatal(err)
		}
		*d.ifindex = dev.Attrs().Index
		if *d.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0x0300); err != nil { // ETH_P_ALL
			t.Fatal(err)
		}
		fd := *d.socket
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: *d.ifindex}); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func (v veth) write(t testing.TB, frame []byte) {
	t.Helper()
	if _, err := unix.Write(v.send, frame); err != nil {
		t.Fatalf("send on veth: %v", err)
	}
}

// tapped counts frames like want that have come through to the tap, and empties it.
func (v veth) tapped(want []byte) (n int) {
	b := make([]byte, 2048)
	for {
		size, err := unix.Read(v.tap, b)
		if err != nil {
			return n
		}
		if bytes.Equal(b[:size], want) {
			n++
		}
	}
}

// xdpProgram is the number of the device's XDP program, or 0.
func (v veth) xdpProgram(t *testing.T) uint32 {
	t.Helper()
	dev, err := netlink.LinkByIndex(v.near)
	if err != nil {
		t.Fatal(err)
	}
	if x := dev.Attrs().Xdp; x != nil {
		return x.ProgId
	}
	return 0
}

// rules are testRules on this wire.
func (v veth) rules() *Rules {
	r := testRules()
	for i := range r.Ports {
		r.Ports[i].Ifindex = v.near
	}
	return r
}

// bpffs mounts one for the test.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("needs bpffs: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// start is what a weir does on its start.
func start(t *testing.T, o Options, r *Rules, ifindexes ...int) *Program {
	t.Helper()
	o.Rules = r
	p, err := Load(o)
	if err != nil {
		t.Fatalf("Load: %+v", err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.Add(r); err != nil {
		t.Fatal(err)
	}
	for _, i := range ifindexes {
		if _, err := p.Attach(i, Auto); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	return p
}

// counts sends the frame once and returns which counters rose by one.
func counts(t *testing.T, p *Program, v veth, frame []byte) string {
	t.Helper()
	before, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	v.write(t, frame)
	var rose []string
	deadline := time.Now().Add(2 * time.Second)
	for done := false; !done; time.Sleep(5 * time.Millisecond) {
		done = rose != nil || time.Now().After(deadline) // looked at once more: one frame may count twice
		after, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		rose = nil
		for r := range after {
			// The hosts talk, too: router solicitations and the like, which are for many.
			if after[r] == before[r]+1 && Reason(r) != PassNotOurMAC {
				rose = append(rose, Reason(r).String())
			}
		}
	}
	return strings.Join(rose, " ")
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}
