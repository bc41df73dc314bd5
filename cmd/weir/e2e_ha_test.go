package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/control/host/testnet"
)

// pairBed is two balancers, each with what stands beside its weir, as configs/ha has it.
type pairBed struct {
	*bed
	boxes []*box
}

// box is one balancer.
type box struct {
	*testnet.Space
	dir string // for its files; ha has the scripts
	d   *daemon
}

// ha copies the scripts and a file of configs/ha to the box, with what differs from a real one replaced.
func (x *box) ha(t *testing.T, file string, replace ...string) string {
	t.Helper()
	must(t, os.MkdirAll(x.dir+"/ha", 0o755))
	for _, name := range []string{"ready", "notify", "announce", file} {
		text, err := os.ReadFile(filepath.Join("../../configs/ha", name))
		must(t, err)
		mode := os.FileMode(0o755)
		if name == file {
			mode = 0o644 // keepalived takes no configuration that may be executed
			text = []byte(strings.NewReplacer(append(replace, "/etc/weir/ha", x.dir+"/ha")...).Replace(string(text)))
		}
		must(t, os.WriteFile(filepath.Join(x.dir, "ha", name), text, mode))
	}
	return filepath.Join(x.dir, "ha", file)
}

// starts starts a program on the box, with the sockets of this box in its environment. It is killed when the test ends, and what it says is shown if that fails.
func (x *box) starts(t *testing.T, program string, args ...string) *testnet.Cmd {
	t.Helper()
	var log output
	c := x.Command(program, args...)
	c.Env = append(os.Environ(), "WEIR_SOCKET="+x.dir+"/weir.sock", "BIRD_SOCKET="+x.dir+"/bird.ctl", "WEIR_HA_STATE="+x.dir+"/state.prom")
	c.Stdout, c.Stderr = &log, &log
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s on %s:\n%s", filepath.Base(program), x.Name, log.String())
		}
	})
	return c
}

// weir starts the box's weir with a file of configs/ha.
func (x *box) weir(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../configs/ha", file))
	must(t, err)
	x.d = launch(t, x.Space, x.dir, string(text))
	x.d.ready()
}

// has reports whether the box has an address.
func (x *box) has(addr string) bool {
	found := false
	_ = x.Exec(func() error {
		all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		for _, a := range all {
			found = found || a.IP.String() == addr
		}
		return err
	})
	return found
}

// conns is how many packets of clients the box's weir has sent on.
func (x *box) packets(t *testing.T) (n uint64) {
	t.Helper()
	for _, s := range x.d.stats().Services {
		n += s.InPackets
	}
	return n
}

// dialogue is a connection whose server says who it is, again and again.
type dialogue struct {
	net.Conn
	lines *bufio.Scanner
	who   string // as the server said first
}

// talkers answer each line by their name.
func (p *pairBed) talkers(port int) {
	for i, s := range p.servers {
		p.listen(i, port, func(c net.Conn) {
			for lines := bufio.NewScanner(c); lines.Scan(); {
				fmt.Fprintln(c, s.Name)
			}
		})
	}
}

// talk opens a connection to the VIP and asks once.
func (p *pairBed) talk(t *testing.T) *dialogue {
	t.Helper()
	c, err := dial(p.client, "tcp", "198.18.9.9:80")
	must(t, err)
	t.Cleanup(func() { c.Close() })
	x := &dialogue{Conn: c, lines: bufio.NewScanner(c)}
	x.who = x.ask(t)
	return x
}

