package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/control/host"
	"weir/control/host/testnet"
)

// TestMain gives the tests a mount namespace of their own with a BPF file system in it, so that pins outlive a daemon, never meet those of
// others, and are gone with the tests.
func TestMain(m *testing.M) {
	if role := os.Getenv(umlRole); role != "" {
		fmt.Fprintln(os.Stderr, role, umlMain(role))
		os.Exit(1)
	}
	const inside = "WEIR_E2E_INSIDE"
	if os.Getenv(inside) == "" && os.Geteuid() == 0 {
		runtime.LockOSThread() // Pdeathsig is sent when the thread ends, not the process
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), inside+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		if c.Start() == nil { // a container may forbid it: then there are no pins
			_ = c.Wait()
			os.Exit(c.ProcessState.ExitCode())
		}
	}
	if os.Getenv(inside) != "" {
		// Of the mounts made here only this one is private; namespaces in /run/netns stay visible from outside.
		if unix.Mount("", "/sys", "", unix.MS_PRIVATE, "") != nil {
			_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err := unix.Mount("bpf", host.DefaultBPFFS, "bpf", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, "no BPF file system of our own:", err)
		}
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// weir is the binary, built once.
func weir(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "weir-e2e-"); built.err != nil {
			return
		}
		if out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "weir"), ".").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
			return
		}
		// Others than root run it, too.
		built.err = os.Chmod(built.dir, 0o755)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "weir")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs skips the test if one of these programs is not installed.
func needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// eventually waits until ok says yes, looking often, for at most limit.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// What a bed has at which address. A service that a test makes has its VIP in 198.18.9.0/24 or 2001:db8:9::/64, which the client
// reaches through the balancer.
const (
	vip4, vip6       = "198.18.9.9", "2001:db8:9::9"
	client4, client6 = "198.18.0.2", "2001:db8::2"
	wan4, wan6       = "198.18.0.1", "2001:db8::1" // the balancer on the client's side
	lan4, lan6       = "198.18.1.1", "2001:db8:1::1"
	clientMAC        = "02:00:00:00:00:0c"
	wanMAC           = "02:00:00:00:01:0c"
	lanMAC           = "02:00:00:00:01:0d"
)

// server4 and server6 are the addresses of server i, from 0: .11, .12, and so on.
func server4(i int) string { return fmt.Sprintf("198.18.1.%d", 11+i) }
func server6(i int) string { return fmt.Sprintf("2001:db8:1::%d", 11+i) }

// serverMAC is server i's hardware address.
func serverMAC(i int) string { return fmt.Sprintf("02:00:00:00:02:%02x", 11+i) }

// options say what a bed is like. The zero value: three servers, two arms, af_xdp as it comes, one queue.
type options struct {
	servers   int
	oneArm    bool   // the balancer has one port, net, with client and servers on its link; otherwise wan and lan
	driver    string // af_xdp, af_packet
	xdpMode   string // auto, native, generic
	live      bool   // bursts are sent as live frames, where the far ends of wan and lan take them
	queues    int    // of each device, so that the balancer receives on so many
	serverMTU int    // of each server's device and of the switch port it is on; 0: 1500
}

// drivers are the ways frames get in and out that tests run over.
var drivers = []options{
	{driver: "af_xdp", xdpMode: "native"},
	{driver: "af_xdp", xdpMode: "generic"},
	{driver: "af_packet"},
}

func (o options) String() string {
	name := strings.TrimSuffix(o.driver+"-"+o.xdpMode, "-")
	if o.live {
		name += "-live"
	}
	return name
}

// bed is a network with a client, a balancer and servers, each in a namespace of its own:
//
//	client eth0 ---- wan  lb  lan ---- switch ---- eth0 of s1, s2, ...
//
// or, with one arm, all of them at the switch. Default route of the servers is the balancer.
type bed struct {
	t       testing.TB
	options options
	net     *testnet.Net
	client  *testnet.Space
	lb      *testnet.Space
	fabric  *testnet.Space // the switch: a bridge, br0, with the ports lb, s1, s2, ... (and client with one arm)
	servers []*testnet.Space
	dir     string // for files of the test
}

