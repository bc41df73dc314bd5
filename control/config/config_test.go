package config

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write what the broken files are told into their .want files, to be read before it is committed")

// TestBroken compares every line that a broken file is told, in order, with the one written down beside it.
func TestBroken(t *testing.T) {
	files, _ := filepath.Glob("testdata/broken/*.yaml")
	if len(files) < 10 {
		t.Fatalf("%d files in testdata/broken", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, diags := Parse(filepath.Base(file), contents(t, file))
			if !HasErrors(diags) {
				t.Error("no error")
			}
			got := Errors(diags).Error() + "\n"
			want := strings.TrimSuffix(file, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(contents(t, want)), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestExamples holds what users copy, and what looks wrong but is not, to having nothing to complain about.
func TestExamples(t *testing.T) {
	for _, pattern := range []string{"../../configs/*.yaml", "../../configs/ha/*.yaml", "testdata/valid/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		if len(files) < 2 {
			t.Errorf("%d files match %s", len(files), pattern)
		}
		for _, file := range files {
			if _, diags := Load(file); len(diags) > 0 {
				t.Errorf("%v", Errors(diags))
			}
		}
	}
}

// ours makes values comparable, places aside.
var ours = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}),
	cmpopts.IgnoreTypes(Place{}),
	cmpopts.IgnoreUnexported(Config{}),
	cmpopts.EquateEmpty(),
}

// one is the VIP of one address.
func one(a string) netip.Prefix {
	addr := netip.MustParseAddr(a)
	return netip.PrefixFrom(addr, addr.BitLen())
}

