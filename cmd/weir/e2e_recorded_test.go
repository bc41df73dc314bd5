package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

// record has tcpdump write what passes a device into a file, nanoseconds and all, until the function that it returns is called.
func record(t *testing.T, s *testnet.Space, dev, file string) (stop func()) {
	t.Helper()
	c, log := background(t, s, "tcpdump", "-Z", "root", "-U", "--immediate-mode", "--time-stamp-precision=nano", "-B", "32768", "-i", dev, "-w", file)
	eventually(t, 10*time.Second, "tcpdump listens", func() bool { return strings.Contains(log.String(), "listening on") })
	return func() {
		t.Helper()
		must(t, c.Process.Signal(syscall.SIGINT))
		_ = c.Wait()
		if !strings.Contains(log.String(), "\n0 packets dropped by kernel") {
			t.Skipf("tcpdump could not keep up: %s", log)
		}
	}
}

// recorded is a capture's frames in their order.
type recorded struct {
	infos  []gopacket.CaptureInfo
	frames [][]byte
}

func readCapture(t *testing.T, file string) (r recorded) {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	p, err := pcapgo.NewReader(f)
	must(t, err)
	for {
		b, info, err := p.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return r
		}
		must(t, err)
		r.infos, r.frames = append(r.infos, info), append(r.frames, b)
	}
}

// from is what a hardware address sent, or with not what others sent.
func (r recorded) from(mac string, not bool) (x recorded) {
	for i, f := range r.frames {
		if (fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", f[6], f[7], f[8], f[9], f[10], f[11]) == mac) != not {
			x.infos, x.frames = append(x.infos, r.infos[i]), append(x.frames, f)
		}
	}
	return x
}

// transport leaves out what is neither TCP nor UDP: the host's own.
func (r recorded) transport() (x recorded) {
	for i, f := range r.frames {
		if _, ok := segmentOf(f); ok {
			x.infos, x.frames = append(x.infos, r.infos[i]), append(x.frames, f)
		}
	}
	return x
}

