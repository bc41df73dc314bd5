package sched

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket/layers"
)

// model is a balancer of a few lines around the schedulers: it holds the connections, so that backends bear what they bore when the kernel
// decided. It knows nothing of frames, only who talks to whom.
type model struct {
	t          *testing.T
	sloppy     bool
	day        int64 // lblcr_expiration, 0: the default
	services   map[goldenIdentity]*modelService
	forward    map[modelTuple]*modelConn // by client and VIP
	reply      map[modelTuple]*modelConn // by backend and client
	now        float64                   // seconds
	generation uint64
	decisions  int
}

type modelTuple struct {
	protocol string
	src, dst netip.AddrPort
}

type modelService struct {
	scheduler string
	flags     Flags
	onePacket bool
	backends  []*modelBackend
	gone      []*modelBackend // removed, perhaps with connections
	plan      *Plan
	state     State
}

type modelBackend struct {
	goldenBackend
	load       *Load
	lastWeight int32
	removed    bool
}

// weigh is what the kernel does with a weight that is given to a backend; added says that it was not there before.
func (b *modelBackend) weigh(added bool) {
	if added || b.Weight != 0 {
		b.lastWeight = b.Weight
	}
}

type modelConn struct {
	forward, reply modelTuple
	backend        *modelBackend
	state          string
	expires        float64
}

var modelFlags = map[string]Flags{"sh-port": ShPort, "sh-fallback": ShFallback, "mh-port": MhPort, "mh-fallback": MhFallback}

func newModel(t *testing.T, f *goldenFile) *model {
	m := &model{t: t, sloppy: f.Options["sloppy_tcp"] != 0, day: int64(f.Options["lblcr_expiration"]) * 1e9, services: map[goldenIdentity]*modelService{},
		forward: map[modelTuple]*modelConn{}, reply: map[modelTuple]*modelConn{}}
	for _, s := range f.Services {
		m.add(s)
	}
	return m
}

func (m *model) add(s goldenService) {
	out := &modelService{scheduler: s.Scheduler, onePacket: s.OnePacket}
	for _, name := range s.Flags {
		f, ok := modelFlags[name]
		if !ok {
			m.t.Fatalf("unknown flag %q", name)
		}
		out.flags |= f
	}
	for _, b := range s.Backends {
		x := &modelBackend{goldenBackend: b, load: new(Load)}
		x.weigh(true)
		out.backends = append(out.backends, x)
	}
	m.services[s.goldenIdentity] = out
	m.publish(out)
}

// publish makes the plan of a service as it is now, as a reload does.
func (m *model) publish(s *modelService) {
	m.generation++
	var dests []Dest
	for _, b := range s.backends {
		dests = append(dests, Dest{Load: b.load, ID: uint32(b.Address.As16()[15])<<16 | uint32(b.Port), Weight: b.Weight, LastWeight: b.lastWeight,
			Upper: b.Upper, Lower: b.Lower, Addr: b.Address, Port: b.Port})
	}
	p, err := s.plan.Next(s.scheduler, Options{Flags: s.flags}, m.generation, dests)
	if err != nil {
		m.t.Fatal(err)
	}
	s.plan = p
	p.Adopt(&s.state)
	if m.day != 0 && s.state.cache != nil {
		s.state.cache.day = m.day
	}
}

func (m *model) step(i int, s *goldenStep) {
	m.now += 0.01
	switch {
	case s.Wait > 0:
		m.now += s.Wait
	case s.Edit != nil:
		m.edit(s.Edit)
	case s.Send == "server":
		p := &s.Packet
		if c := m.find(m.reply, modelTuple{p.protocol, p.src, p.dst}); c != nil {
			m.move(c, p.tcp, modelOutput)
		}
	default:
		got, opened := m.client(&s.Packet)
		var want netip.AddrPort
		for _, e := range s.Expect {
			if e.Side == "server" {
				want = e.Packet.dst
			}
		}
		if opened {
			m.decisions++
		}
		if got != want {
			m.t.Fatalf("step %d: %s %v: goes to %v, the kernel sends it to %v (decision %d)", i, s.Packet.protocol, s.Packet.src, got, want, m.decisions)
		}
	}
}

// client takes a packet of a client and returns where it goes; nowhere is the zero AddrPort. opened says that the scheduler was asked.
func (m *model) client(p *goldenPacket) (to netip.AddrPort, opened bool) {
	tuple := modelTuple{p.protocol, p.src, p.dst}
	c := m.find(m.forward, tuple)
	if c != nil && c.state == "TIME_WAIT" && p.tcp.SYN { // conn_reuse_mode 1
		m.end(c)
		c = nil
	}
	if c == nil {
		s := m.services[goldenIdentity{p.dst.Addr(), p.dst.Port(), p.protocol}]
		if s == nil || p.tcp != nil && (p.tcp.RST || !p.tcp.SYN && !m.sloppy) {
			return netip.AddrPort{}, false
		}
		opened = true
		flow := Flow{V6: p.v6, SrcPort: p.src.Port(), DstPort: p.dst.Port(), Now: int64(m.now * 1e9)}
		copy(flow.Src[:], p.src.Addr().AsSlice())
		copy(flow.Dst[:], p.dst.Addr().AsSlice())
		n := foretold(m.t, s.plan, &s.state, &flow)
		if n < 0 {
			return netip.AddrPort{}, true
		}
		b := s.backends[n]
		to = netip.AddrPortFrom(b.Address, b.Port)
		c = &modelConn{forward: tuple, reply: modelTuple{p.protocol, to, p.src}, backend: b, state: "NONE"}
		b.load.Bind(false, b.Upper, b.Lower)
		m.forward[c.forward], m.reply[c.reply] = c, c
		if s.onePacket {
			m.end(c)
			return to, true
		}
	}
	if c.backend.removed {
		return netip.AddrPort{}, opened
	}
	m.move(c, p.tcp, modelInput)
	return netip.AddrPortFrom(c.backend.Address, c.backend.Port), opened
}