// TestEveryKeyArrives reads a file that gives every key a value other than its default and compares all of what became of it.
func TestEveryKeyArrives(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	conntrack := Conntrack{
		MaxConnections: 65536, ConnReuseMode: 2, ExpireNodestConn: true, ExpireQuiescentTemplate: true, SynCookies: "always",
		Timeouts: Timeouts{
			TCPNone: 3 * time.Second, TCPEstablished: 5 * time.Minute, TCPSynSent: 121 * time.Second, TCPSynRecv: 61 * time.Second,
			TCPFinWait: 122 * time.Second, TCPTimeWait: 123 * time.Second, TCPClose: 11 * time.Second, TCPCloseWait: 62 * time.Second,
			TCPLastAck: 31 * time.Second, UDP: 301 * time.Second,
		},
	}
	own1 := conntrack
	own1.Timeouts.TCPEstablished, own1.SloppyTCP, own1.ConnReuseMode = time.Minute, true, 3
	own1.ExpireNodestConn, own1.ExpireQuiescentTemplate, own1.SynCookies = false, false, "off"
	own2 := conntrack
	own2.Timeouts.UDP = 10 * time.Second
	own3 := conntrack
	own3.SloppyTCP, own3.ConnReuseMode, own3.SynCookies = true, 0, "off"
	ready := func(s Service) Service {
		if s.OnDown == "" {
			s.OnDown = "keep"
		}
		for i := range s.Backends {
			if s.Backends[i].State == "" {
				s.Backends[i].State = "ready"
			}
		}
		return s
	}
	check := Check{
		Type: "https", Port: 8443, Interval: 5 * time.Second, Timeout: 500 * time.Millisecond, Rise: 3, Fall: 4, InitState: "down", Method: "HEAD",
		URI: "/healthz?full=1", Host: "www.example:8443", Status: []int{200, 204, 205, 206}, Verify: true, CAFile: "/etc/weir/ca.pem", SNI: "www.example", Expect: "fine",
		ExpectRegex: "^ok [0-9]+$", Query: ".", QueryType: "SOA",
	}
	checkOf := func(change func(*Check)) *Check {
		c := check
		change(&c)
		return &c
	}
	want := &Config{
		File: "testdata/valid/full.yaml", Version: 1,
		Engine: Engine{Workers: Workers{Count: 5, CPUs: []int{2, 3, 4, 5, 7}}, Wait: "busy", StateDir: "/run/weir/state"},
		Ports: []Port{
			{Name: "wan", Interface: "eth1", Driver: "af_xdp", XDPMode: "native", XDPSend: "live", Queues: Queues{List: []int{0, 1, 2, 3, 4}},
				MAC: [6]byte{2, 0, 0, 0, 1, 12}, HasMAC: true, Addresses: []netip.Prefix{prefix("198.18.0.1/24"), prefix("2001:db8::1/64")}, MTU: 1500},
			{Name: "tenant", Interface: "eth1", Driver: "af_xdp", XDPMode: "native", XDPSend: "live", Queues: Queues{List: []int{0, 1, 2, 3, 4}}, VLAN: 100},
			{Name: "tap", Driver: "mem", XDPMode: "auto", XDPSend: "ring", Queues: Queues{All: true}, MAC: [6]byte{2, 0, 0, 0, 1, 13}, HasMAC: true,
				Addresses: []netip.Prefix{prefix("198.18.1.1/24")}, MTU: 1500},
		},
		Routes: []Route{
			{To: prefix("198.18.128.0/17"), Via: addr("198.18.0.2")},
			{To: prefix("2001:db8:c::/48"), Via: addr("fe80::1"), Port: "wan"},
		},
		Neighbors: []Neighbor{{Address: addr("198.18.0.2"), MAC: [6]byte{2, 0, 0, 0, 0, 12}, Port: "wan"}},
		Services: []Service{
			{
				Name: "web", VIPs: []netip.Prefix{one("198.18.9.9")}, Port: PortRange{80, 80}, Protocol: "tcp", Scheduler: "sh",
				Flags: []string{"sh-port", "sh-fallback"}, Forward: "nat", Conntrack: own1, MHTable: 4093, HashSeed: xxhash.Sum64String("secret") | 1,
				Allow: []netip.Prefix{prefix("198.18.0.0/15")}, Deny: []netip.Prefix{prefix("198.18.128.0/24"), prefix("2001:db8:bad::/48")},
				Masquerade: Masquerade{Mode: "except", Except: []netip.Prefix{prefix("10.0.0.0/8")}},
				Backends: []Backend{
					{Name: "w1", Address: addr("198.18.1.10"), Port: 8000, Weight: 3, UpperThreshold: 100, LowerThreshold: 50, Forward: "nat"},
					{Name: "198.18.1.11:80", Address: addr("198.18.1.11"), Port: 80, Weight: 1, Forward: "gue", TunnelPort: 6081, TunnelChecksum: true},
					{Name: "172.16.1.7:80@5001", Address: addr("172.16.1.7"), Port: 80, Weight: 1, Forward: "vxlan", VNI: 5001},
					{Name: "198.18.1.12:80", Address: addr("198.18.1.12"), Port: 80, Weight: 1, Forward: "ipip"},
					{Name: "198.18.1.13:80", Address: addr("198.18.1.13"), Port: 80, Weight: 1, Forward: "nat", Backup: true},
				},
			},
			{
				Name: "any", VIPs: []netip.Prefix{one("198.18.9.10"), prefix("2001:db8:9::10/124")}, Port: PortRange{0, 65535}, Protocol: "udp",
				Scheduler: "wlc", Forward: "nat", OnePacket: true, UDPActive: true, MHTable: 4093, Masquerade: Masquerade{Mode: "never"}, Conntrack: own2,
				Persistence: &Persistence{Timeout: time.Minute, Prefix: 24, Prefix6: 64},
				Backends: []Backend{
					{Name: "198.18.1.10:0", Address: addr("198.18.1.10"), Weight: 1, Forward: "nat"},
					{Name: "[2001:db8:1::10]:0", Address: addr("2001:db8:1::10"), Weight: 1, Forward: "gre"},
				},
			},
			{
				Name: "tcp-198.18.9.11:8000-8010", VIPs: []netip.Prefix{one("198.18.9.11")}, Port: PortRange{8000, 8010}, Protocol: "tcp",
				Scheduler: "mh", MHTable: 65521, Forward: "fullnat", Masquerade: Masquerade{Mode: "never"}, Conntrack: own3,
				FullNAT:  &FullNAT{Addresses: []netip.Addr{addr("198.18.1.2")}, Ports: PortRange{40000, 50000}, ClientAddress: "toa"},
				Backends: []Backend{{Name: "198.18.1.10:0", Address: addr("198.18.1.10"), Weight: 1, Forward: "fullnat"}},
			},
			{
				Name: "tcp-172.16.1.100:80@5001", VIPs: []netip.Prefix{one("172.16.1.100")}, VNI: 5001, Port: PortRange{80, 80}, Protocol: "tcp",
				Scheduler: "wlc", MHTable: 4093, Forward: "nat", Masquerade: Masquerade{Mode: "always"}, Conntrack: conntrack,
				Backends: []Backend{{Name: "172.16.2.7:80@5002", Address: addr("172.16.2.7"), Port: 80, Weight: 1, Forward: "vxlan", VNI: 5002}},
			},
			{
				Name: "watched", VIPs: []netip.Prefix{one("198.18.9.12")}, Port: PortRange{443, 443}, Protocol: "tcp", Scheduler: "wrr", MHTable: 4093,
				Forward: "nat", Masquerade: Masquerade{Mode: "never"}, Conntrack: conntrack, Check: &check, OnDown: "reset", Inhibit: true,
				SlowStart: 30 * time.Second, Passive: &Passive{SYNs: 10, For: 20 * time.Second}, DrainTimeout: 5 * time.Minute,
				Backends: []Backend{
					{Name: "198.18.1.20:443", Address: addr("198.18.1.20"), Port: 443, Weight: 1, Forward: "nat", Check: &check, DrainTimeout: 5 * time.Minute},
					{Name: "198.18.1.21:443", Address: addr("198.18.1.21"), Port: 443, Weight: 1, Forward: "nat", State: "drain", DrainTimeout: time.Minute,
						Check: checkOf(func(c *Check) { c.Type, c.Send, c.Expect = "tcp", "PING\r\n", "PONG" })},
					{Name: "198.18.1.22:443", Address: addr("198.18.1.22"), Port: 443, Weight: 1, Forward: "nat", DrainTimeout: 5 * time.Minute,
						Check: checkOf(func(c *Check) { c.Type, c.Send = "udp", "\x00\xff" })},
					{Name: "198.18.1.23:443", Address: addr("198.18.1.23"), Port: 443, Weight: 1, Forward: "nat", DrainTimeout: 5 * time.Minute,
						Check: checkOf(func(c *Check) { c.Type, c.Port, c.Query, c.QueryType = "dns", 53, "www.example", "A" })},
					{Name: "198.18.1.24:443", Address: addr("198.18.1.24"), Port: 443, Weight: 1, Forward: "nat", DrainTimeout: 5 * time.Minute,
						Check: checkOf(func(c *Check) { c.Type, c.Command = "exec", []string{"/usr/bin/true", "-v"} })},
					{Name: "172.16.1.8:443@5001", Address: addr("172.16.1.8"), Port: 443, Weight: 1, Forward: "vxlan", VNI: 5001, DrainTimeout: 5 * time.Minute,
						Check: checkOf(func(c *Check) { c.Type, c.Address = "icmp", addr("198.18.1.25") })},
					{Name: "198.18.1.26:443", Address: addr("198.18.1.26"), Port: 443, Weight: 1, Forward: "nat", DrainTimeout: 5 * time.Minute,
						Check: checkOf(func(c *Check) { c.Type = "none" })},
				},
			},
		},
		Conntrack: conntrack,
		Limits:    Limits{Answers: Rate{500}, HalfOpenPerSource: 64, NewPerSource: Rate{100}, Unusual: Rate{300_000}},
		VXLAN: VXLAN{Port: 8472, SourcePorts: PortRange{50000, 60000}, UDPChecksum: true, Segments: []Segment{{
			VNI: 5001, VTEP: addr("192.0.2.1"), Port: 4790, UDPChecksum: ChecksumNever, Access: []Access{{Port: "tenant"}},
			Peers: []Peer{{Address: addr("192.0.2.21"), Port: 4790, UDPChecksum: ChecksumNever}, {Address: addr("192.0.2.22"), Port: 4789, UDPChecksum: ChecksumMade}},
			Group: addr("239.1.1.1"), GroupInterface: "wan", Accept: "any", Strict: true, KeepTags: true, FloodLimit: Rate{5000}, MSSClamp: "all",
			TTL: Inheritable{Value: 64, Inherit: true}, DSCP: Inheritable{Value: 46},
			FDB: []FDB{{MAC: [6]byte{2, 0, 0, 0, 1, 10}, VTEP: addr("192.0.2.21")}}, Learning: true, Ageing: 10 * time.Minute, MaxEntries: 1024,
			Suppression: true,
			Gateway:     &Gateway{Addresses: []netip.Prefix{prefix("172.16.1.1/24")}, MAC: [6]byte{2, 0, 0, 0, 0x50, 1}, Reaches: []Reach{{5002}, {}}},
		}, {
			VNI: 5002, VTEP: addr("192.0.2.1"), Port: 8472, UDPChecksum: ChecksumMade, Accept: "peers", MSSClamp: "true", TTL: Inheritable{Value: 64},
			Learning: true, Ageing: 5 * time.Minute, MaxEntries: 16384,
			Gateway: &Gateway{Addresses: []netip.Prefix{prefix("172.16.2.1/24"), prefix("2001:db8:5002::1/64")}, MAC: [6]byte{2, 0, 0, 0, 0x50, 2}, Reaches: []Reach{{5001}}},
		}, {
			VNI: 5003, VTEP: addr("2001:db8:2::1"), Port: 8472, UDPChecksum: ChecksumMade, Accept: "peers", MSSClamp: "true",
			TTL: Inheritable{Value: 255}, DSCP: Inheritable{Inherit: true}, Ageing: 300 * time.Second, MaxEntries: 16384,
		}}},
		Admin: Admin{Socket: "/run/weir-test.sock", HTTP: netip.MustParseAddrPort("127.0.0.1:9180"), TokenFile: "/etc/weir/token", Pprof: true, Hosts: []string{"lb1.example"}},
		Grace: time.Minute,
	}
	for i := range want.Services {
		want.Services[i] = ready(want.Services[i])
	}
	got, diags := Load("testdata/valid/full.yaml")
	if len(diags) > 0 {
		t.Fatal(Errors(diags))
	}
	if diff := cmp.Diff(want, got, ours); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestKeysAreAllUsed holds Keys, full.yaml and docs/config.md to naming the same keys: none of them can be forgotten.
func TestKeysAreAllUsed(t *testing.T) {
	d := &decoder{config: new(Config), items: map[string]Pos{}, used: map[string]bool{}}
	d.decodeConfig(d.document(contents(t, "testdata/valid/full.yaml")))
	d.decodeConfig(d.document(contents(t, "testdata/reads/weir.yaml"))) // keys that make the decoder read other files
	doc := documented(t)
	for _, key := range Keys() {
		if !d.used[key] {
			t.Errorf("%s: not in testdata/valid/full.yaml", key)
		}
		if !doc[key] {
			t.Errorf("%s: not in docs/config.md", key)
		}
		delete(d.used, key)
		delete(doc, key)
	}
	for key := range d.used {
		t.Errorf("%s: its table is not in Keys", key)
	}
	for key := range doc {
		t.Errorf("docs/config.md has %s, which is no key", key)
	}
}

// documented are the keys in the first column of the document's tables. A table stands under a heading that names its mapping.
func documented(t *testing.T) map[string]bool {
	keys := map[string]bool{}
	path := ""
	for line := range strings.Lines(string(contents(t, "../../docs/config.md"))) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			path = ""
			if _, rest, ok := strings.Cut(heading, "`"); ok {
				path, _, _ = strings.Cut(rest, "`")
			}
		}
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			key, _, _ := strings.Cut(rest, "`")
			keys[strings.TrimPrefix(path+"."+key, ".")] = true
		}
	}
	return keys
}

