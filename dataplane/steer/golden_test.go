package steer

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/dataplane/packet"
)

// goldenDir holds what the kernel's IPVS did, packet by packet; see its README.
const goldenDir = "../../testdata/golden/ipvs/packets"

type goldenFile struct {
	Services []goldenService
	Steps    []struct{ Send, Packet string }
}

type goldenService struct {
	VIP      netip.Addr
	Port     uint16
	Protocol string
	Backends []struct {
		Address netip.Addr
		Port    uint16
		Forward string
	}
}

// goldenWant says what steering does with the packets of a file, one letter for each packet that is sent; a file that is not listed
// has all of its packets taken.
//
//	t  taken
//	-  the kernel's: of no service, or a control message that IPVS leaves alone
var goldenWant = map[string]string{
	"icmp-echo-to-vip.json": "--",
	"no-service-v4.json":    "--",
	"no-service-v6.json":    "--",
	// the last is a server's own, from a port of no service
	"udp-both-ways-v4.json": "tttt-",
	"udp-both-ways-v6.json": "tttt-",
	// the sixth is a parameter problem, which IPVS routes untranslated
	"icmp-from-server-side.json": "ttttt-t",
}

var goldenProtocols = map[string]uint8{"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "sctp": packet.ProtoSCTP}

// goldenRules is the network that the files describe.
func goldenRules(t *testing.T, services []goldenService) *Rules {
	r := &Rules{
		Ports: []Port{{Name: "wan", Ifindex: loopback, MACs: [][6]byte{ourMAC}}},
		Local: []netip.Addr{ip("198.18.0.1"), ip("2001:db8::1"), ip("198.18.1.1"), ip("2001:db8:1::1"), vip4, vip6},
		Grace: time.Hour,
	}
	for _, s := range services {
		proto := goldenProtocols[s.Protocol]
		if proto == 0 {
			t.Fatalf("protocol %q", s.Protocol)
		}
		r.Services = append(r.Services, Service{One(s.VIP), proto, s.Port, s.Port})
		for _, b := range s.Backends {
			if b.Forward == "nat" {
				r.Servers = append(r.Servers, Server{b.Address, proto, b.Port})
			}
		}
	}
	return r
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files in %s: %v", goldenDir, err)
	}
	program := loadedOrNot(t)
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".json"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var g goldenFile
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatal(err)
			}
			r := goldenRules(t, g.Services)
			c := compiled(r)
			if program != nil {
				if err := program.Add(r); err != nil {
					t.Fatal(err)
				}
				if _, err := program.Remove(); err != nil {
					t.Fatal(err)
				}
			}
			var got, reasons strings.Builder
			for _, s := range g.Steps {
				if s.Send == "" {
					continue
				}
				p, err := hex.DecodeString(s.Packet)
				if err != nil {
					t.Fatal(err)
				}
				reason := twin(t, c, 0, frame(p))
				if program != nil {
					agree(t, program, c, frame(p))
				}
				got.WriteByte(map[Verdict]byte{Take: 't', Pass: '-'}[reason.Verdict()])
				reasons.WriteString(" " + reason.String())
			}
			want, listed := goldenWant[name]
			if !listed {
				want = strings.Repeat("t", got.Len())
			}
			if got.String() != want {
				t.Errorf("steering %s, want %s:%s", got.String(), want, reasons.String())
			}
		})
	}
}

// loadedOrNot is a program if this host can load one; the twin is tested anyway.
func loadedOrNot(t *testing.T) *Program {
	p, err := Load(Options{})
	if err != nil {
		t.Logf("twin alone: %v", err)
		return nil
	}
	t.Cleanup(func() { p.Close() })
	p.Beat(uint64(Now()))
	return p
}