// ask is what the server says to one more line. A loss costs TCP some time, which it has.
func (x *dialogue) ask(t *testing.T) string {
	t.Helper()
	must(t, x.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := fmt.Fprintln(x, "who"); err != nil {
		t.Fatalf("ask: %v", err)
	}
	if !x.lines.Scan() {
		t.Fatalf("no answer: %v", x.lines.Err())
	}
	return x.lines.Text()
}

// haSwitch makes a bridge in a namespace of its own, and plug for it.
func (p *pairBed) haSwitch(name string) (plug func(s *testnet.Space, dev string)) {
	sw := p.space(name)
	must(p.t, sw.IP("link add br0 type bridge mcast_snooping 0"))
	must(p.t, sw.IP("link set br0 up"))
	b := &bed{t: p.t, net: p.net, fabric: sw}
	return func(s *testnet.Space, dev string) { b.plug(s.Name, testnet.End{Space: s, Name: dev}) }
}

// newPairBed has the boxes lb1 and lb2, not yet plugged, a client and two servers.
func newPairBed(t *testing.T, prefix string) *pairBed {
	t.Helper()
	p := &pairBed{bed: &bed{t: t, net: testnet.NewT(t, prefix), dir: t.TempDir()}}
	p.client = p.space("client")
	for i := range 2 {
		s := p.space(fmt.Sprintf("lb%d", i+1))
		must(t, s.Sysctl("net/ipv4/ip_forward", "1"))
		p.boxes = append(p.boxes, &box{Space: s, dir: filepath.Join(p.dir, s.Name)})
		must(t, os.Mkdir(p.boxes[i].dir, 0o755))
		p.servers = append(p.servers, p.space(fmt.Sprintf("s%d", i+1)))
	}
	return p
}

// TestVRRP has two boxes with keepalived and the files of configs/ha. Only the MASTER answers ARP for the VIP; when its weir dies the other serves, also a
// connection in its middle; and so it does when the MASTER is handed over.
func TestVRRP(t *testing.T) {
	needs(t, "keepalived", "curl", "sh", "ip", "ping")
	p := newPairBed(t, "wvrrp")
	clients, servers := p.haSwitch("sw1"), p.haSwitch("sw2")
	clients(p.client, "eth0")
	must(t, p.client.Address("eth0", "198.18.0.99/24"))
	must(t, p.client.Route("198.18.9.9/32", "198.18.0.1"))
	for i, s := range p.servers {
		servers(s, "eth0")
		must(t, s.Address("eth0", fmt.Sprintf("198.18.1.1%d/24", i+1)))
		must(t, s.Route("default", "198.18.1.1"))
	}
	p.talkers(80)
	var vrrp []*testnet.Cmd
	for i, x := range p.boxes {
		clients(x.Space, "eth1")
		servers(x.Space, "eth2")
		must(t, x.Address("eth1", fmt.Sprintf("198.18.0.1%d/24", i+1)))
		must(t, x.Address("eth2", fmt.Sprintf("198.18.1.%d/24", i+2)))
		x.weir(t, "weir-vrrp.yaml")
		// Patience for a machine that is busy with other tests: otherwise a check that is late moves the VIP.
		conf := x.ha(t, "keepalived.conf", "timeout 2", "timeout 5", "fall 2", "fall 5")
		vrrp = append(vrrp, x.starts(t, "keepalived", "--dont-fork", "--log-console", "--vrrp", "--config-id", x.Name, "--use-file", conf,
			"--pid", x.dir+"/keepalived.pid", "--vrrp_pid", x.dir+"/vrrp.pid"))
	}
	const limit = 30 * time.Second // keepalived says 4 s; a loaded machine says more
	master := func(n int) func() bool {
		return func() bool {
			return p.boxes[n].has("198.18.9.9") && p.boxes[n].has("198.18.1.1") && !p.boxes[1-n].has("198.18.9.9") && !p.boxes[1-n].has("198.18.1.1")
		}
	}
	eventually(t, limit, "lb1 is MASTER", master(0))
	eventually(t, limit, "notify has noted it", func() bool {
		a, _ := os.ReadFile(p.boxes[0].dir + "/state.prom")
		b, _ := os.ReadFile(p.boxes[1].dir + "/state.prom")
		return string(a) == "weir_vrrp_master 1\n" && string(b) == "weir_vrrp_master 0\n"
	})
	x := p.talk(t)
	// silent wants the BACKUP to be silent: its weir runs, and yet nobody on the box answers for the VIP.
	silent := func(n int) {
		t.Helper()
		defer func() { must(t, p.client.IP("route replace 198.18.9.9/32 via 198.18.0.1")) }()
		for range 5 {
			eventually(t, limit, p.boxes[n].Name+" is BACKUP", master(1-n))
			must(t, p.client.IP("route replace 198.18.9.9/32 dev eth0"))
			must(t, p.client.IP("neigh flush dev eth0"))
			_ = p.client.Command("ping", "-c1", "-W5", "198.18.9.9").Run()
			out, err := p.client.Command("ip", "neigh", "show", "198.18.9.9").Output()
			must(t, err)
			if !master(1 - n)() {
				continue // a busy machine has moved it meanwhile
			}
			if mac := p.boxes[n].MAC("eth1"); strings.Contains(string(out), mac) || !strings.Contains(string(out), p.boxes[1-n].MAC("eth1")) {
				t.Errorf("ARP for the VIP: %s, while %s (%s) is BACKUP", out, p.boxes[n].Name, mac)
			}
			return
		}
		t.Skip("the VIP does not stay where it is: the machine is too busy")
	}
	silent(1)

	// The MASTER's weir is killed: its program still guards the VIP, but that moves.
	was := time.Now()
	p.boxes[0].d.kill()
	eventually(t, limit, "lb2 is MASTER", master(1))
	moved := time.Since(was)
	if who := x.ask(t); who != x.who {
		t.Errorf("the connection was with %s, and after the move with %s", x.who, who)
	}
	t.Logf("lb2 had the VIP %v after the death of lb1's weir, and the connection went on %v after it", moved.Round(10*time.Millisecond), time.Since(was).Round(10*time.Millisecond))
	if p.boxes[1].packets(t) == 0 {
		t.Error("lb2 has sent on nothing")
	}

	// Its weir is back; with nopreempt nothing moves until the MASTER gives up.
	p.boxes[0].weir(t, "weir-vrrp.yaml")
	eventually(t, limit, "keepalived finds weir on lb1 ready", func() bool {
		a, _ := os.ReadFile(p.boxes[0].dir + "/state.prom")
		return string(a) == "weir_vrrp_master 0\n" && p.boxes[0].starts(t, p.boxes[0].dir+"/ha/ready").Wait() == nil
	})
	silent(0)
	time.Sleep(3 * time.Second) // keepalived wants two good answers before lb1 is BACKUP rather than FAULT
	was = time.Now()
	must(t, vrrp[1].Process.Signal(syscall.SIGTERM)) // says so with priority 0
	eventually(t, limit, "lb1 is MASTER again", master(0))
	moved = time.Since(was)
	if who := x.ask(t); who != x.who {
		t.Errorf("the connection was with %s, and after the hand-over with %s", x.who, who)
	}
	t.Logf("lb1 had the VIP %v after lb2 was told to hand over, and the connection went on %v after it", moved.Round(10*time.Millisecond), time.Since(was).Round(10*time.Millisecond))
}

// TestBGP has two boxes announce the VIP to a router, which spreads flows over them. A weir that is not ready any more is withdrawn, and its connections go
// on by the other box, to the same servers.
func TestBGP(t *testing.T) {
	needs(t, "bird", "birdc", "curl", "sh", "ip")
	p := newPairBed(t, "wbgp")
	router := p.space("router")
	must(t, router.Sysctl("net/ipv4/ip_forward", "1"))
	must(t, router.Sysctl("net/ipv4/fib_multipath_hash_policy", "1")) // ports, too
	must(t, router.Sysctl("net/ipv4/conf/all/rp_filter", "0"))
	must(t, router.Sysctl("net/ipv4/conf/all/send_redirects", "0"))
	must(t, p.net.Veth(testnet.End{Space: p.client, Name: "eth0"}, testnet.End{Space: router, Name: "eth0"}))
	must(t, p.client.Address("eth0", "198.18.0.99/24"))
	must(t, router.Address("eth0", "198.18.0.1/24"))
	must(t, p.client.Route("default", "198.18.0.1"))
	lan := p.haSwitch("sw")
	lan(router, "eth1")
	must(t, router.Address("eth1", "198.18.1.254/24"))
	for i, s := range p.servers {
		lan(s, "eth0")
		must(t, s.Address("eth0", fmt.Sprintf("198.18.1.1%d/24", i+1)))
		must(t, s.Route("default", "198.18.1.254"))
		must(t, s.Sysctl("net/ipv4/conf/all/arp_ignore", "1"))
		must(t, s.Sysctl("net/ipv4/conf/all/arp_announce", "2"))
		must(t, s.Address("lo", "198.18.9.9/32"))
	}
	p.talkers(80)
	var announce []*testnet.Cmd
	for i, x := range p.boxes {
		lan(x.Space, "eth0")
		must(t, x.Address("eth0", fmt.Sprintf("198.18.1.%d/24", i+1)))
		must(t, x.Route("default", "198.18.1.254"))
		x.weir(t, "weir-bgp.yaml")
		conf := x.ha(t, "bird.conf", "198.18.1.1;", fmt.Sprintf("198.18.1.%d;", i+1), "198.18.1.1 as 65001", fmt.Sprintf("198.18.1.%d as 6500%d", i+1, i+1))
		x.starts(t, "bird", "-f", "-c", conf, "-s", x.dir+"/bird.ctl", "-P", x.dir+"/bird.pid")
		announce = append(announce, x.starts(t, x.dir+"/ha/announce"))
	}
	theirs := filepath.Join(p.dir, "router.conf")
	must(t, os.WriteFile(theirs, []byte(`
router id 198.18.1.254;
protocol device {}
protocol kernel { merge paths on; ipv4 { import none; export all; }; }
template bgp box { local 198.18.1.254 as 65000; connect delay time 1; error wait time 1, 5; hold time 9; ipv4 { import all; export none; }; }
protocol bgp lb1 from box { neighbor 198.18.1.1 as 65001; }
protocol bgp lb2 from box { neighbor 198.18.1.2 as 65002; }
`), 0o644))
	r := &box{Space: router, dir: p.dir}
	r.starts(t, "bird", "-f", "-c", theirs, "-s", p.dir+"/router.ctl", "-P", p.dir+"/router.pid")
	// by are the boxes that the router sends what is for the VIP to.
	by := func(boxes ...int) func() bool {
		return func() bool {
			out, err := router.Command("ip", "route", "show", "198.18.9.9").Output()
			found := 0
			for i := range p.boxes {
				if strings.Contains(string(out), fmt.Sprintf("via 198.18.1.%d ", i+1)) {
					found |= 1 << i
				}
			}
			want := 0
			for _, i := range boxes {
				want |= 1 << i
			}
			return err == nil && found == want
		}
	}
	const limit = 40 * time.Second
	eventually(t, limit, "both boxes are announced", by(0, 1))
	var all []*dialogue
	for len(all) < 40 && (len(all) < 12 || p.boxes[0].packets(t) == 0 || p.boxes[1].packets(t) == 0) {
		all = append(all, p.talk(t))
	}
	names := map[string]int{}
	for _, x := range all {
		names[x.who]++
	}
	if one, two := p.boxes[0].packets(t), p.boxes[1].packets(t); one == 0 || two == 0 || len(names) != 2 {
		t.Fatalf("%d connections: %d packets by lb1, %d by lb2; servers %v", len(all), one, two, names)
	}
	same := func(what string) {
		t.Helper()
		for i, x := range all {
			if who := x.ask(t); who != x.who {
				t.Errorf("connection %d was with %s, and %s with %s", i, x.who, what, who)
			}
		}
	}

	was := time.Now()
	p.boxes[0].d.kill()
	eventually(t, limit, "lb1 is withdrawn", by(1))
	t.Logf("withdrawn %v after weir's death", time.Since(was).Round(10*time.Millisecond))
	same("after lb1's weir had died")

	p.boxes[0].weir(t, "weir-bgp.yaml")
	eventually(t, limit, "lb1 is announced again", by(0, 1))
	same("after lb1 was back")

	// A clean hand-over: what announces is ended first, then weir.
	must(t, announce[1].Process.Signal(syscall.SIGTERM))
	eventually(t, limit, "lb2 is withdrawn", by(0))
	if code := p.boxes[1].d.stop(); code != 0 {
		t.Errorf("weir on lb2: exit %d", code)
	}
	same("after lb2 was handed over")
}