// TestDefaults compares what a file that says almost nothing becomes with the contract's values.
func TestDefaults(t *testing.T) {
	got, diags := Parse("minimal.yaml", []byte("version: 1\nports: [{name: wan, interface: eth1}]\nservices: [{vip: 198.18.9.9, port: 80, backends: [{address: 198.18.1.10}]}]\n"+
		"vxlan: {segments: [{vni: 1, vtep: 192.0.2.1}]}"))
	if len(diags) > 0 {
		t.Fatal(Errors(diags))
	}
	timeouts := Timeouts{2 * time.Second, 900 * time.Second, 120 * time.Second, 60 * time.Second, 120 * time.Second, 120 * time.Second,
		10 * time.Second, 60 * time.Second, 30 * time.Second, 300 * time.Second}
	conntrack := Conntrack{MaxConnections: 1048576, Timeouts: timeouts, ConnReuseMode: 1, SynCookies: "auto"}
	want := &Config{
		File: "minimal.yaml", Version: 1, Engine: Engine{Wait: "adaptive", StateDir: "auto"}, Conntrack: conntrack, Limits: Limits{Answers: Rate{1000}, Unusual: Rate{200_000}},
		Ports: []Port{{Name: "wan", Interface: "eth1", Driver: "af_xdp", XDPMode: "auto", XDPSend: "ring", Queues: Queues{All: true}}},
		Services: []Service{{
			Name: "tcp-198.18.9.9:80", VIPs: []netip.Prefix{one("198.18.9.9")}, Port: PortRange{80, 80}, Protocol: "tcp",
			Scheduler: "wlc", Forward: "nat", Masquerade: Masquerade{Mode: "never"}, MHTable: 4093, Conntrack: conntrack, OnDown: "keep",
			Backends: []Backend{{Name: "198.18.1.10:80", Address: netip.MustParseAddr("198.18.1.10"), Port: 80, Weight: 1, Forward: "nat", State: "ready"}},
		}},
		VXLAN: VXLAN{Port: 4789, SourcePorts: PortRange{49152, 65535}, Segments: []Segment{{
			VNI: 1, VTEP: netip.MustParseAddr("192.0.2.1"), Learning: true, Ageing: 300 * time.Second, MaxEntries: 16384,
			Port: 4789, Accept: "peers", MSSClamp: "true", TTL: Inheritable{Value: 64},
		}}},
		Admin: Admin{Socket: "/run/weir.sock"}, BindVIPs: true, Grace: 10 * time.Second,
	}
	if diff := cmp.Diff(want, got, ours); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !got.Engine.Workers.Auto() {
		t.Error("workers are not automatic")
	}
}

