package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"weir/dataplane/packet/pkttest"
)

// frameAt is a frame of a capture and its time.
type frameAt struct {
	at    time.Duration
	frame []byte
}

var captureStart = time.Unix(1_700_000_000, 123_456_789)

func writeCapture(t *testing.T, path string, frames ...frameAt) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriterNanos(f)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, x := range frames {
		info := gopacket.CaptureInfo{Timestamp: captureStart.Add(x.at), CaptureLength: len(x.frame), Length: len(x.frame)}
		if err := w.WritePacket(info, x.frame); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func readCapture(t *testing.T, path string) (frames []frameAt) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, info, err := r.ReadPacketData()
		if err != nil {
			return frames
		}
		frames = append(frames, frameAt{info.Timestamp.Sub(captureStart), b})
	}
}

// replayBed is a directory with a configuration and a capture of three clients that open a connection each.
type replayBed struct {
	dir string
	o   ReplayOptions
}

func syn(port uint16) []byte {
	client := netip.AddrPortFrom(netip.MustParseAddr("198.18.0.2"), port)
	return pkttest.TCP(client, netip.MustParseAddrPort("198.18.9.9:80")).SYN().Frame(pkttest.MAC("02:00:00:00:00:01"), pkttest.MAC("02:00:00:00:01:01"))
}

func newReplayBed(t *testing.T, frames ...frameAt) *replayBed {
	t.Helper()
	b := &replayBed{dir: t.TempDir()}
	b.o = ReplayOptions{
		Config:   b.write(t, "weir.yaml", coreHead+web("10 1", "11 1")),
		In:       []PortFile{{"wan", writeCapture(t, filepath.Join(b.dir, "in.pcap"), frames...)}},
		Out:      []PortFile{{"wan", filepath.Join(b.dir, "wan.pcap")}, {"lan", filepath.Join(b.dir, "lan.pcap")}},
		Counters: filepath.Join(b.dir, "counters.json"),
	}
	return b
}

