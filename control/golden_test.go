package control

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/conntrack"
	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// golden is a recording of what the kernel's IPVS did (testdata/golden/README.md).
type golden struct {
	Name     string          `json:"name"`
	Options  map[string]int  `json:"options"`
	MTU      map[string]int  `json:"mtu"`
	Services []goldenService `json:"services"`
	Steps    []goldenStep    `json:"steps"`
}

type goldenService struct {
	VIP         string          `json:"vip"`
	Port        int             `json:"port"`
	Protocol    string          `json:"protocol"`
	Flags       []string        `json:"flags"`
	Scheduler   string          `json:"scheduler"`
	OnePacket   bool            `json:"one_packet"`
	Persistence json.RawMessage `json:"persistence"`
	Backends    []goldenBackend `json:"backends"`
}

type goldenBackend struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
	Weight  int    `json:"weight"`
	Forward string `json:"forward"`
	Upper   int    `json:"upper_threshold"`
	Lower   int    `json:"lower_threshold"`
}

type goldenStep struct {
	Send   string         `json:"send"`
	Packet string         `json:"packet"`
	Expect []goldenPacket `json:"expect"`
	Edit   *goldenEdit    `json:"edit"`
	WaitS  float64        `json:"wait_s"`
}

type goldenPacket struct {
	Side   string `json:"side"`
	Packet string `json:"packet"`
	Exact  bool   `json:"exact"`
}

type goldenEdit struct {
	AddService      *goldenService `json:"add_service"`
	RemoveService   *goldenService `json:"remove_service"`
	AddBackendFirst *goldenBackend `json:"add_backend_first"`
	RemoveBackend   *goldenBackend `json:"remove_backend"`
	EditBackend     *goldenBackend `json:"edit_backend"`
	Service         *goldenService `json:"service"`
}

// departures are the steps, counted from 0, in which weir does something else on purpose; docs/ipvs.md argues each. A later step
// that only follows from one is named, too. The string is what must come out instead: what it says the engine counts, or an answer.
var departures = map[string]map[int]string{
	// A TCP data offset below 5 is malformed; the kernel forwards it.
	"malformed-ip": {5: "tcp_offset"},
	// SYN+ACK, SYN+FIN and SYN+RST from a client open no connection; segments after them find none either.
	"tcp-not-syn-without-connection-v4": {5: "answered", 6: "tcp_flags", 7: "no_connection", 8: "answered"},
	"tcp-not-syn-without-connection-v6": {5: "answered", 6: "tcp_flags", 7: "no_connection", 8: "answered"},
	// An ICMPv6 unreachable from a server is translated as its IPv4 twin is; this kernel swallows it.
	"icmp6-unreachable-from-server-side": {3: "forwarded"},
}

// pending reports the feature of later work that a recording needs, or "".
func (g *golden) pending() string {
	for _, s := range g.Services {
		switch {
		case s.Protocol == "sctp":
			return "sctp"
		case s.OnePacket:
			return "one_packet"
		case len(s.Persistence) > 0 && string(s.Persistence) != "null":
			return "persistence"
		}
		if !built(s.Scheduler) {
			return "scheduler " + s.Scheduler
		}
		for _, b := range s.Backends {
			if b.Forward != "nat" {
				return "forward " + b.Forward
			}
		}
	}
	return ""
}

func built(scheduler string) bool {
	for _, s := range supported().Schedulers {
		if s == scheduler {
			return true
		}
	}
	return false
}

// TestGolden plays every recording into the engine and compares what comes out, packet by packet. WEIR_GOLDEN names another directory of
// the same format.
func TestGolden(t *testing.T) {
	dir := os.Getenv("WEIR_GOLDEN")
	if dir == "" {
		dir = filepath.Join("..", "testdata", "golden")
	}
	var files []string
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".json") {
			files = append(files, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no recordings in %s", dir)
	}
	waiting := map[string]int{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var g golden
		if err := json.Unmarshal(b, &g); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if p := g.pending(); p != "" {
			waiting[p]++
			continue
		}
		t.Run(g.Name, func(t *testing.T) { newGoldenBed(t, &g).play() })
	}
	for feature, n := range waiting {
		t.Logf("pending: %d recordings need %s", n, feature)
	}
}

// goldenBed is the engine between the two links of the recording.
type goldenBed struct {
	t      *testing.T
	g      *golden
	core   *core
	worker *dataplane.Worker
	ports  [2]*mem.Port
	now    int64

	came, due []goldenPacket // of a file about fragments, over all its steps
}

const (
	clientSide = 0
	serverSide = 1
)

var goldenMACs = [2][2]string{{"02:00:00:00:01:0c", "02:00:00:00:00:0c"}, {"02:00:00:00:01:05", "02:00:00:00:00:05"}} // ours, theirs