// find looks a connection up, and ends it if its time is up.
func (m *model) find(in map[modelTuple]*modelConn, at modelTuple) *modelConn {
	for _, c := range m.forward { // all, since each that is over weighs on its backend
		if c.expires != 0 && c.expires <= m.now {
			m.end(c)
		}
	}
	return in[at]
}

func (m *model) end(c *modelConn) {
	delete(m.forward, c.forward)
	delete(m.reply, c.reply)
	c.backend.load.Unbind(modelActive[c.state], c.backend.Upper, c.backend.Lower)
}

// move carries a connection through the state table of one direction; tcp is nil for UDP, which has one state.
func (m *model) move(c *modelConn, tcp *layers.TCP, table map[string]map[string]string) {
	was := modelActive[c.state]
	if tcp == nil {
		c.state = "UDP"
	} else {
		event := ""
		switch {
		case tcp.RST:
			event = "rst"
		case tcp.SYN:
			event = "syn"
		case tcp.FIN:
			event = "fin"
		case tcp.ACK:
			event = "ack"
		}
		if next, ok := table[event][c.state]; ok {
			c.state = next
		} else if next, ok := table[event]["else"]; ok {
			c.state = next
		}
	}
	c.expires = m.now + modelTimeout[c.state]
	switch {
	case !was && modelActive[c.state]:
		c.backend.load.Activate()
	case was && !modelActive[c.state]:
		c.backend.load.Deactivate()
	}
}

// modelActive is tcp_state_active_table: a TCP connection counts as active from its SYN on, not only once it is established.
var modelActive = map[string]bool{"ESTABLISHED": true, "SYN_SENT": true, "SYN_RECV": true}

var modelTimeout = map[string]float64{"NONE": 2, "ESTABLISHED": 900, "SYN_SENT": 120, "SYN_RECV": 60, "FIN_WAIT": 120, "TIME_WAIT": 120,
	"CLOSE": 10, "CLOSE_WAIT": 60, "LAST_ACK": 30, "UDP": 300}

// The state tables of IPVS (ip_vs_proto_tcp.c), by event, then by state; a state that is not there stays unless "else" is.
var modelInput = map[string]map[string]string{
	"syn": {"ESTABLISHED": "ESTABLISHED", "SYN_SENT": "ESTABLISHED", "else": "SYN_RECV"},
	"fin": {"NONE": "CLOSE", "ESTABLISHED": "CLOSE_WAIT", "SYN_RECV": "TIME_WAIT", "FIN_WAIT": "TIME_WAIT"},
	"ack": {"NONE": "ESTABLISHED", "SYN_RECV": "ESTABLISHED", "LAST_ACK": "CLOSE"},
	"rst": {"SYN_RECV": "SYN_RECV", "LAST_ACK": "LAST_ACK", "else": "CLOSE"},
	"":    {"else": "CLOSE"},
}

var modelOutput = map[string]map[string]string{
	"syn": {"SYN_RECV": "SYN_RECV", "ESTABLISHED": "ESTABLISHED", "else": "SYN_SENT"},
	"fin": {"ESTABLISHED": "FIN_WAIT", "NONE": "TIME_WAIT", "SYN_RECV": "TIME_WAIT", "CLOSE_WAIT": "TIME_WAIT"},
	"ack": {"NONE": "ESTABLISHED", "SYN_RECV": "ESTABLISHED"},
	"rst": {"SYN_SENT": "SYN_SENT", "TIME_WAIT": "TIME_WAIT", "else": "CLOSE"},
	"":    {"else": "CLOSE"},
}

func (m *model) edit(e map[string]json.RawMessage) {
	var id goldenIdentity
	m.decode(e["service"], &id)
	for what, raw := range e {
		if what == "service" {
			continue
		}
		if what == "add_service" {
			var s goldenService
			m.decode(raw, &s)
			m.add(s)
			return
		}
		s := m.services[id]
		if s == nil {
			m.t.Fatalf("edit of an unknown service %v", id)
		}
		var b goldenBackend
		if what != "remove_service" {
			m.decode(raw, &b)
		}
		same := func(o *modelBackend) bool { return o.Address == b.Address && o.Port == b.Port }
		at := slices.IndexFunc(s.backends, same)
		switch what {
		case "remove_service":
			delete(m.services, id)
			return
		case "add_backend_first":
			fresh := &modelBackend{goldenBackend: b, load: new(Load)}
			if old := slices.IndexFunc(s.gone, same); old >= 0 { // the kernel takes it out of the trash with all that it bears
				fresh = s.gone[old]
				fresh.load.Rethreshold(fresh.Upper, b.Upper)
				fresh.goldenBackend, fresh.removed = b, false
				s.gone = slices.Delete(s.gone, old, old+1)
			}
			fresh.weigh(true)
			s.backends = slices.Insert(s.backends, 0, fresh)
		case "remove_backend":
			s.backends[at].removed = true
			s.gone = append(s.gone, s.backends[at])
			s.backends = slices.Delete(s.backends, at, at+1)
		case "edit_backend":
			s.backends[at].load.Rethreshold(s.backends[at].Upper, b.Upper)
			s.backends[at].goldenBackend = b
			s.backends[at].weigh(false)
		default:
			m.t.Fatalf("unknown edit %q", what)
		}
		m.publish(s)
	}
}

func (m *model) decode(raw json.RawMessage, into any) {
	if raw == nil {
		return
	}
	if err := json.Unmarshal(raw, into); err != nil {
		m.t.Fatal(err)
	}
}
