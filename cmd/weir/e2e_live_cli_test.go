package main_test

import (
	"bytes"
	"encoding/json"
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
	"weir/dataplane/packet/pkttest"
)

// run runs weir as it stands, without a daemon.
func run(t testing.TB, args ...string) result {
	t.Helper()
	return command(t, exec.Command(weir(t), args...))
}

func TestExitCodesWithoutADaemon(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	must(t, os.WriteFile(bad, []byte("version: 2\n"), 0o644))
	for _, x := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--version"}, 0, "weir "},
		{[]string{"check", "-c", "../../configs/two-arm-nat.yaml"}, 0, "valid"},
		{[]string{"check", "-c", bad}, 3, "bad.yaml:1:10: error: version:"},
		{[]string{"check", "-c", filepath.Join(dir, "none.yaml")}, 2, "no such file"},
		{[]string{"check"}, 2, "config"},
		{[]string{"run", "-c", bad}, 3, "bad.yaml:1:10"},
		{[]string{"stats", "--socket", filepath.Join(dir, "none.sock")}, 5, "no weir answers"},
		{[]string{"reload", "--socket", filepath.Join(dir, "none.sock")}, 5, "no weir answers"},
		{[]string{"stats", "-o", "xml"}, 2, "table and json"},
		{[]string{"nonsense"}, 2, "unknown command"},
		{[]string{"replay", "-c", bad}, 3, "bad.yaml:1:10"},
		{[]string{"replay", "-c", bad, "--in", "wan"}, 2, "PORT=FILE"},
	} {
		r := run(t, x.args...)
		if r.code != x.code || !strings.Contains(r.out+r.errors, x.says) {
			t.Errorf("weir %q: %v; want exit %d and %q", x.args, r, x.code, x.says)
		}
	}
}

// TestCheckBrokenFiles holds `weir check` to the lines that the package's own test expects.
func TestCheckBrokenFiles(t *testing.T) {
	files, err := filepath.Glob("../../control/config/testdata/broken/*.yaml")
	must(t, err)
	if len(files) < 10 {
		t.Fatalf("only %d broken files", len(files))
	}
	for _, f := range files {
		want, err := os.ReadFile(strings.TrimSuffix(f, ".yaml") + ".want")
		must(t, err)
		r := run(t, "check", "-c", f)
		got := strings.ReplaceAll(r.out, filepath.Dir(f)+"/", "")
		if r.code != 3 || strings.TrimSpace(got) != strings.TrimSpace(string(want)) {
			t.Errorf("%s: %v\nwant:\n%s", f, r, want)
		}
	}
	examples, err := filepath.Glob("../../configs/*.yaml")
	must(t, err)
	for _, f := range examples {
		if r := run(t, "check", "-c", f); r.code != 0 {
			t.Errorf("%s: %v", f, r)
		}
	}
}

