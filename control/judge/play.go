package judge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weir/dataplane/packet"
	"weir/dataplane/packet/pkttest"
)

// The two links of a recording.
const (
	Client = 0
	Server = 1
)

var sides = [2]string{"client", "server"}

func sideOf(name string) int {
	if name == sides[Server] {
		return Server
	}
	return Client
}

// Output is a frame that a balancer sent.
type Output struct {
	Side int
	MAC  string // whom it was sent to
	IP   []byte // the packet in it
}

// Balancer is what plays a recording: weir's engine between two links. Times are nanoseconds of one clock that does not go back.
type Balancer interface {
	// Configure puts a configuration in force. touched is a service that was edited, even where nothing in it is different.
	Configure(yaml string, touched *Service, now int64) error
	// Send gives it one packet and returns all that comes out at once, and the name of the one verdict or drop that was counted.
	Send(side int, ip []byte, now int64) (out []Output, verdict string, err error)
	// Expire lets timeouts pass.
	Expire(now int64)
}

// stepTime is what passes between two steps.
const (
	stepTime   = 10e6
	pieceTime  = 1e6   // between two fragments of a datagram; weir does not wait long for one whose first did not come yet
	expireTime = 100e6 // between two looks at timeouts
)

// Difference is a step after which the balancer and the recording disagree.
type Difference struct {
	Step int
	Kind string // in a few words, the same for all that differ in this way
	What string // all there is to say
}

func (d *Difference) Error() string { return fmt.Sprintf("step %d: %s", d.Step, d.What) }