func newGoldenBed(t *testing.T, g *golden) *goldenBed {
	table, err := conntrack.New(conntrack.Options{Capacity: 4096, Workers: 1, Secret: [2]uint64{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	b := &goldenBed{t: t, g: g, core: newCore(table, 1, 1), now: 1e15}
	b.core.engine.HostAnswers = true
	b.apply()
	b.worker, b.ports = attach(t, b.core)
	return b
}

// yaml is the recording's configuration as weir's. The way through YAML makes every edit a reload.
func (b *goldenBed) yaml() string {
	var s strings.Builder
	fmt.Fprintf(&s, `version: 1
ports:
  - {name: client, driver: mem, mac: "%s", addresses: [198.18.0.1/24, "2001:db8::1/64"], mtu: %d}
  - {name: server, driver: mem, mac: "%s", addresses: [198.18.1.1/24, "2001:db8:1::1/64"], mtu: %d}
routes:
  - {to: 198.18.128.0/17, via: 198.18.0.2}
  - {to: "2001:db8:c::/48", via: "2001:db8::2"}
neighbors:
  - {address: 198.18.0.2, mac: "%[5]s", port: client}
  - {address: "2001:db8::2", mac: "%[5]s", port: client}
`, goldenMACs[0][0], b.mtu("client"), goldenMACs[1][0], b.mtu("server"), goldenMACs[0][1])
	for i := range 10 {
		fmt.Fprintf(&s, "  - {address: 198.18.1.%d, mac: \"%s\", port: server}\n", 10+i, goldenMACs[1][1])
		fmt.Fprintf(&s, "  - {address: \"2001:db8:1::%d\", mac: \"%s\", port: server}\n", 10+i, goldenMACs[1][1])
	}
	fmt.Fprintf(&s, "conntrack: {max_connections: 4096, sloppy_tcp: %t, expire_nodest_conn: %t}\n", b.g.Options["sloppy_tcp"] == 1, b.g.Options["expire_nodest_conn"] == 1)
	s.WriteString("services:\n")
	for _, v := range b.g.Services {
		fmt.Fprintf(&s, "  - vip: \"%s\"\n    port: %d\n    protocol: %s\n    scheduler: %s\n    flags: [%s]\n    backends:\n", v.VIP, v.Port, v.Protocol, v.Scheduler, strings.Join(v.Flags, ", "))
		if len(v.Backends) == 0 {
			s.WriteString("      []\n")
		}
		for _, x := range v.Backends {
			fmt.Fprintf(&s, "      - {address: \"%s\", port: %d, weight: %d, upper_threshold: %d, lower_threshold: %d}\n", x.Address, x.Port, x.Weight, x.Upper, x.Lower)
		}
	}
	return s.String()
}

func (b *goldenBed) mtu(side string) int {
	if n := b.g.MTU[side]; n != 0 {
		return n
	}
	return 1500
}

// apply puts the configuration as it is now in force.
func (b *goldenBed) apply() {
	b.t.Helper()
	text := b.yaml()
	cfg, diags := config.ParseReplay("golden.yaml", []byte(text))
	for _, d := range diags {
		if d.Severity == config.Error {
			b.t.Fatalf("%v\n%s", d, text)
		}
	}
	s, err := offline(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.core.mu.Lock()
	defer b.core.mu.Unlock()
	x, err := b.core.prepare(cfg, s)
	if err == nil {
		err = b.core.publish(cfg, x, time.Unix(0, b.now))
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *goldenBed) play() {
	for i := range b.g.Steps {
		s := &b.g.Steps[i]
		b.now += 10e6
		switch {
		case s.Edit != nil:
			b.edit(s.Edit)
			b.touch(s.Edit)
			b.apply()
		case s.WaitS > 0:
			b.now += int64(s.WaitS * 1e9)
			b.worker.ExpireAll(b.now)
		default:
			b.send(i, s)
		}
		if b.t.Failed() {
			return // what follows would only follow from it
		}
	}
	if len(b.came) != len(b.due) {
		b.t.Fatalf("%d fragments came out, want %d", len(b.came), len(b.due))
	}
	for i, want := range b.due {
		if b.came[i].Side != want.Side || b.came[i].Packet != want.Packet {
			b.t.Errorf("fragment %d:\n got %v\nwant %v", i, b.came[i], want)
		}
	}
}

// send plays one packet and compares.
func (b *goldenBed) send(i int, s *goldenStep) {
	side := sideOf(s.Send)
	ip := unhex(b.t, s.Packet)
	b.worker.ExpireAll(b.now)
	before, beforeDrops := b.core.engine.Verdicts()
	if !b.ports[side].Inject(pkttest.Frame(ip, pkttest.MAC(goldenMACs[side][1]), pkttest.MAC(goldenMACs[side][0]))) {
		b.t.Fatalf("step %d: the port takes no frame", i)
	}
	b.worker.Round(b.now)
	after, afterDrops := b.core.engine.Verdicts()
	var got []goldenPacket
	for port, name := range []string{"client", "server"} {
		buf := make([]byte, 4096)
		for {
			n, ok := b.ports[port].Take(buf)
			if !ok {
				break
			}
			pkt := bytes.Clone(buf[14:n])
			if err := verify(pkt, ip); err != nil {
				b.t.Errorf("step %d: %s: %v", i, pkttest.String(pkt), err)
			}
			got = append(got, goldenPacket{Side: name, Packet: hex.EncodeToString(pkt)})
		}
	}
	if strings.HasPrefix(b.g.Name, "fragment") {
		// The kernel gathers fragments before it forwards, weir forwards each at once: only all that came out together can be compared.
		b.came, b.due = append(b.came, got...), append(b.due, s.Expect...)
		return
	}
	b.compare(i, s, ip, got, before, after, beforeDrops, afterDrops)
}

// compare holds what came out against what must.
func (b *goldenBed) compare(i int, s *goldenStep, ip []byte, got []goldenPacket, before, after dataplane.Verdicts, beforeDrops, afterDrops [dataplane.NumDrops]uint64) {
	if want, ok := departures[b.g.Name][i]; ok {
		b.departs(i, want, before, after, beforeDrops, afterDrops)
		return
	}
	for _, want := range s.Expect {
		w := unhex(b.t, want.Packet)
		if len(got) == 0 && routedOn(ip, w) {
			continue // no service's, merely routed on: the kernel's business, which gets it back
		}
		if len(got) == 0 {
			b.t.Errorf("step %d: %s:\n nothing came out (%s)\n want %s", i, pkttest.String(ip), counted(before, after, beforeDrops, afterDrops), pkttest.String(w))
			return
		}
		g := unhex(b.t, got[0].Packet)
		if err := same(g, w, want.Exact); err != nil || got[0].Side != want.Side {
			b.t.Errorf("step %d: %s: %v\n got %s: %s\n     %x\nwant %s: %s\n     %x", i, pkttest.String(ip), err, got[0].Side, pkttest.String(g), g, want.Side, pkttest.String(w), w)
		}
		got = got[1:]
	}
	for _, extra := range got {
		b.t.Errorf("step %d: %s:\n came out in addition: %s %s", i, pkttest.String(ip), extra.Side, pkttest.String(unhex(b.t, extra.Packet)))
	}
}

// departs checks that the engine does what the departure says.
func (b *goldenBed) departs(i int, want string, before, after dataplane.Verdicts, beforeDrops, afterDrops [dataplane.NumDrops]uint64) {
	b.t.Helper()
	if got := counted(before, after, beforeDrops, afterDrops); got != want {
		b.t.Errorf("step %d: a departure that should be counted as %s was counted as %s", i, want, got)
	}
}

// counted is the verdict, or for a drop its reason, that one packet got.
func counted(before, after dataplane.Verdicts, beforeDrops, afterDrops [dataplane.NumDrops]uint64) string {
	for d := range afterDrops {
		if afterDrops[d] > beforeDrops[d] {
			return dataplane.Drop(d).String()
		}
	}
	switch {
	case after.Forwarded > before.Forwarded:
		return "forwarded"
	case after.Answered > before.Answered:
		return "answered"
	case after.Punted > before.Punted:
		return "punted"
	case after.Held > before.Held:
		return "held"
	}
	return "passed"
}

// verify checks lengths and checksums of what came out. A packet that came in with a wrong transport checksum must leave with a wrong one.
func verify(out, in []byte) error {
	err := pkttest.Verify(out)
	if pkttest.Verify(in) == nil {
		return err
	}
	return nil
}

// same compares as the README of the recordings says.
func same(got, want []byte, exact bool) error {
	if exact {
		if !bytes.Equal(got, want) {
			return fmt.Errorf("bytes differ")
		}
		return nil
	}
	g, w := headersOf(got), headersOf(want)
	if g.src != w.src || g.dst != w.dst || g.proto != w.proto {
		return fmt.Errorf("addresses or protocol differ")
	}
	switch g.proto {
	case packet.ProtoTCP:
		if !bytes.Equal(g.payload[:14], w.payload[:14]) { // ports, seq, ack, offset and flags
			return fmt.Errorf("TCP headers differ")
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if g.payload[0] != w.payload[0] || g.payload[1] != w.payload[1] || !bytes.Equal(g.payload[4:8], w.payload[4:8]) {
			return fmt.Errorf("ICMP type, code or rest differ")
		}
		isError := g.proto == packet.ProtoICMP && g.payload[0] != 0 && g.payload[0] != 8 || g.proto == packet.ProtoICMPv6 && g.payload[0] < 128
		if !isError {
			if !bytes.Equal(g.payload[8:], w.payload[8:]) {
				return fmt.Errorf("echo data differ")
			}
			return nil
		}
		limit := 576
		if g.proto == packet.ProtoICMPv6 {
			limit = 1280
		}
		if len(got) > limit {
			return fmt.Errorf("%d bytes, more than %d", len(got), limit)
		}
		return sameQuote(g.payload[8:], w.payload[8:])
	}
	return nil
}

// sameQuote compares quoted headers and 8 bytes behind them, TTL and checksum aside.
func sameQuote(got, want []byte) error {
	n := 48
	if want[0]>>4 == 4 {
		n = int(want[0]&15)*4 + 8
	}
	if len(got) < n {
		return fmt.Errorf("only %d bytes are quoted", len(got))
	}
	g, w := bytes.Clone(got[:n]), bytes.Clone(want[:n])
	if want[0]>>4 == 4 {
		g[8], w[8] = 0, 0
		copy(g[10:12], w[10:12])
	} else {
		g[7], w[7] = 0, 0
	}
	if !bytes.Equal(g, w) {
		return fmt.Errorf("quotes differ:\n %x\n %x", g, w)
	}
	return nil
}

type ipHeaders struct {
	src, dst netip.Addr
	proto    uint8
	payload  []byte
}

func headersOf(ip []byte) (h ipHeaders) {
	if ip[0]>>4 == 4 {
		h.src, _ = netip.AddrFromSlice(ip[12:16])
		h.dst, _ = netip.AddrFromSlice(ip[16:20])
		h.proto, h.payload = ip[9], ip[int(ip[0]&15)*4:]
		return h
	}
	h.src, _ = netip.AddrFromSlice(ip[8:24])
	h.dst, _ = netip.AddrFromSlice(ip[24:40])
	h.proto, h.payload = ip[6], ip[40:]
	return h
}

// routedOn reports whether out is in after one hop of plain routing.
func routedOn(in, out []byte) bool {
	if len(in) != len(out) {
		return false
	}
	in = bytes.Clone(in)
	if in[0]>>4 == 6 {
		in[7]--
		return bytes.Equal(in, out)
	}
	in[8]--
	binary.BigEndian.PutUint16(in[10:], packet.Update16(binary.BigEndian.Uint16(in[10:]), 0x0100, 0))
	return bytes.Equal(in, out)
}

func (b *goldenBed) edit(e *goldenEdit) {
	if e.AddService != nil {
		b.g.Services = append(b.g.Services, *e.AddService)
		return
	}
	if e.RemoveService != nil {
		e.Service = e.RemoveService
	}
	for i := range b.g.Services {
		s := &b.g.Services[i]
		if s.VIP != e.Service.VIP || s.Port != e.Service.Port || s.Protocol != e.Service.Protocol {
			continue
		}
		switch {
		case e.RemoveService != nil:
			b.g.Services = append(b.g.Services[:i], b.g.Services[i+1:]...)
		case e.AddBackendFirst != nil:
			s.Backends = append([]goldenBackend{*e.AddBackendFirst}, s.Backends...)
		default:
			for j := range s.Backends {
				x := &s.Backends[j]
				if e.RemoveBackend != nil && x.Address == e.RemoveBackend.Address && x.Port == e.RemoveBackend.Port {
					s.Backends = append(s.Backends[:j], s.Backends[j+1:]...)
					return
				}
				if e.EditBackend != nil && x.Address == e.EditBackend.Address && x.Port == e.EditBackend.Port {
					*x = *e.EditBackend
					return
				}
			}
			b.t.Fatalf("an edit names no backend there is")
		}
		return
	}
	b.t.Fatalf("an edit names no service there is")
}

// touch makes the service's plan anew even if the edit changes nothing: the kernel's scheduler starts over at an edit that sets a weight
// to what it is. A reload has no such edit: what is unchanged keeps its position.
func (b *goldenBed) touch(e *goldenEdit) {
	if e.EditBackend == nil {
		return
	}
	for key, s := range b.core.reg.services {
		if key.vip.String() == e.Service.VIP && int(key.port) == e.Service.Port && protocolName(key.protocol) == e.Service.Protocol {
			s.inputs.dests = ""
		}
	}
}

func sideOf(name string) int {
	if name == "server" {
		return serverSide
	}
	return clientSide
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