// TestReplayFromTheCommandLine runs as an ordinary user, twice, and has tshark judge what came out.
func TestReplayFromTheCommandLine(t *testing.T) {
	dir, err := os.MkdirTemp("", "weir-replay-") // others than root must get in
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	config := file("weir.yaml", `version: 1
ports:
  - {name: wan, mac: "02:00:00:00:01:0c", addresses: [198.18.0.1/24, "2001:db8::1/64"]}
  - {name: lan, mac: "02:00:00:00:01:0d", addresses: [198.18.1.1/24, "2001:db8:1::1/64"], mtu: 1300}
neighbors:
  - {address: 198.18.0.2, mac: "02:00:00:00:00:0c", port: wan}
  - {address: "2001:db8::2", mac: "02:00:00:00:00:0c", port: wan}
  - {address: 198.18.1.11, mac: "02:00:00:00:02:0b", port: lan}
  - {address: "2001:db8:1::11", mac: "02:00:00:00:02:0b", port: lan}
services:
  - {vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.11, port: 8000}]}
  - {vip: "2001:db8:9::9", port: 80, backends: [{address: "2001:db8:1::11", port: 8000}]}
  - {vip: 198.18.9.9, port: 53, protocol: udp, backends: [{address: 198.18.1.11, port: 5300}]}
`)
	us, them := pkttest.MAC(clientMAC), pkttest.MAC(wanMAC)
	c4, c6 := netip.MustParseAddrPort("198.18.0.2:4000"), netip.MustParseAddrPort("[2001:db8::2]:4000")
	web4, web6, dns := netip.MustParseAddrPort("198.18.9.9:80"), netip.MustParseAddrPort("[2001:db8:9::9]:80"), netip.MustParseAddrPort("198.18.9.9:53")
	var capture bytes.Buffer
	w := pcapgo.NewWriterNanos(&capture)
	must(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	for i, p := range []pkttest.Packet{
		pkttest.TCP(c4, web4).SYN(), pkttest.TCP(c6, web6).SYN(), pkttest.UDP(c4, dns),
		pkttest.TCP(c4, web4).Seq(1).Ack(1).DF().Size(1400), pkttest.TCP(c6, web6).Seq(1).Ack(1).Size(1400), pkttest.TCP(c4, web4).Seq(1).Ack(1).ID(5).Size(1400),
		pkttest.TCP(c4, web4).Ack(1).TTL(1), pkttest.UDP(c4, netip.AddrPortFrom(dns.Addr(), 54)), pkttest.TCP(c6, netip.AddrPortFrom(web6.Addr(), 81)).SYN(),
		pkttest.Echo(c4.Addr(), web4.Addr(), 1, 1).Payload([]byte("echo")), pkttest.TCP(c4, web4).SYN().BadIPChecksum(),
	} {
		f := p.Frame(us, them)
		must(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1e9, int64(i)*1e6), CaptureLength: len(f), Length: len(f)}, f))
	}
	in := file("in.pcap", capture.String())
	replay := func(extra ...string) result {
		args := append([]string{"replay", "-c", config, "--in", "wan=" + in, "--out", "wan=" + dir + "/wan.pcap", "--out", "lan=" + dir + "/lan.pcap",
			"--counters", dir + "/counters.json"}, extra...)
		c := exec.Command(weir(t), args...)
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		return command(t, c)
	}
	bytesOf := func() (all []byte) {
		for _, f := range []string{"wan.pcap", "lan.pcap", "counters.json"} {
			b, err := os.ReadFile(filepath.Join(dir, f))
			must(t, err)
			all = append(all, b...)
		}
		return all
	}
	if r := replay(); r.code != 0 {
		t.Fatal(r)
	}
	once := bytesOf()
	if r := replay(); r.code != 0 || !bytes.Equal(once, bytesOf()) {
		t.Errorf("the second run differs: %v", r)
	}
	var s control.Stats
	text, err := os.ReadFile(dir + "/counters.json")
	must(t, err)
	must(t, json.Unmarshal(text, &s))
	if v := s.Verdicts; v.Received != 11 || v.Forwarded != 4 || v.Answered != 6 || v.Dropped != 1 || s.Drops["ip_checksum"] != 1 {
		t.Errorf("verdicts %+v, drops %v", v, s.Drops)
	}

	bad := file("bad.yaml", "version: 1\nports: []\n")
	if r := replay("--reload", "5ms="+bad); r.code != 1 || !strings.Contains(r.errors, "bad.yaml:2") || !strings.Contains(r.errors, "reload at 5ms refused") {
		t.Errorf("a refused reload: %v", r)
	}
	if !bytes.Equal(once[:len(once)-len(text)], bytesOf()[:len(once)-len(text)]) {
		t.Error("a refused reload changed what came out")
	}

	needs(t, "tshark")
	for _, f := range []string{"wan.pcap", "lan.pcap"} {
		r := command(t, exec.Command("tshark", "-r", filepath.Join(dir, f), "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
			// Of a quoted packet tshark would want the whole for its transport checksum.
			"-Y", "_ws.malformed || ip.checksum.status==0 || icmp.checksum.status==0 || icmpv6.checksum.status==0 || "+
				"!icmp && !icmpv6 && (tcp.checksum.status==0 || udp.checksum.status==0)"))
		if r.code != 0 || strings.TrimSpace(r.out) != "" {
			t.Errorf("tshark objects to %s: %v", f, r)
		}
	}
}
