package sched

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// goldenDirs hold what kernel IPVS decided, recorded packet by packet; the README of the first describes the format. The second has
// what only this package plays: lblc and lblcr, one of it with a shorter lblcr_expiration, and dh over many addresses.
var goldenDirs = []string{"../../testdata/golden/ipvs/schedulers", "testdata/golden"}

type goldenFile struct {
	Name     string
	Source   string
	Options  map[string]int
	Services []goldenService
	Steps    []goldenStep
}

type goldenIdentity struct {
	VIP      netip.Addr
	Port     uint16
	Protocol string
}

type goldenService struct {
	goldenIdentity
	Scheduler   string
	Flags       []string
	OnePacket   bool            `json:"one_packet"`
	Persistence json.RawMessage // null: none
	Backends    []goldenBackend
}

type goldenBackend struct {
	Address netip.Addr
	Port    uint16
	Weight  int32
	Forward string
	Upper   uint32 `json:"upper_threshold"`
	Lower   uint32 `json:"lower_threshold"`
}

type goldenStep struct {
	Send   string
	Packet goldenPacket
	Expect []struct {
		Side   string
		Packet goldenPacket
	}
	Wait float64                    `json:"wait_s"`
	Edit map[string]json.RawMessage // service, and what is done to it
}

// goldenPacket is a packet from its IP header on, as gopacket understands it.
type goldenPacket struct {
	v6       bool
	protocol string
	src, dst netip.AddrPort
	tcp      *layers.TCP
}

func (p *goldenPacket) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return err
	}
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if len(b) > 0 && b[0]>>4 == 6 {
		first, p.v6 = layers.LayerTypeIPv6, true
	}
	d := gopacket.NewPacket(b, first, gopacket.NoCopy)
	if d.NetworkLayer() == nil {
		return fmt.Errorf("no IP packet: %s", text)
	}
	flow := d.NetworkLayer().NetworkFlow()
	src, _ := netip.AddrFromSlice(flow.Src().Raw())
	dst, _ := netip.AddrFromSlice(flow.Dst().Raw())
	var sport, dport uint16
	switch l := d.TransportLayer().(type) {
	case *layers.TCP:
		p.protocol, p.tcp, sport, dport = "tcp", l, uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.UDP:
		p.protocol, sport, dport = "udp", uint16(l.SrcPort), uint16(l.DstPort)
	}
	p.src, p.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return nil
}

// pending is the reason why a file cannot be replayed here, if there is one.
func (f *goldenFile) pending() string {
	for o := range f.Options {
		if o != "sloppy_tcp" && o != "lblcr_expiration" {
			return "the model has no option " + o
		}
	}
	for _, s := range f.Services {
		if !slices.Contains(Names(), s.Scheduler) {
			return "scheduler " + s.Scheduler + " is not built yet"
		}
		if string(s.Persistence) != "null" && s.Persistence != nil {
			return "persistence is not built yet"
		}
		if s.Protocol != "tcp" && s.Protocol != "udp" {
			return "the model does not know " + s.Protocol
		}
		for _, b := range s.Backends {
			if b.Forward != "nat" {
				return "forwarding by " + b.Forward + " hides the backend's port"
			}
		}
	}
	return ""
}

// TestDecisionsEqualTheKernels replays what was recorded from kernel IPVS: connections that open, are established by their server's answer or
// not, and close, and weights that are edited between them. Every backend chosen must be the one that the kernel chose. WEIR_GOLDEN names
// another directory of such files.
func TestDecisionsEqualTheKernels(t *testing.T) {
	dirs := goldenDirs
	dir, elsewhere := os.LookupEnv("WEIR_GOLDEN")
	if elsewhere {
		dirs = []string{dir}
	}
	var files []string
	for _, dir := range dirs {
		found, _ := filepath.Glob(filepath.Join(dir, "*.json"))
		if len(found) == 0 {
			t.Fatalf("no files in %s", dir)
		}
		files = append(files, found...)
	}
	decisions := map[string]int{} // by scheduler
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f goldenFile
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Run(f.Name, func(t *testing.T) {
			if why := f.pending(); why != "" {
				t.Skip(why)
			}
			m := newModel(t, &f)
			for i := range f.Steps {
				m.step(i, &f.Steps[i])
			}
			if m.decisions == 0 {
				t.Error("the file opens no connection")
			}
			decisions[f.Services[0].Scheduler] += m.decisions
		})
	}
	t.Logf("decisions compared: %v", decisions)
	for _, name := range Names() {
		if !elsewhere && decisions[name] < 100 && name != "twos" { // whose numbers nobody can hand to the kernel
			t.Errorf("%s: only %d decisions were compared with the kernel's", name, decisions[name])
		}
	}
}