// TestPlaces holds elements to knowing where they stand, which later stages report errors by.
func TestPlaces(t *testing.T) {
	c, diags := Load("testdata/valid/full.yaml")
	if len(diags) > 0 {
		t.Fatal(Errors(diags))
	}
	lines := strings.Split(string(contents(t, "testdata/valid/full.yaml")), "\n")
	at := func(p Pos) string { return lines[p.Line-1][p.Col-1:] }
	for _, x := range []struct {
		pos  Pos
		text string
	}{
		{c.Ports[1].Pos, "name: tenant"},
		{c.Ports[0].Field("interface"), "eth1"},
		{c.Ports[2].Field("interface"), "{name: tap"}, // not given: the element itself
		{c.Services[0].Backends[2].Pos, "{address: 172.16.1.7"},
		{c.Services[0].Backends[2].Field("vni"), "5001}"},
		{c.VXLAN.Segments[0].Gateway.Field("mac"), "02:00:00:00:50:01"},
		{c.Conntrack.Field("max_connections"), "65536"},
	} {
		if !strings.HasPrefix(at(x.pos), x.text) {
			t.Errorf("%v is %q, want %q", x.pos, at(x.pos), x.text)
		}
	}
	b := &c.Services[0].Backends[2]
	got := c.Errorf(b.Field("vni"), b.Path+".vni", "no route to segment %d", b.VNI).String()
	if want := "testdata/valid/full.yaml:51:52: error: services[0].backends[2].vni: no route to segment 5001"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func contents(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplay checks the other rules for ports that a replay has.
func TestReplay(t *testing.T) {
	const text = "version: 1\nports:\n- {name: a, mac: 02:00:00:00:00:01, addresses: [198.18.0.1/24]}\n- {name: b, driver: af_packet, interface: eth0}\n"
	_, diags := ParseReplay("r.yaml", []byte(text))
	want := []string{
		"r.yaml:4:3: error: ports[1]: mac is missing: a replay needs it",
		"r.yaml:4:3: error: ports[1]: addresses is missing: a replay needs it",
	}
	if got := strings.Split(Errors(diags).Error(), "\n"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	c, diags := ParseReplay("r.yaml", []byte(text[:strings.Index(text, "- {name: b")]))
	if len(diags) > 0 || c.Ports[0].MTU != 1500 {
		t.Errorf("%v, MTU %d", diags, c.Ports[0].MTU)
	}
	if _, diags := Parse("r.yaml", []byte(text)); len(diags) != 1 || diags[0].Path != "ports[0]" {
		t.Errorf("what runs needs an interface: %v", diags)
	}
}
