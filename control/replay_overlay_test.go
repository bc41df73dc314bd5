package control

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet/pkttest"
)

// update makes testdata/overlay anew: the inputs by the cases in replay_overlay_cases_test.go, the rest by what the engine makes of them. frames.txt
// and counters.json are to be read then as one reads code.
var update = flag.Bool("update", false, "write testdata/overlay instead of comparing with it")

// Ports of testdata/overlay/weir.yaml.
var overlayPorts = []string{"wan", "under", "acc", "trunk"}

// onPort is a frame that comes to a port.
type onPort struct {
	port  string
	at    time.Duration
	frame []byte
}

// TestReplayOverlay replays each directory of testdata/overlay: in.PORT.pcap gives out.PORT.pcap, byte for byte, and counters.json; frames.txt is
// what gopacket reads in the outputs.
func TestReplayOverlay(t *testing.T) {
	root := filepath.Join("testdata", "overlay")
	for _, x := range overlayCases() {
		t.Run(x.name, func(t *testing.T) {
			dir := filepath.Join(root, x.name)
			if *update {
				writeInputs(t, dir, x.frames)
			}
			o := ReplayOptions{Config: filepath.Join(root, "weir.yaml"), Counters: filepath.Join(t.TempDir(), "counters.json"), Stderr: os.Stderr}
			outputs := t.TempDir()
			for _, port := range overlayPorts {
				if in := filepath.Join(dir, "in."+port+".pcap"); exists(in) {
					o.In = append(o.In, PortFile{port, in})
				}
				o.Out = append(o.Out, PortFile{port, filepath.Join(outputs, port)})
			}
			if err := Replay(o); err != nil {
				t.Fatal(err)
			}
			var lines strings.Builder
			for _, out := range o.Out {
				frames := readCapture(t, out.File)
				for _, f := range frames {
					fmt.Fprintf(&lines, "%-5s %v %s\n", out.Port, f.at, describe(t, f.frame))
				}
				b, err := os.ReadFile(out.File)
				if err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join(dir, "out."+out.Port+".pcap")
				if len(frames) > 0 {
					compareGolden(t, golden, b)
					if *update {
						tsharkObjects(t, golden)
					}
				} else if exists(golden) {
					t.Errorf("nothing leaves by %s", out.Port)
				}
			}
			compareGolden(t, filepath.Join(dir, "frames.txt"), []byte(lines.String()))
			compareGolden(t, filepath.Join(dir, "counters.json"), summary(t, o.Counters))
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func writeInputs(t *testing.T, dir string, frames []onPort) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, port := range overlayPorts {
		var all []frameAt
		for _, f := range frames {
			if f.port == port {
				all = append(all, frameAt{f.at, f.frame})
			}
		}
		if len(all) > 0 {
			writeCapture(t, filepath.Join(dir, "in."+port+".pcap"), all...)
		}
	}
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		if strings.HasSuffix(path, ".pcap") {
			t.Errorf("%s: other bytes (frames.txt says which, or if none: look at the captures)", path)
			return
		}
		t.Errorf("%s:\n%s\nwant:\n%s", path, got, want)
	}
}

// summary is of the counters what is not zero.
func summary(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	var s Stats
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range s.Drops {
		if n == 0 {
			delete(s.Drops, name)
		}
	}
	s.Ports, s.Services = nil, nil
	if b, err = json.MarshalIndent(s, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// describe is a frame in one line: what is around it, if it goes through a tunnel, and what it is. Every length and checksum is verified by
// pkttest, those inside as well.
func describe(t *testing.T, frame []byte) string {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	if e := p.ErrorLayer(); e != nil && !strings.HasSuffix(e.Error().Error(), fmt.Sprint(" EthernetType ", probeType)) {
		t.Errorf("gopacket: %v in % x", e.Error(), frame)
	}
	e := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	line, payload, etherType := fmt.Sprintf("%v > %v", e.SrcMAC, e.DstMAC), e.LayerPayload(), e.EthernetType
	if tag, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); ok {
		line += fmt.Sprintf(" vlan %d", tag.VLANIdentifier)
		payload, etherType = tag.LayerPayload(), tag.Type
	}
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok && p.Layer(layers.LayerTypeVXLAN) == nil {
		return line + fmt.Sprintf(" ARP %d %v %s > %v %s", arp.Operation, mac(arp.SourceHwAddress), addr(arp.SourceProtAddress), mac(arp.DstHwAddress), addr(arp.DstProtAddress))
	}
	if p.NetworkLayer() == nil {
		return line + fmt.Sprintf(" type %#04x %d bytes", uint16(etherType), len(payload))
	}
	if x, ok := p.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN); ok {
		if err := pkttest.Verify(payload); err != nil {
			t.Errorf("outer packet: %v in % x", err, frame)
		}
		udp := p.TransportLayer().(*layers.UDP)
		if !x.ValidIDFlag || x.GBPExtension || udp.SrcPort < 49152 {
			t.Errorf("a VXLAN header that is none of ours: %+v, from port %d", x, udp.SrcPort)
		}
		return line + fmt.Sprintf(" %v.%d > %v.%d vni %d | ", p.NetworkLayer().NetworkFlow().Src(), udp.SrcPort, p.NetworkLayer().NetworkFlow().Dst(), udp.DstPort, x.VNI) +
			describe(t, x.LayerPayload())
	}
	if err := pkttest.Verify(payload); err != nil {
		t.Errorf("%v in % x", err, frame)
	}
	line += " " + pkttest.String(payload)
	if tcp, ok := p.TransportLayer().(*layers.TCP); ok {
		for _, o := range tcp.Options {
			if o.OptionType == layers.TCPOptionKindMSS {
				line += fmt.Sprintf(" mss %d", binary.BigEndian.Uint16(o.OptionData))
			}
		}
	}
	return line
}

func mac(b []byte) string { return fmt.Sprintf("%x", b) }

func addr(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

// tsharkObjects has tshark look for malformed frames and wrong checksums. What it let pass once need not be asked about again: the same
// bytes are all that the test accepts.
func tsharkObjects(t *testing.T, file string) {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Fatal("tshark must judge what is new: ", err)
	}
	// Of a quoted packet it would want the whole for its transport checksum.
	out, err := exec.Command(tshark, "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-Y", "_ws.malformed || ip.checksum.status==0 || icmp.checksum.status==0 || icmpv6.checksum.status==0 || "+
			"!icmp && !icmpv6 && (tcp.checksum.status==0 || udp.checksum.status==0)").CombinedOutput()
	lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(s string) bool { return s == "" || strings.HasPrefix(s, "Running as user") })
	if err != nil || len(lines) > 0 {
		t.Errorf("tshark objects to %s: %v\n%s", file, err, strings.Join(lines, "\n"))
	}
}