func (b *replayBed) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (b *replayBed) counters(t *testing.T) (s Stats) {
	t.Helper()
	text, err := os.ReadFile(b.o.Counters)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReplay(t *testing.T) {
	arp := pkttest.Ethernet(make([]byte, 28), pkttest.MAC("02:00:00:00:00:01"), pkttest.MAC("ff:ff:ff:ff:ff:ff"), 0x0806)
	b := newReplayBed(t, frameAt{0, syn(1)}, frameAt{time.Millisecond, syn(2)}, frameAt{time.Millisecond, arp}, frameAt{2500 * time.Millisecond, syn(3)})
	if err := Replay(b.o); err != nil {
		t.Fatal(err)
	}
	out := readCapture(t, b.o.Out[1].File)
	var hosts []byte
	var times []time.Duration
	for _, x := range out {
		hosts, times = append(hosts, x.frame[33]), append(times, x.at)
	}
	if !bytes.Equal(hosts, []byte{10, 11, 10}) || times[0] != 0 || times[1] != time.Millisecond || times[2] != 2500*time.Millisecond {
		t.Errorf("went to %v at %v", hosts, times)
	}
	s := b.counters(t)
	if s.Verdicts.Received != 3 || s.Verdicts.Forwarded != 3 || s.Passed != 1 || s.Services[0].Conns != 3 || s.Ports[1].Sent != 3 {
		t.Errorf("counters: %+v", s)
	}
	first, err := os.ReadFile(b.o.Out[1].File)
	if err != nil {
		t.Fatal(err)
	}
	if err := Replay(b.o); err != nil {
		t.Fatal(err)
	}
	if second, _ := os.ReadFile(b.o.Out[1].File); !bytes.Equal(first, second) {
		t.Error("the same input gave other bytes")
	}
}

func TestReplayReloads(t *testing.T) {
	b := newReplayBed(t, frameAt{0, syn(1)}, frameAt{time.Second, syn(2)}, frameAt{2 * time.Second, syn(3)})
	b.o.Reloads = []TimedReload{
		{2 * time.Second, b.write(t, "broken.yaml", coreHead+"  - {name: web, vip: 198.18.9.9, port: 80, scheduler: wlx, backends: []}\n")},
		{time.Second, b.write(t, "only11.yaml", coreHead+web("11 1"))},
	}
	var stderr strings.Builder
	b.o.Stderr = &stderr
	err := Replay(b.o)
	var refused *RefusedReload
	if !errors.As(err, &refused) || refused.At != 2*time.Second {
		t.Errorf("the broken reload gave %v", err)
	}
	if !strings.Contains(stderr.String(), `broken.yaml:12:55: error: services[0].scheduler`) || !strings.Contains(stderr.String(), `"wlx"`) {
		t.Errorf("diagnostics: %s", stderr.String())
	}
	var hosts []byte
	for _, x := range readCapture(t, b.o.Out[1].File) {
		hosts = append(hosts, x.frame[33])
	}
	if !bytes.Equal(hosts, []byte{10, 11, 11}) { // a reload comes before the frames of its instant
		t.Errorf("went to %v", hosts)
	}
}

func TestReplayWaitsForNeighbors(t *testing.T) {
	b := newReplayBed(t, frameAt{0, syn(1)}, frameAt{3 * time.Second, syn(2)})
	head := strings.Replace(coreHead, `  - {address: 198.18.1.10, mac: "02:00:00:00:00:10", port: lan}`+"\n", "", 1)
	b.write(t, "weir.yaml", head+web("10 1", "11 1"))
	if err := Replay(b.o); err != nil {
		t.Fatal(err)
	}
	s := b.counters(t)
	if s.Drops["no_neighbor"] != 1 || s.Verdicts.Forwarded != 1 || s.Verdicts.Held != 0 {
		t.Errorf("counters: %+v %v", s.Verdicts, s.Drops)
	}
}

func TestReplayRefuses(t *testing.T) {
	b := newReplayBed(t, frameAt{0, syn(1)})
	t.Run("an invalid configuration", func(t *testing.T) {
		o := b.o
		o.Config = b.write(t, "bad.yaml", "version: 2\n")
		if err := Replay(o); !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one that is not there", func(t *testing.T) {
		o := b.o
		o.Config = filepath.Join(b.dir, "none.yaml")
		if err := Replay(o); !errors.Is(err, ErrUnreadable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a port that is not there", func(t *testing.T) {
		o := b.o
		o.In = []PortFile{{"dmz", o.In[0].File}}
		if err := Replay(o); err == nil || !strings.Contains(err.Error(), "dmz") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a cut-off capture, after the frames before the cut", func(t *testing.T) {
		o := b.o
		whole, err := os.ReadFile(o.In[0].File)
		if err != nil {
			t.Fatal(err)
		}
		o.In = []PortFile{{"wan", b.write(t, "cut.pcap", string(append(whole, whole[24:60]...)))}}
		if err := Replay(o); err == nil || !strings.Contains(err.Error(), "cut.pcap") {
			t.Errorf("got %v", err)
		}
		if n := len(readCapture(t, o.Out[1].File)); n != 1 {
			t.Errorf("%d frames came out", n)
		}
	})
}

// TestReplayAdopts replays an open segment: what a VTEP that is no peer sends to the group makes it one, so that its station is known from the
// second frame on.
func TestReplayAdopts(t *testing.T) {
	mac := pkttest.MAC
	station, local, all := mac("02:00:00:00:0a:07"), mac("02:00:00:00:0b:08"), mac("ff:ff:ff:ff:ff:ff")
	inner := pkttest.Ethernet(make([]byte, 46), station, all, 0x88b5)
	vtep, group := netip.MustParseAddrPort("198.18.0.2:50000"), netip.MustParseAddrPort("239.1.1.1:8472")
	flood := pkttest.UDP(vtep, group).Payload(append([]byte{8, 0, 0, 0, 0, 0x13, 0x89, 0}, inner...)).Frame(mac("02:00:00:00:00:01"), mac("01:00:5e:01:01:01"))
	to := pkttest.Ethernet(make([]byte, 46), local, station, 0x88b5, 30)
	b := newReplayBed(t, frameAt{0, flood}, frameAt{2 * time.Second, flood})
	b.write(t, "weir.yaml", coreHead+web("10 1")+`vxlan:
  segments:
    - {vni: 5001, vtep: 198.18.0.1, port: 8472, group: 239.1.1.1, group_interface: wan, access: [{port: lan, vlan: 30}]}
`)
	b.o.In = append(b.o.In, PortFile{"lan", writeCapture(t, filepath.Join(b.dir, "lan-in.pcap"), frameAt{time.Second, to}, frameAt{3 * time.Second, to})})
	if err := Replay(b.o); err != nil {
		t.Fatal(err)
	}
	if out := readCapture(t, b.o.Out[1].File); len(out) != 2 || !bytes.Equal(out[0].frame, append(append(append([]byte(nil), inner[:12]...), 0x81, 0, 0, 30), inner[12:]...)) {
		t.Errorf("the access port got %v", out)
	}
	out := readCapture(t, b.o.Out[0].File)
	if len(out) != 2 {
		t.Fatalf("%d frames left by the underlay, want 2: %+v", len(out), b.counters(t))
	}
	for i, want := range []struct {
		mac []byte
		ip  string
	}{{mac("01:00:5e:01:01:01"), "239.1.1.1"}, {mac("02:00:00:00:00:01"), "198.18.0.2"}} {
		if f := out[i].frame; !bytes.Equal(f[:6], want.mac) || netip.AddrFrom4([4]byte(f[30:])).String() != want.ip {
			t.Errorf("frame %d went to % x, %v; want % x, %s", i, f[:6], netip.AddrFrom4([4]byte(f[30:])), want.mac, want.ip)
		}
	}
}