// newBed makes the network, or skips the test without the rights for it. It is gone when the test ends.
func newBed(t testing.TB, o options) *bed {
	t.Helper()
	if o.servers == 0 {
		o.servers = 3
	}
	if o.driver == "" {
		o.driver = "af_xdp"
	}
	b := &bed{t: t, options: o, dir: t.TempDir(), net: testnet.NewT(t, "we2e")}
	b.client, b.lb, b.fabric = b.space("client"), b.space("lb"), b.space("switch")
	must(t, b.fabric.Exec(func() error {
		la := netlink.NewLinkAttrs()
		la.Name = "br0"
		la.HardwareAddr, _ = net.ParseMAC("02:00:00:00:03:00")
		snooping := false // it would hold back neighbour solicitations at first
		bridge := &netlink.Bridge{LinkAttrs: la, MulticastSnooping: &snooping}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		return netlink.LinkSetUp(bridge)
	}))
	if o.oneArm {
		b.plug("client", testnet.End{Space: b.client, Name: "eth0", MAC: clientMAC, Queues: o.queues})
		b.plug("lb", testnet.End{Space: b.lb, Name: "net", MAC: wanMAC, Queues: o.queues})
		must(t, b.lb.Address("net", wan4+"/24", wan6+"/64", lan4+"/24", lan6+"/64"))
	} else {
		must(t, b.net.Veth(testnet.End{Space: b.client, Name: "eth0", MAC: clientMAC, Queues: o.queues},
			testnet.End{Space: b.lb, Name: "wan", MAC: wanMAC, Queues: o.queues}))
		b.plug("lb", testnet.End{Space: b.lb, Name: "lan", MAC: lanMAC, Queues: o.queues})
		must(t, b.lb.Address("wan", wan4+"/24", wan6+"/64"))
		must(t, b.lb.Address("lan", lan4+"/24", lan6+"/64"))
	}
	must(t, b.client.Address("eth0", client4+"/24", client6+"/64"))
	must(t, b.client.Route("198.18.9.0/24", wan4))
	must(t, b.client.Route("2001:db8:9::/64", wan6))
	for i := range o.servers {
		name := fmt.Sprintf("s%d", i+1)
		s := b.space(name)
		b.servers = append(b.servers, s)
		b.plug(name, testnet.End{Space: s, Name: "eth0", MAC: serverMAC(i), MTU: o.serverMTU, Queues: o.queues})
		must(t, s.Address("eth0", server4(i)+"/24", server6(i)+"/64"))
		must(t, s.Route("default", lan4))
		must(t, s.Route("default", lan6))
	}
	return b
}

// with is the bed in the hands of a subtest.
func (b *bed) with(t testing.TB) *bed {
	x := *b
	x.t = t
	return &x
}

func (b *bed) space(name string) *testnet.Space {
	b.t.Helper()
	s, err := b.net.Space(name)
	must(b.t, err)
	return s
}

// plug joins a device to the switch, whose port gets that name. A veth device receives on the queue that its peer sent on, so the port gets as
// many queues as the device.
func (b *bed) plug(port string, e testnet.End) {
	b.t.Helper()
	must(b.t, b.net.Veth(e, testnet.End{Space: b.fabric, Name: port, MTU: e.MTU, Queues: e.Queues}))
	must(b.t, b.fabric.Exec(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	}))
}

// ports are the balancer's devices.
func (b *bed) ports() []string {
	if b.options.oneArm {
		return []string{"net"}
	}
	return []string{"wan", "lan"}
}

// config is a configuration for the bed: its ports with its driver, then what the test says. Text that begins with "engine:" or
// "ports:" replaces the bed's own.
func (b *bed) config(parts ...string) string {
	text := "version: 1\n"
	body := strings.Join(parts, "\n") + "\n"
	if !strings.Contains("\n"+body, "\nports:") {
		text += "ports:\n"
		for _, p := range b.ports() {
			text += fmt.Sprintf("  - {name: %s, interface: %s, driver: %s", p, p, b.options.driver)
			if b.options.xdpMode != "" {
				text += ", xdp_mode: " + b.options.xdpMode
			}
			if b.options.live {
				text += ", xdp_send: live"
			}
			text += "}\n"
		}
	}
	return text + body
}

// service is one service of a configuration in front of the bed's servers; head is what stands before the backends, such as
// "port: 80, protocol: tcp, scheduler: rr". Weight 1 unless weights are given.
func (b *bed) service(vip, head string, port int, weights ...int) string {
	server := server4
	if strings.Contains(vip, ":") {
		server = server6
	}
	s := fmt.Sprintf("  - {vip: %q, %s, backends: [", vip, head)
	for i := range b.servers {
		w := 1
		if len(weights) > i {
			w = weights[i]
		}
		if len(weights) > 0 && len(weights) <= i {
			break
		}
		s += fmt.Sprintf("{address: %q, port: %d, weight: %d}, ", server(i), port, w)
	}
	return strings.TrimSuffix(s, ", ") + "]}\n"
}
