package conntrack

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// golden is the part of a recording of kernel IPVS (testdata/golden/README.md) that these tests need.
type golden struct {
	Services []struct {
		Scheduler string
		Backends  []goldenBackend
	}
	Steps []struct {
		Send, Packet string
		Expect       []struct{ Packet string }
		Edit         struct {
			Backend *goldenBackend `json:"edit_backend"`
		}
	}
}

type goldenBackend struct {
	Address          netip.Addr
	Port             uint16
	Weight           int
	active, inactive int
}

func (b *goldenBackend) overhead() int { return b.active<<8 + b.inactive }

// least is the kernel's lc, or its wlc.
func least(bs []goldenBackend, weighted bool) *goldenBackend {
	var best *goldenBackend
	for i := range bs {
		b := &bs[i]
		switch {
		case b.Weight == 0:
		case best == nil:
			best = b
		case weighted && best.overhead()*b.Weight > b.overhead()*best.Weight, !weighted && best.overhead() > b.overhead():
			best = b
		}
	}
	return best
}

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// The kernel chose servers by the number of active connections and rewrote each packet. A Table that is given the same packets must
// have each connection active when the kernel had, else lc and wlc choose otherwise, and turn each packet into the same bytes.
func TestAsTheKernelDid(t *testing.T) {
	dir := os.Getenv("WEIR_GOLDEN")
	if dir == "" {
		dir = filepath.Join("..", "testdata", "golden")
	}
	for _, name := range []string{"lc-tcp4-static", "lc-tcp4-edits", "wlc-tcp4-static", "wlc-tcp4-edits"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, "ipvs", "schedulers", name+".json"))
			if err != nil {
				t.Skip(err)
			}
			var g golden
			if err := json.Unmarshal(text, &g); err != nil {
				t.Fatal(err)
			}
			replay(t, &g)
		})
	}
}

func replay(t *testing.T, g *golden) {
	tab, to := newTable(t, 1000, 1), DefaultTimeouts()
	backends := g.Services[0].Backends
	for n, s := range g.Steps {
		if e := s.Edit.Backend; e != nil {
			for i := range backends {
				if b := &backends[i]; b.Address == e.Address && b.Port == e.Port {
					b.Weight = e.Weight
				}
			}
			continue
		}
		p, err := hex.DecodeString(s.Packet)
		if err != nil || len(p) < 40 || p[0] != 0x45 || p[9] != tcp || len(s.Expect) != 1 {
			t.Fatalf("step %d: want one TCP packet over IPv4 without options, and one answer", n)
		}
		k := Tuple{Src: Addr{Lo: uint64(be32(p[12:]))}, Dst: Addr{Lo: uint64(be32(p[16:]))}, Ports: be32(p[20:]), Space: tcp}
		r := tab.lookup(k)
		if r == 0 {
			i := 0
			for b := least(backends, g.Services[0].Scheduler == "wlc"); b != &backends[i]; {
				i++
			}
			b := &backends[i]
			a := b.Address.As4()
			server, port := Addr{Lo: uint64(be32(a[:]))}, uint32(b.Port)
			c := Conn{
				Forward:   k,
				ForwardTo: Tuple{Src: k.Src, Dst: server, Ports: k.Ports&^0xffff | port, Space: tcp},
				Reply:     Tuple{Src: server, Dst: k.Src, Ports: port<<16 | k.Ports>>16, Space: tcp},
				ReplyTo:   Tuple{Src: k.Dst, Dst: k.Src, Ports: k.Ports<<16 | k.Ports>>16, Space: tcp},
				Backend:   uint32(i),
			}
			var state State
			if r, state, _ = tab.Insert(0, &c, p[33], &to, Tick(n)); r == 0 {
				t.Fatalf("step %d: not inserted", n)
			}
			b.move(1, state)
		}
		c, alive := tab.Track(r, p[33], &to, Tick(n))
		if !alive {
			t.Fatalf("step %d: the connection is gone", n)
		}
		b := &backends[tab.Backend(r)]
		b.move(-1, c.Old)
		b.move(1, c.New)

		e := tab.Entry4(r)
		binary.BigEndian.PutUint32(p[12:], e.NewSrc)
		binary.BigEndian.PutUint32(p[16:], e.NewDst)
		binary.BigEndian.PutUint32(p[20:], e.NewPorts)
		p[8]--
		sum := apply(binary.BigEndian.Uint16(p[10:]), e.DeltaL3)
		binary.BigEndian.PutUint16(p[10:], apply(sum, ^uint16(0x0100))) // one hop less
		binary.BigEndian.PutUint16(p[36:], apply(binary.BigEndian.Uint16(p[36:]), e.DeltaL4))
		if got := hex.EncodeToString(p); got != s.Expect[0].Packet {
			t.Fatalf("step %d (%s): leaves as\n%s, the kernel sent\n%s", n, s.Send, got, s.Expect[0].Packet)
		}
	}
}

// move counts a connection in state s in or out.
func (b *goldenBackend) move(n int, s State) {
	if s.Active() {
		b.active += n
	} else {
		b.inactive += n
	}
}
