package live

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/control/config"
	"weir/control/host/testnet"
)

// twoArms is the configuration that hosts are examined for, unless a case has another.
const twoArms = `version: 1
ports:
  - {name: wan, interface: wan}
  - {name: lan, interface: lan}
services:
  - {vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10}]}
`

// bed is a balancer's host with two devices of two queues each.
type bed struct {
	lb, peer *testnet.Space
	options  Options // but for Config
}

func newBed(t *testing.T) *bed {
	t.Helper()
	n := testnet.NewT(t, "wlive")
	b := &bed{}
	var err error
	b.lb, err = n.Space("lb")
	must(t, err)
	b.peer, err = n.Space("peer")
	must(t, err)
	for _, dev := range []string{"wan", "lan"} {
		must(t, n.Veth(testnet.End{Space: b.lb, Name: dev, Queues: 2}, testnet.End{Space: b.peer, Name: dev, Queues: 2}))
	}
	must(t, b.lb.Address("wan", "198.18.0.1/24"))
	must(t, b.lb.Address("lan", "198.18.1.1/24"))
	for _, key := range []string{"all/rp_filter", "default/rp_filter", "wan/rp_filter", "lan/rp_filter", "all/accept_redirects", "wan/accept_redirects", "lan/accept_redirects"} {
		must(t, b.lb.Sysctl("net/ipv4/conf/"+key, "0")) // whatever this machine gives new namespaces
	}
	must(t, b.lb.Sysctl("net/ipv4/ip_forward", "1"))
	must(t, b.lb.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	for _, dev := range []string{"wan", "lan"} {
		must(t, b.lb.Sysctl("net/ipv6/conf/"+dev+"/accept_ra", "0"))
	}
	b.options = Options{Host: b.lb.Host(), Workers: 2, MaxMTU: 3500, Frames: 1 << 20, Table: 168 << 20, Machine: Machine{Kernel: "6.12.0", Available: 1 << 30, Memlock: unix.RLIM_INFINITY}}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// find examines the host for a configuration.
func (b *bed) find(t *testing.T, text string) []Finding {
	t.Helper()
	cfg, diags := config.Parse("weir.yaml", []byte(text))
	if config.HasErrors(diags) {
		t.Fatal(config.Errors(diags))
	}
	o := b.options
	o.Config = cfg
	return Examine(o)
}

// of are the findings of one check.
func of(all []Finding, check string) (some []Finding) {
	for _, f := range all {
		if f.Check == check {
			some = append(some, f)
		}
	}
	return some
}

// cured runs what findings print, as root would type it.
func (b *bed) cured(t *testing.T, findings []Finding) {
	t.Helper()
	for _, f := range findings {
		for _, c := range f.Cure {
			if out, err := b.lb.Command("sh", "-c", c).CombinedOutput(); err != nil {
				t.Errorf("the cure %q: %v: %s", c, err, out)
			}
		}
	}
}

// TestFindings breaks one thing at a time, wants it found, runs the cure that is printed, and wants it found no more.
func TestFindings(t *testing.T) {
	b := newBed(t)
	if all := b.find(t, twoArms); len(all) > 0 {
		t.Fatalf("a host as it should be: %+v", all)
	}
	sh := func(line string) func() error {
		return func() error {
			if out, err := b.lb.Command("sh", "-c", line).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", line, err, out)
			}
			return nil
		}
	}
	sysctl := func(key, value string) func() error { return func() error { return b.lb.Sysctl(key, value) } }
	oneArm := strings.Replace(twoArms, "  - {name: lan, interface: lan}\n", "", 1)
	fullNAT := strings.Replace(twoArms, "port: 80,", "port: 80, forward: fullnat, fullnat: {addresses: [198.18.1.1], ports: 32768-60999},", 1)
	overlay := func(more string) string {
		return twoArms[:strings.Index(twoArms, "services:")] + "vxlan:\n  segments:\n    - {vni: 5001, vtep: 192.0.2.1, peers: [198.18.1.21]" + more + "}\n"
	}
	access := overlay(", access: [{port: wan}]")
	for _, tc := range []struct {
		name, text, check string
		level             Level
		says              string // in the message
		program           string // that breaking or curing needs
		broken            func() error
		incurable         bool // by a command
		perhaps           bool // the kernel has what it takes to break it
		undo              func() error
	}{
		{name: "strict rp_filter", check: "rp_filter", level: Warning, says: "answers to health checks", broken: sysctl("net/ipv4/conf/lan/rp_filter", "1")},
		{name: "strict rp_filter for all", check: "rp_filter", level: Warning, says: "asymmetric", broken: sysctl("net/ipv4/conf/all/rp_filter", "1"), undo: sysctl("net/ipv4/conf/all/rp_filter", "0")},
		{name: "arp_ignore", check: "arp_ignore", level: Warning, says: "stay unanswered", broken: sysctl("net/ipv4/conf/wan/arp_ignore", "1")},
		{name: "IPv6 off", check: "disable_ipv6", level: Warning, says: "lo", broken: sysctl("net/ipv6/conf/lo/disable_ipv6", "1")},
		{name: "router advertisements", check: "accept_ra", level: Warning, says: "default route", broken: sysctl("net/ipv6/conf/wan/accept_ra", "1")},
		{name: "no forwarding", check: "ip_forward", level: Hint, says: "connections of their own", broken: sysctl("net/ipv4/ip_forward", "0"), undo: func() error {
			for _, key := range []string{"all", "wan", "lan"} { // which a change of ip_forward sets anew
				if err := b.lb.Sysctl("net/ipv4/conf/"+key+"/accept_redirects", "0"); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "redirects with one arm", text: oneArm, check: "send_redirects", level: Warning, says: "leads past weir", broken: sysctl("net/ipv4/conf/wan/send_redirects", "1")},
		{name: "redirects are taken", check: "accept_redirects", level: Hint, says: "health checks", broken: func() error {
			return errorsOf(b.lb.Sysctl("net/ipv4/conf/all/accept_redirects", "1"), b.lb.Sysctl("net/ipv4/conf/lan/accept_redirects", "1"))
		}},
		{name: "policy routing", check: "ip_rule", level: Warning, says: "main table", program: "ip", broken: sh("ip rule add from 198.18.9.0/24 table 1000"), incurable: true, undo: sh("ip rule del from 198.18.9.0/24 table 1000")},
		{name: "a device that is down", check: "device", level: Warning, says: "lan is down", program: "ip", broken: sh("ip link set lan down"), undo: func() error { return b.lb.Host().SetUp("lan", true) }},
		{name: "no such device", text: strings.Replace(twoArms, "interface: lan", "interface: lan7", 1), check: "device", level: Error, says: "lan7", incurable: true},
		{name: "a VLAN device", text: strings.Replace(twoArms, "interface: lan}", "interface: lan.7}", 1), check: "device", level: Error, says: "with vlan: 7", program: "ip", perhaps: true,
			broken: sh("ip link add link lan name lan.7 type vlan id 7"), incurable: true, undo: sh("ip link del lan.7")},
		{name: "fewer queues than workers", check: "queues", level: Error, says: "receives on 1 queues, but there are 2 workers", program: "ethtool", broken: sh("ethtool -L lan rx 1 tx 1")},
		{name: "a queue that is not there", text: strings.Replace(twoArms, "interface: lan}", `interface: lan, queues: "0,1"}`, 1), check: "queues", level: Error, says: "no receive queue 1",
			program: "ethtool", broken: sh("ethtool -L lan rx 1 tx 1")},
		{name: "offloads", check: "offloads", level: Hint, says: "rx-gro on lan", program: "ethtool", broken: sh("ethtool -K lan gro on")},
		{name: "an MTU beyond a page", check: "mtu", level: Error, says: "3500 is the largest", program: "ip", broken: sh("ip link set lan mtu 9000"), undo: sh("ip link set lan mtu 1500")},
		{name: "an MTU that the device has not", text: strings.Replace(twoArms, "interface: lan}", "interface: lan, mtu: 1600}", 1), check: "mtu", level: Warning, says: "the MTU of lan is 1500", program: "ip",
			undo: sh("ip link set lan mtu 1500")},
		{name: "a tunnel too narrow", text: access, check: "mtu", level: Warning, says: "packets of 1450 bytes", program: "ip", undo: sh("ip link set wan mtu 1500")},
		{name: "an address on an access port", text: access, check: "access", level: Warning, says: "every frame of an access port", program: "ip", undo: func() error { return b.lb.Address("wan", "198.18.0.1/24") }},
		{name: "no VTEP", text: overlay(""), check: "vtep", level: Warning, says: "192.0.2.1 is no address of this host", program: "ip", undo: sh("ip addr del 192.0.2.1/32 dev lo")},
		{name: "a VTEP of the kernel's", text: overlay(""), check: "vxlan", level: Warning, says: "vx1 has VNI 5001 on port 4789", program: "ip", perhaps: true,
			broken: sh("ip link add vx1 type vxlan id 5001 dstport 4789 dev lan")},
		{name: "another XDP program", check: "xdp", level: Error, says: "another XDP program", program: "ip", perhaps: true, broken: func() error { return b.block("lan") }},
		{name: "too few ports for the host", text: fullNAT, check: "local_ports", level: Warning, says: "32768-60999", broken: sysctl("net/ipv4/ip_local_port_range", "32768 60999"), undo: sysctl("net/ipv4/ip_local_port_range", "32768 60999")},
		{name: "destinations translated by nftables", check: "nftables", level: Hint, says: "1 rules", program: "nft", perhaps: true,
			broken: sh("nft add table ip t && nft 'add chain ip t pre { type nat hook prerouting priority dstnat; }' && nft add rule ip t pre tcp dport 80 dnat to 198.18.1.10")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.text == "" {
				tc.text = twoArms
			}
			if tc.program != "" {
				if _, err := exec.LookPath(tc.program); err != nil {
					t.Skipf("%s is not installed", tc.program)
				}
			}
			if tc.broken != nil {
				if err := tc.broken(); err != nil && tc.perhaps {
					t.Skip(err)
				} else {
					must(t, err)
				}
			}
			found := of(b.find(t, tc.text), tc.check)
			if len(found) == 0 || found[0].Level != tc.level || !strings.Contains(found[0].Message, tc.says) {
				t.Errorf("found %+v, want a %s that says %q", found, tc.level, tc.says)
			}
			for _, f := range found {
				if (len(f.Cure) == 0) != tc.incurable {
					t.Errorf("cure %q of %q", f.Cure, f.Message)
				}
			}
			b.cured(t, found)
			if left := of(b.find(t, tc.text), tc.check); !tc.incurable && len(left) > 0 {
				t.Errorf("after the cure: %+v", left)
			}
			if tc.undo != nil {
				must(t, tc.undo())
			}
		})
	}
	if all := b.find(t, twoArms); len(all) > 0 {
		t.Errorf("the host as it was: %+v", all)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// block puts an XDP program of somebody else's in front of a device.
func (b *bed) block(dev string) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "others", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		return err
	}
	defer p.Close()
	return b.lb.Exec(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFd(l, p.FD())
	})
}

// TestListeners: a socket of the host's at a service, or among the local ports that are weir's, is named with whatever there is of it.
func TestListeners(t *testing.T) {
	b := newBed(t)
	text := strings.Replace(twoArms, "port: 80,", "port: 80, forward: fullnat, fullnat: {addresses: [198.18.1.1], ports: 20000-20999},", 1)
	must(t, b.lb.Address("lo", "198.18.9.9/32"))
	listen := func(at string) net.Listener {
		t.Helper()
		var l net.Listener
		must(t, b.lb.Exec(func() (err error) { l, err = net.Listen("tcp", at); return err }))
		t.Cleanup(func() { l.Close() })
		return l
	}
	quiet := []net.Listener{listen("0.0.0.0:80"), listen("198.18.9.9:81"), listen("198.18.1.1:21000"), listen("198.18.0.1:20001")}
	if all := b.find(t, text); len(all) > 0 {
		t.Errorf("sockets beside what is weir's: %+v", all)
	}
	for _, tc := range []struct {
		at, check, path string
	}{
		{"198.18.9.9:80", "listeners", "services[0].port"},
		{"198.18.1.1:20500", "local_ports", "services[0].fullnat.ports"},
		{"0.0.0.0:20500", "local_ports", "services[0].fullnat.ports"},
	} {
		if tc.check == "listeners" {
			must(t, quiet[0].Close())
		}
		l := listen(tc.at)
		all := b.find(t, text)
		if len(all) != 1 || all[0].Check != tc.check || all[0].Level != Warning || all[0].Path != tc.path || all[0].Line != 6 || !strings.Contains(all[0].Message, fmt.Sprintf(":%d", netip.MustParseAddrPort(tc.at).Port())) {
			t.Errorf("a socket at %s: %+v", tc.at, all)
		}
		must(t, l.Close())
	}
}

// TestMachine examines machines that are not this one.
func TestMachine(t *testing.T) {
	b := newBed(t)
	good := b.options
	root := t.TempDir()
	file := func(path, text string) {
		path = filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	packets := strings.ReplaceAll(twoArms, "interface: lan", "interface: lan, driver: af_packet")
	const governor, clock = "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "sys/devices/system/clocksource/clocksource0/"
	for _, tc := range []struct {
		name, text, check string
		level             Level
		says              string
		set               func(*Options)
		cures             bool // by a command that works here
	}{
		{name: "a kernel without what is needed", check: "kernel", level: Error, says: "5.15", set: func(o *Options) { o.Machine.Kernel = "5.10.0-28-amd64" }},
		{name: "a kernel without tcx", text: packets, check: "kernel", level: Error, says: "tcx", set: func(o *Options) { o.Machine.Kernel = "6.5.0" }},
		{name: "a kernel whose rings are mapped before bind", check: "kernel", level: Hint, says: "6.4", set: func(o *Options) { o.Machine.Kernel = "6.1.0-18-amd64" }},
		{name: "frames beyond the memory", check: "memory", level: Error, says: "fewer workers", set: func(o *Options) { o.Frames = 2 << 30 }},
		{name: "a table beyond the memory", check: "memory", level: Warning, says: "conntrack.max_connections: 623616", set: func(o *Options) { o.Machine.Available = 101 << 20 }},
		{name: "a limit to locked memory", check: "memlock", level: Warning, says: "CAP_IPC_LOCK", set: func(o *Options) { o.Machine.Memlock = 65536 }},
		{name: "a lazy governor", check: "governor", level: Hint, says: "powersave", cures: true, set: func(*Options) { file(governor, "powersave\n") }},
		{name: "a slow clock", check: "clock", level: Hint, says: "hpet", cures: true, set: func(*Options) {
			file(clock+"current_clocksource", "hpet\n")
			file(clock+"available_clocksource", "tsc hpet acpi_pm\n")
		}},
		{name: "more servers than neighbours", check: "gc_thresh", level: Warning, says: "3 servers and VTEPs of ipv4", cures: true,
			text: strings.Replace(twoArms, "[{address: 198.18.1.10}]", "[{address: 198.18.1.10}, {address: 198.18.1.11}, {address: 198.18.1.12}, {address: 198.19.1.10}]", 1),
			set: func(*Options) {
				file("proc/sys/net/ipv4/neigh/default/gc_thresh2", "2\n")
				file("proc/sys/net/ipv4/neigh/default/gc_thresh3", "4\n")
			}},
		{name: "irqbalance", check: "irqbalance", level: Hint, says: "IRQBALANCE_BANNED_CPULIST", set: func(*Options) { file("proc/4711/comm", "irqbalance\n") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.options = good
			b.options.Machine.Root = root
			tc.set(&b.options)
			if tc.text == "" {
				tc.text = twoArms
			}
			found := of(b.find(t, tc.text), tc.check)
			if len(found) != 1 || found[0].Level != tc.level || !strings.Contains(found[0].Message, tc.says) {
				t.Errorf("found %+v, want a %s that says %q", found, tc.level, tc.says)
			}
			if tc.cures {
				b.cured(t, found)
				if left := of(b.find(t, tc.text), tc.check); len(left) > 0 {
					t.Errorf("after the cure: %+v", left)
				}
			}
		})
	}
}

// TestThisMachine: what is read of the machine that the test runs on is what its own tools say.
func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	out, err := exec.Command("uname", "-r").Output()
	if err != nil {
		t.Skip("no uname")
	}
	if m.Kernel != strings.TrimSpace(string(out)) || m.Available < 1<<20 {
		t.Errorf("%+v, uname says %s", m, out)
	}
	if v, ok := kernelVersion(m.Kernel); !ok || v[0] < 4 {
		t.Errorf("version %v of %s", v, m.Kernel)
	}
}

// TestNativeMTU: the page on hardware and the check say the same of each driver.
func TestNativeMTU(t *testing.T) {
	page, err := os.ReadFile("../../docs/hardware.md")
	must(t, err)
	names := map[string]string{"mlx4_en": "mlx4", "mlx5_core": "mlx5"} // as ethtool calls them, and as people do
	for driver, most := range nativeMTU {
		name := cmp.Or(names[driver], driver)
		if !regexp.MustCompile(fmt.Sprintf("(?m)^\\| `%s` \\|.*\\| %d \\|", name, most)).Match(page) {
			t.Errorf("docs/hardware.md does not say that %s takes %d", name, most)
		}
	}
}

// TestEveryCheckIsExplained: the page has a row for each check that there is a case of here.
func TestEveryCheckIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	must(t, err)
	_, table, _ := strings.Cut(string(page), "## What `weir check --live` looks at")
	table, _, _ = strings.Cut(table, "\n## ")
	source, err := filepath.Glob("*.go")
	must(t, err)
	for _, file := range source {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`(?:x\.host\(\w+, |x\.at\(\w+, |x\.unseen\(|x\.diagnostic\(|check: )"(\w+)"`).FindAllStringSubmatch(string(text), -1) {
			if name := m[1]; !strings.Contains(table, "`"+name+"`") {
				t.Errorf("docs/troubleshooting.md does not explain %s, of %s", name, file)
			}
		}
	}
}

// TestOrder: findings about the file stand in its order, then those of the host, and a finding is text as compilers write it.
func TestOrder(t *testing.T) {
	b := newBed(t)
	must(t, b.lb.Sysctl("net/ipv4/ip_forward", "0"))
	b.options.Workers = 3
	all := b.find(t, twoArms)
	var lines []int
	for _, f := range all {
		lines = append(lines, f.Line)
	}
	if len(lines) < 3 || lines[0] != 3 || lines[1] != 4 || slices.Contains(lines[2:], 3) || lines[2] != 0 {
		t.Errorf("lines %v of %+v", lines, all)
	}
	if text := all[0].Text(); !strings.HasPrefix(text, "weir.yaml:3:5: error: ports[0].queues: wan receives on 2 queues, but there are 3 workers") {
		t.Error(text)
	}
	if text := all[len(all)-1].Text(); !strings.HasPrefix(text, "host: hint: ") || !strings.Contains(text, "\n    sysctl -w net/") {
		t.Error(text)
	}
}
