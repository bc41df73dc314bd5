package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/control/host"
)

// tcp is a configuration with a TCP service at port 80 of both VIPs; more lines may follow.
func (b *bed) tcp(more ...string) string {
	head := "port: 80, protocol: tcp, scheduler: rr"
	return b.config(append(more, "services:", b.service(vip4, head, 8000)+b.service(vip6, head, 8000))...)
}

func TestNoClientIsResetWithinGraceAfterAKill(t *testing.T) {
	needsPins(t)
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel() // it mostly waits
			b := newBed(t, o)
			b.echoes(8000)
			resets := b.resets()
			d := b.start(b.tcp())
			s4 := streams(t, b.client, hostPort(vip4, 80), 5, 20*time.Second)
			s6 := streams(t, b.client, hostPort(vip6, 80), 5, 20*time.Second)
			d.kill()
			observed := 5 * time.Second
			if testing.Short() {
				observed = time.Second
			}
			time.Sleep(observed) // the requirement is about a time: nothing may happen in it
			if n := resets.Load(); n != 0 {
				t.Fatalf("%d RSTs reached the client within %v of the kill", n, observed)
			}

			// The next weir takes the table over: what was established goes on, and new connections work at once.
			d = b.start(b.tcp())
			if !strings.Contains(d.log.String(), "adopted the steering program") {
				t.Errorf("the next start adopted nothing")
			}
			for _, vip := range []string{vip4, vip6} {
				works(t, b.client, hostPort(vip, 80), 2)
			}
			flows(t, append(s4, s6...), 10*time.Second)
			finish(t, append(s4, s6...))
			if n := resets.Load(); n != 0 {
				t.Errorf("%d RSTs reached the client", n)
			}
			if code := d.stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			b.nothingLeft(d)
		})
	}
}

func TestTheKernelAnswersAfterGrace(t *testing.T) {
	needsPins(t)
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel() // it mostly waits
			b := newBed(t, o)
			b.echoes(8000)
			resets := b.resets()
			d := b.start(b.tcp("grace: 2s"))
			all := streams(t, b.client, hostPort(vip4, 80), 3, 20*time.Second)
			killed := time.Now()
			d.kill()
			for time.Since(killed) < 1800*time.Millisecond {
				if n := resets.Load(); n != 0 {
					t.Fatalf("%d RSTs reached the client %v after the kill, grace is 2 s", n, time.Since(killed))
				}
				time.Sleep(20 * time.Millisecond)
			}
			eventually(t, 5*time.Second, "the kernel refuses connections to a VIP nobody serves", func() bool {
				c, err := dial(b.client, "tcp", hostPort(vip4, 80))
				if err == nil {
					c.Close()
				}
				return errors.Is(err, unix.ECONNREFUSED)
			})
			if after := time.Since(killed); after < 1900*time.Millisecond {
				t.Errorf("refused %v after the kill, grace is 2 s", after)
			}
			for i, s := range all {
				select {
				case <-s.ended:
				case <-time.After(12 * time.Second): // retransmissions are 200 ms apart, then 400, ... 6.4 s
					t.Errorf("stream %d was not reset after grace", i)
				}
			}
			if resets.Load() == 0 {
				t.Error("not one RST was seen: is the tap blind?")
			}
			b.cleanup(d)
		})
	}
}

func TestCleanupLeavesNothingOfADeadWeir(t *testing.T) {
	needsPins(t)
	for _, o := range drivers {
		t.Run(o.String(), func(t *testing.T) {
			b := newBed(t, o)
			b.echoes(8000)
			must(t, b.lb.IP("addr add 198.18.9.200/32 dev lo"))
			must(t, b.lb.IP("neigh add 198.18.1.99 lladdr 02:00:00:00:02:63 dev lan nud permanent"))
			d := b.start(b.tcp())
			works(t, b.client, hostPort(vip4, 80), 2)
			if r := d.try("cleanup"); r.code != 1 || !strings.Contains(r.errors, "pid") {
				t.Errorf("cleanup beside a living weir: %v", r)
			}
			d.kill()
			if _, err := os.Lstat(b.pins(d)); err != nil && o.driver == "af_xdp" {
				t.Errorf("nothing is pinned: %v", err)
			}
			b.cleanup(d)
			if !has(t, b.lb, "198.18.9.200") {
				t.Error("cleanup took an address of the operator's")
			}
			if out := in(t, b.lb, "ip", "neigh", "show", "198.18.1.99"); !strings.Contains(out, "PERMANENT") {
				t.Errorf("the operator's neighbour after cleanup: %q", out)
			}
			if out := d.cli("cleanup"); out != "nothing to remove\n" {
				t.Errorf("a second cleanup: %s", out)
			}
		})
	}
}

// cleanup runs `weir cleanup` for a daemon that is dead, and wants nothing left.
func (b *bed) cleanup(d *daemon) {
	b.t.Helper()
	out := d.cli("cleanup")
	for _, what := range []string{"vip " + vip4, "vip " + vip6, "neighbor " + server4(0), "neighbor " + server6(0), "socket"} {
		if !strings.Contains(out, "removed "+what) {
			b.t.Errorf("cleanup does not say that it removed %s: %s", what, out)
		}
	}
	b.nothingLeft(d)
}

// pins is the directory of a daemon's pins: one for each namespace and admin socket.
func (b *bed) pins(d *daemon) string {
	return filepath.Join(host.DefaultBPFFS, "weir", fmt.Sprintf("%d-%016x", b.lb.Host().Namespace(), xxhash.Sum64String(d.socket)))
}

// nothingLeft fails the test if anything of a weir that has ended is on the balancer.
func (b *bed) nothingLeft(d *daemon) {
	b.t.Helper()
	for _, dev := range b.ports() {
		if id := xdp(b.t, b.lb, dev); id != 0 {
			b.t.Errorf("XDP program %d is on %s", id, dev)
		}
		must(b.t, b.lb.Exec(func() error {
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			r, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
			if err == nil && len(r.Programs) > 0 {
				b.t.Errorf("tc programs %v are on %s", r.Programs, dev)
			}
			return nil // a kernel before 6.6 has no tcx
		}))
	}
	pins := b.pins(d)
	if _, err := os.Lstat(pins); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("pins %s: %v", pins, err)
	}
	for _, vip := range []string{vip4, vip6} {
		if has(b.t, b.lb, vip) {
			b.t.Errorf("the VIP %s is bound", vip)
		}
	}
	ns, err := b.lb.Host().Neighbors()
	must(b.t, err)
	for _, n := range ns {
		if n.Managed {
			b.t.Errorf("the neighbour %s is managed: %+v", n.Addr, n)
		}
	}
	if l, err := b.lb.Host().Link("weir0"); err == nil {
		b.t.Errorf("there is a device %s", l.Name)
	}
	if _, err := os.Lstat(d.socket); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("socket %s: %v", d.socket, err)
	}
}

// needsPins skips where what weir pins does not outlive it.
func needsPins(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if dir, err := host.FindBPFFS(""); err != nil {
		t.Skipf("no BPF file system: %v", err)
	} else if _, err := os.Stat(dir); err != nil {
		t.Skip(err)
	}
}