// Play plays r into b and returns the first [Difference], or whatever else went wrong.
func Play(r *Recording, b Balancer) error {
	p := &player{r: r, b: b, now: 1e15, services: r.Services, departures: departures[r.Name]}
	if err := p.configure(nil); err != nil {
		return err
	}
	for i := range r.Steps {
		if err := p.step(i); err != nil {
			if d := (*Difference)(nil); errors.As(err, &d) {
				return d
			}
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return p.gathered(len(r.Steps))
}

type player struct {
	r          *Recording
	b          Balancer
	now        int64
	services   []Service
	departures map[int]string

	of   string   // the datagram that the latest steps brought fragments of; "" for none
	side int      // where they came from
	in   [][]byte // they
	came []Output // and what came of them
	due  []Packet
}

func (p *player) configure(touched *Service) error {
	return p.b.Configure(p.r.yaml(p.services), touched, p.now)
}

func (p *player) step(i int) error {
	s := &p.r.Steps[i]
	p.now += stepTime
	if s.Send == "" {
		if err := p.gathered(i); err != nil {
			return err
		}
	}
	switch {
	case s.Edit != nil:
		services, err := s.Edit.apply(p.services)
		if err != nil {
			return err
		}
		p.services = services
		touched := (*Service)(nil)
		if s.Edit.EditBackend != nil {
			touched = s.Edit.Service // the kernel's scheduler starts over at an edit that sets a weight to what it is
		}
		return p.configure(touched)
	case s.WaitS > 0:
		// In small steps: what a timeout ends may keep another alive.
		for end := p.now + int64(s.WaitS*1e9); p.now < end; {
			p.now = min(p.now+expireTime, end)
			p.b.Expire(p.now)
		}
		return nil
	}
	return p.send(i, s)
}

// send plays one packet and compares.
func (p *player) send(i int, s *Step) error {
	in, err := unhex(s.Packet)
	if err != nil {
		return err
	}
	of := datagram(in)
	if of != "" && of == p.of {
		p.now -= stepTime - pieceTime
	}
	if strings.HasPrefix(p.r.Name, "fragment") {
		of = p.r.Name
	}
	if of != p.of {
		if err := p.gathered(i); err != nil {
			return err
		}
		p.of = of
	}
	p.b.Expire(p.now)
	out, verdict, err := p.b.Send(sideOf(s.Send), in, p.now)
	if err != nil {
		return err
	}
	for _, o := range out {
		if err := sound(o.IP, in); err != nil {
			return &Difference{i, "unsound", fmt.Sprintf("%s: came out: %s: %v", pkttest.String(in), pkttest.String(o.IP), err)}
		}
	}
	if want, ok := p.departures[i]; ok {
		if verdict != want {
			return &Difference{i, "departure", fmt.Sprintf("a departure that should be counted as %s was counted as %s", want, verdict)}
		}
		return nil
	}
	if p.of != "" {
		p.side, p.in = sideOf(s.Send), append(p.in, in)
		p.came, p.due = append(p.came, out...), append(p.due, s.Expect...)
		return nil
	}
	return p.compare(i, s, in, out, verdict)
}

// compare holds what came out against what must.
func (p *player) compare(i int, s *Step, in []byte, out []Output, verdict string) error {
	about := pkttest.String(in)
	if departs(in, sideOf(s.Send), out, s.Expect, verdict) {
		return nil
	}
	for _, want := range s.Expect {
		w, err := unhex(want.Packet)
		if err != nil {
			return err
		}
		if len(out) == 0 {
			if routedOn(in, w) {
				continue // no service's, merely routed on: the kernel's business, which gets it back
			}
			return &Difference{i, "nothing: " + verdict, fmt.Sprintf("%s: nothing came out (%s)\nwant %s: %s", about, verdict, want.Side, pkttest.String(w))}
		}
		out[0].IP, w = blessed(in, out[0].IP, overhead(in, w))
		if err := match(out[0], &want, w); err != nil {
			return &Difference{i, strings.SplitN(err.Error(), ":", 2)[0], fmt.Sprintf("%s: %v\n got %s: %s\n     %x\nwant %s: %s\n     %x", about, err,
				sides[out[0].Side], pkttest.String(out[0].IP), out[0].IP, want.Side, pkttest.String(w), w)}
		}
		out = out[1:]
	}
	if len(out) > 0 {
		return &Difference{i, "in addition: " + verdict, fmt.Sprintf("%s: came out in addition (%s): %s: %s", about, verdict, sides[out[0].Side], pkttest.String(out[0].IP))}
	}
	return nil
}

func match(got Output, want *Packet, w []byte) error {
	if sides[got.Side] != want.Side {
		return errors.New("another side")
	}
	if want.MAC != "" && got.MAC != want.MAC {
		return fmt.Errorf("another server: sent to %s, want %s", got.MAC, want.MAC)
	}
	if outerPiece(w) && outerPiece(got.IP) {
		if !bytes.Equal(anonymous(got.IP), anonymous(w)) {
			return errors.New("pieces of an outer packet differ")
		}
		return nil
	}
	return same(got.IP, w, want.Exact)
}

// outerPiece reports whether ip is a fragment of a tunnel's packet over IPv4.
func outerPiece(ip []byte) bool {
	return len(ip) >= 28 && ip[0] == 0x45 && datagram(ip) != "" && netip.AddrFrom4([4]byte(ip[12:16])) == balancer4
}

// anonymous is a fragment without what may differ: identification, header checksum, and in the first one the source port of GUE.
func anonymous(ip []byte) []byte {
	ip = slices.Clone(ip)
	clear(ip[4:6])
	clear(ip[10:12])
	if ip[9] == packet.ProtoUDP && binary.BigEndian.Uint16(ip[6:])&0x1fff == 0 {
		clear(ip[20:22])
	}
	return ip
}

func list(came, due []Output) string {
	var s strings.Builder
	for i, o := range append(slices.Clone(came), due...) {
		what := " got"
		if i >= len(came) {
			what = "want"
		}
		fmt.Fprintf(&s, "\n%s %s (%s): %s\n     %x", what, sides[o.Side], o.MAC, pkttest.String(o.IP), o.IP)
	}
	return s.String()
}
