package main_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"weir/control"
	"weir/control/host/testnet"
	"weir/dataplane/packet/pkttest"
)

func TestASecondDaemonOnTheSocketEndsWithThePidOfTheFirst(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	d := b.start(b.tcp())
	all := streams(t, b.client, hostPort(vip4, 80), 3, 5*time.Second)
	r := d.try("run", "-c", d.file)
	if r.code != 1 || !strings.Contains(r.errors, fmt.Sprintf("pid %d", d.pid())) {
		t.Errorf("a second daemon on the same socket: %v", r)
	}
	// On a socket of its own it finds the devices taken.
	other := launch(t, b.lb, t.TempDir(), b.tcp())
	if code := other.wait(10 * time.Second); code != 1 || !strings.Contains(other.log.String(), "busy") {
		t.Errorf("a second daemon on the same devices: exit %d, want 1 and busy\n%s", code, other.log)
	}
	flows(t, all, 5*time.Second)
	finish(t, all)
	for _, vip := range []string{vip4, vip6} {
		if !has(t, b.lb, vip) {
			t.Errorf("the first daemon's VIP %s is gone", vip)
		}
		works(t, b.client, hostPort(vip, 80), 1)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.nothingLeft(d)
}

func TestDaemonsInTwoNamespacesDoNotMeet(t *testing.T) {
	one, two := newBed(t, options{}), newBed(t, options{})
	one.echoes(8000)
	two.echoes(8000)
	d1, d2 := one.start(one.tcp()), two.start(two.tcp())
	works(t, one.client, hostPort(vip4, 80), 3)
	works(t, two.client, hostPort(vip4, 80), 5)
	if n := d1.settled().Services[0].Conns; n != 3 {
		t.Errorf("the first counts %d connections, want 3", n)
	}
	if n := d2.settled().Services[0].Conns; n != 5 {
		t.Errorf("the second counts %d connections, want 5", n)
	}
	if code := d1.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	works(t, two.client, hostPort(vip4, 80), 3)
	one.nothingLeft(d1)
}

// Whatever becomes of one of two weirs in a namespace, each on its own devices, the other's VIPs and neighbours stay as they are.
func TestDaemonsInOneNamespaceLeaveEachOtherAlone(t *testing.T) {
	b := newBed(t, options{})
	b.echoes(8000)
	other := b.space("other")
	must(t, b.net.Veth(testnet.End{Space: other, Name: "eth0", MAC: "02:00:00:00:07:02"}, testnet.End{Space: b.lb, Name: "net2", MAC: "02:00:00:00:07:01"}))
	must(t, other.Address("eth0", "198.18.7.2/24"))
	must(t, b.lb.Address("net2", "198.18.7.1/24"))
	d := b.start(b.tcp())
	works(t, b.client, hostPort(vip4, 80), 1)

	changes := &output{}
	monitor := b.lb.Command("ip", "monitor", "neigh", "address")
	monitor.Stdout, monitor.Stderr = changes, changes
	must(t, monitor.Start())
	t.Cleanup(func() { _ = monitor.Process.Kill(); _ = monitor.Wait() })
	const second = "version: 1\nports: [{name: net, interface: net2}]\nservices:\n  - {vip: 198.18.9.70, port: 80, protocol: tcp, backends: [{address: 198.18.7.2, port: 8000}]}\n"
	dir := t.TempDir()
	x := launch(t, b.lb, dir, second)
	x.ready()
	if r := x.try("reload"); r.code != 0 {
		t.Errorf("reload: %v", r)
	}
	x.kill()
	r := x.try("cleanup")
	if r.code != 0 || !strings.Contains(r.out, "vip 198.18.9.70") || !strings.Contains(r.out, "neighbor 198.18.7.2") || has(t, b.lb, "198.18.9.70") {
		t.Errorf("cleanup after the second: %v", r)
	}
	x = launch(t, b.lb, dir, second)
	x.ready()
	if code := x.stop(); code != 0 {
		t.Errorf("the second: exit %d", code)
	}
	eventually(t, 5*time.Second, "the second's VIP goes", func() bool { return strings.Count(changes.String(), "Deleted") >= 4 }) // twice the VIP, twice the neighbour
	for line := range strings.Lines(changes.String()) {
		if strings.Contains(line, "Deleted") && !strings.Contains(line, "net2") && !strings.Contains(line, "198.18.9.70") {
			t.Errorf("of the first's: %s", line)
		}
	}
	works(t, b.client, hostPort(vip4, 80), 1)
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	b.nothingLeft(d)
}

func TestAStaleSocketIsReplacedAndAFileIsNot(t *testing.T) {
	b := newBed(t, options{servers: 1})
	b.echoes(8000)
	path := filepath.Join(b.dir, "weir.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	d := b.start(b.tcp())
	works(t, b.client, hostPort(vip4, 80), 1)
	info, err := os.Stat(path)
	must(t, err)
	if m := info.Mode().Perm(); m != 0o660 {
		t.Errorf("the socket's mode is %o, want 660", m)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	d = launch(t, b.lb, b.dir, b.tcp())
	if code := d.wait(5 * time.Second); code != 1 {
		t.Errorf("a file where the socket should be: exit %d, want 1", code)
	}
	if got, _ := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("the file now holds %q", got)
	}
}

func TestWithoutRights(t *testing.T) {
	needsPins(t)
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o777))
	file := filepath.Join(dir, "weir.yaml")
	const config = `version: 1
ports:
  - {name: wan, interface: wan, mac: "02:00:00:00:01:0c", addresses: [198.18.0.1/24]}
  - {name: lan, interface: lan, mac: "02:00:00:00:01:0d", addresses: [198.18.1.1/24]}
neighbors:
  - {address: 198.18.1.11, mac: "02:00:00:00:02:0b", port: lan}
services:
  - {vip: 198.18.9.9, port: 80, protocol: tcp, scheduler: rr, backends: [{address: 198.18.1.11, port: 8000}]}
`
	must(t, os.WriteFile(file, []byte(config), 0o644))
	nobody := func(args ...string) result {
		t.Helper()
		c := exec.Command(weir(t), args...)
		c.Dir = dir
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return command(t, c)
	}
	socket := filepath.Join(dir, "weir.sock")
	r := nobody("run", "-c", file, "--socket", socket)
	if r.code != 6 || !strings.Contains(r.errors, "CAP_NET_ADMIN") || !strings.Contains(r.errors, "CAP_BPF") {
		t.Errorf("run: %v, want exit 6 and the capabilities named", r)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("run left its socket")
	}
	if r := nobody("check", "-c", file); r.code != 0 {
		t.Errorf("check: %v", r)
	}

	client := netip.MustParseAddrPort("198.18.0.2:4000")
	syn := pkttest.TCP(client, netip.MustParseAddrPort("198.18.9.9:80")).SYN().Frame(pkttest.MAC(clientMAC), pkttest.MAC(wanMAC))
	var capture bytes.Buffer
	w := pcapgo.NewWriterNanos(&capture)
	must(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	must(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, 0), CaptureLength: len(syn), Length: len(syn)}, syn))
	must(t, os.WriteFile(filepath.Join(dir, "in.pcap"), capture.Bytes(), 0o644))
	if r := nobody("replay", "-c", file, "--in", "wan=in.pcap", "--out", "lan=out.pcap"); r.code != 0 {
		t.Fatalf("replay: %v", r)
	}
	f, err := os.Open(filepath.Join(dir, "out.pcap"))
	must(t, err)
	defer f.Close()
	p, err := pcapgo.NewReader(f)
	must(t, err)
	frame, _, err := p.ReadPacketData()
	must(t, err)
	if s, ok := segmentOf(frame); !ok || s.src != client || s.dst != netip.MustParseAddrPort("198.18.1.11:8000") {
		t.Errorf("replay forwarded %+v", s)
	}

	// Nobody may not ask a daemon of root's either.
	b := newBed(t, options{servers: 1})
	d := b.start(b.tcp())
	must(t, os.Chmod(filepath.Dir(b.dir), 0o755))
	if r := nobody("stats", "--socket", d.socket); r.code != 6 {
		t.Errorf("stats of root's daemon: %v, want exit 6", r)
	}
	var s control.Stats
	must(t, control.NewClient(d.socket).Get("/stats", &s))
}