func (r recorded) write(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	must(t, err)
	defer f.Close()
	w := pcapgo.NewWriterNanos(f)
	must(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	for i, b := range r.frames {
		must(t, w.WritePacket(r.infos[i], b))
	}
}

// TestReplayIsWhatHappened records real traffic on both sides of a running balancer and replays what the balancer received: the replay sends the same
// frames, byte for byte and in the same order, and counts the same.
func TestReplayIsWhatHappened(t *testing.T) {
	needs(t, "tcpdump", "nginx", "curl")
	b := newBed(t, options{})
	for i := range b.servers {
		root := b.nginx(i, 8000)
		must(t, os.WriteFile(filepath.Join(root, "page"), bytes.Repeat([]byte("0123456789abcdef"), 4096), 0o644))
		b.answerUDP(i, 5353, bytes.ToUpper)
	}
	services := func(weights ...int) string {
		web, dns := "port: 80, protocol: tcp, scheduler: wrr", "port: 53, protocol: udp, scheduler: rr"
		return "services:\n" + b.service(vip4, web, 8000, weights...) + b.service(vip6, web, 8000, weights...) +
			b.service(vip4, dns, 5353, weights...) + b.service(vip6, dns, 5353, weights...)
	}
	d := b.start(b.config(services(3, 2, 1)))
	file := func(name string) string { return filepath.Join(b.dir, name) }
	stopWAN, stopLAN := record(t, b.client, "eth0", file("client.pcap")), record(t, b.fabric, "lb", file("switch.pcap"))
	for range 6 {
		for _, f := range families {
			b.curl("-o", "/dev/null", "http://"+hostPort(f.vip, 80)+"/page")
			// The last ACK may still be on its way, from another core than the question's: a capture need not have both in the order in which they came.
			time.Sleep(10 * time.Millisecond)
			c, err := dial(b.client, "udp", hostPort(f.vip, 53))
			must(t, err)
			must(t, c.SetDeadline(time.Now().Add(dialLimit)))
			_, err = c.Write([]byte("question"))
			must(t, err)
			answer := make([]byte, 16)
			if n, err := c.Read(answer); err != nil || string(answer[:n]) != "QUESTION" {
				t.Errorf("%s: answer %q, %v", f.name, answer[:n], err)
			}
			c.Close()
		}
	}
	live := d.settled()
	stopWAN()
	stopLAN()
	client, lan := readCapture(t, file("client.pcap")), readCapture(t, file("switch.pcap"))
	client.from(clientMAC, false).write(t, file("wan.pcap"))
	lan.from(lanMAC, true).write(t, file("lan.pcap"))

	ports := fmt.Sprintf(`ports:
  - {name: wan, interface: wan, mac: %q, addresses: [%s/24, "%s/64"]}
  - {name: lan, interface: lan, mac: %q, addresses: [%s/24, "%s/64"]}
neighbors:
  - {address: %s, mac: %q, port: wan}
  - {address: %q, mac: %q, port: wan}
`, wanMAC, wan4, wan6, lanMAC, lan4, lan6, client4, clientMAC, client6, clientMAC)
	for i := range b.servers {
		ports += fmt.Sprintf("  - {address: %s, mac: %q, port: lan}\n  - {address: %q, mac: %q, port: lan}\n", server4(i), serverMAC(i), server6(i), serverMAC(i))
	}
	must(t, os.WriteFile(file("replay.yaml"), []byte(b.config(ports, services(3, 2, 1))), 0o644))
	replay := func(more ...string) (s control.Stats) {
		t.Helper()
		args := append([]string{"replay", "-c", file("replay.yaml"), "--in", "wan=" + file("wan.pcap"), "--in", "lan=" + file("lan.pcap"),
			"--out", "wan=" + file("wan.out.pcap"), "--out", "lan=" + file("lan.out.pcap"), "--counters", file("counters.json")}, more...)
		if r := command(t, exec.Command(weir(t), args...)); r.code != 0 {
			t.Fatalf("weir %q: %v", args, r)
		}
		text, err := os.ReadFile(file("counters.json"))
		must(t, err)
		must(t, json.Unmarshal(text, &s))
		return s
	}
	again := replay()
	for name, happened := range map[string]recorded{"wan": client.from(wanMAC, false), "lan": lan.from(lanMAC, false)} {
		want, got := happened.transport(), readCapture(t, file(name+".out.pcap"))
		if len(want.frames) < 100 || len(want.frames) != len(got.frames) {
			t.Errorf("%s: %d frames were sent, %d are in the replay", name, len(want.frames), len(got.frames))
			continue
		}
		for i := range want.frames {
			if !bytes.Equal(want.frames[i], got.frames[i]) {
				t.Errorf("%s: frame %d was\n%x, in the replay\n%x", name, i, want.frames[i], got.frames[i])
				break
			}
		}
	}
	if live.Verdicts != again.Verdicts {
		t.Errorf("verdicts were %+v, in the replay %+v", live.Verdicts, again.Verdicts)
	}
	for i, s := range again.Services {
		was := live.Services[i]
		if s.Traffic != was.Traffic || s.Conns != 6 {
			t.Errorf("service %s %s: counted %+v, in the replay %+v", was.Protocol, was.VIP, was.Traffic, s.Traffic)
		}
		for j := range s.Backends {
			if x, y := was.Backends[j], s.Backends[j]; x.Traffic != y.Traffic || x.Active != y.Active || x.Inactive != y.Inactive {
				t.Errorf("service %s %s: server %d was %+v, in the replay %+v", was.Protocol, was.VIP, j, x, y)
			}
		}
	}
	if v := again.Verdicts; v.Received != v.Forwarded+v.Answered+v.Punted+v.Consumed+v.Dropped+v.Held {
		t.Errorf("the counters do not add up: %+v", v)
	}

	// What if the first server alone had been there from the beginning? And from the last question on, which went to the third?
	alone := strings.NewReplacer("weight: 2", "weight: 0", "weight: 1", "weight: 0").Replace(b.config(ports, services(3, 2, 1)))
	must(t, os.WriteFile(file("alone.yaml"), []byte(alone), 0o644))
	sent, late := readCapture(t, file("wan.pcap")), time.Duration(0)
	first := sent.infos[0].Timestamp // of either side
	if x := readCapture(t, file("lan.pcap")).infos[0].Timestamp; x.Before(first) {
		first = x
	}
	for i, f := range sent.frames {
		if x, ok := segmentOf(f); ok && x.dst.Port() == 53 {
			late = sent.infos[i].Timestamp.Sub(first)
		}
	}
	for at, want := range map[time.Duration][3]uint64{0: {6, 0, 0}, late: {3, 2, 1}} {
		s := replay("--reload", fmt.Sprintf("%v=%s", at, file("alone.yaml")))
		for i, x := range s.Services[3].Backends {
			if x.Conns != want[i] {
				t.Errorf("with a reload after %v server %d has %d connections, want %d", at, i, x.Conns, want[i])
			}
		}
		if s.Generation != 2 {
			t.Errorf("generation %d", s.Generation)
		}
	}
}
