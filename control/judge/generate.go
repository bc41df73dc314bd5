package judge

import (
	"fmt"
	"math/rand/v2"
)

// Features are what scenarios may have beyond the ground: TCP and UDP over IPv4 and IPv6 to servers behind NAT.
type Features struct {
	Persistence, QuiescentTemplate, OnePacket bool
	SCTP                                      bool
	Forwards                                  []string // besides nat
	Mixed                                     bool     // several forwards in one service
	Schedulers                                []string
	Edits, Waits, Errors, Fragments, Garbage  bool
}

// Schedulers are the kernel's but twos, which is random.
var Schedulers = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf"}

// AllFeatures are all that the kernel has.
func AllFeatures() Features {
	return Features{Persistence: true, QuiescentTemplate: true, OnePacket: true, SCTP: true, Forwards: []string{"dr", "ipip", "gue", "gre"}, Mixed: true,
		Schedulers: Schedulers, Edits: true, Waits: true, Errors: true, Fragments: true, Garbage: true}
}

// Timeouts are chosen by the grid of the recorder's time: waits are multiples of gridSeconds, and all that is open ends between two instants of the
// grid, a second or nearly from either. Connections end a second after an instant: those whose timeout can be set, CLOSE after 10 s, SCTP's
// INIT1 after 4; templates two seconds after one, so that it is clear which outlives which. The others outlast waitSeconds, the most that
// passes in one scenario.
const (
	gridSeconds = 3
	waitSeconds = 27
)

var timeouts = []int{1, 4}

// Generate makes the scenario of a seed. The same seed and features make the same one.
func Generate(seed uint64, have Features) Script {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x6a75646765)), have: have, s: Script{Name: fmt.Sprintf("seed-%d", seed)}, nextPort: 20000}
	g.options()
	for range 1 + g.IntN(3) {
		g.addService()
	}
	g.s.Services = cloneServices(g.services)
	g.choosePopulation()
	for n := 20 + g.IntN(40); n > 0; n-- {
		g.op()
	}
	return g.s
}

type generator struct {
	*rand.Rand
	have Features
	s    Script

	services []Service // as they are now
	gone     []gone    // backends that were removed
	clients  int       // how many there are
	nextPort int
	waited   int
	brief    bool   // some service has a persistence that ends while the scenario plays
	lives    []life // by flow
}

type gone struct {
	service *Service // identity
	backend Backend
}

// chance is true this many times of a hundred.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) options() {
	g.s.Options = map[string]int{}
	if g.chance(20) {
		g.s.Options["sloppy_tcp"] = 1
	}
	if g.chance(30) {
		g.s.Options["expire_nodest_conn"] = 1
	}
	if g.chance(50) {
		g.s.Options["conn_reuse_mode"] = g.IntN(4)
	}
	if g.have.QuiescentTemplate && g.chance(40) {
		g.s.Options["expire_quiescent_template"] = 1
	}
	if g.have.Waits && g.chance(60) {
		g.s.Timeouts = &Timeouts{TCP: pick(g, timeouts...), TCPFin: pick(g, timeouts...), UDP: pick(g, timeouts...)}
	}
	if g.chance(10) {
		// With less than 1280 bytes left for a packet in a tunnel over IPv6, the kernel drops it and weir cuts the outer one (RFC 2473 7.1).
		g.s.MTU = map[string]int{"client": 1300}
		if g.chance(50) {
			g.s.MTU = map[string]int{"server": pick(g, 1360, 1400)}
		}
	}
}

// addService adds a service of an identity that there is not yet.
func (g *generator) addService() *Service {
	v6 := g.chance(35)
	s := Service{VIP: pick(g, "198.18.9.9", "198.18.9.9", "198.18.9.10"), Port: pick(g, 80, 443, 53), Protocol: pick(g, "tcp", "tcp", "udp")}
	if v6 {
		s.VIP = pick(g, "2001:db8:9::9", "2001:db8:9::9", "2001:db8:9::a")
	}
	if g.have.SCTP && g.chance(12) {
		s.Protocol = "sctp"
	}
	if g.have.Persistence && s.Protocol != "sctp" && g.chance(8) {
		s.Port = 0 // all ports
	}
	for i := range g.services {
		if g.services[i].same(&s) {
			return g.addService()
		}
	}
	g.shape(&s)
	forwards := []string{"nat"}
	if len(g.have.Forwards) > 0 && g.chance(45) {
		forwards = []string{pick(g, g.have.Forwards...)}
		if g.have.Mixed && g.chance(40) {
			forwards = append([]string{"nat"}, g.have.Forwards...)
		}
	}
	for i := range g.IntN(6) + g.IntN(2) {
		s.Backends = append(s.Backends, g.backend(&s, i, forwards))
	}
	if len(s.Backends) == 0 && g.chance(80) {
		s.Backends = append(s.Backends, g.backend(&s, 0, forwards))
	}
	g.services = append(g.services, s)
	return &g.services[len(g.services)-1]
}

// shape chooses scheduler and options.
func (g *generator) shape(s *Service) {
	s.Scheduler, s.Flags, s.OnePacket, s.Persistence = pick(g, g.have.Schedulers...), nil, false, nil
	if s.Scheduler == "sh" || s.Scheduler == "mh" {
		for _, f := range []string{"-port", "-fallback"} {
			if g.chance(50) {
				s.Flags = append(s.Flags, s.Scheduler+f)
			}
		}
	}
	if g.have.OnePacket && s.Protocol == "udp" && g.chance(25) {
		s.OnePacket = true
	}
	if g.have.Persistence && (s.Port == 0 || g.chance(25)) {
		s.Persistence = &Persistence{TimeoutS: pick(g, 2, 5, 101)}
		g.brief = g.brief || s.Persistence.TimeoutS < waitSeconds
		if g.chance(40) {
			s.Persistence.Prefix = pick(g, 16, 24, 30)
			if isV6(s.VIP) {
				s.Persistence.Prefix = pick(g, 64, 112, 126)
			}
		}
	}
}

func isV6(a string) bool { return len(a) > 0 && a[0] == '2' }

func (g *generator) backend(s *Service, i int, forwards []string) Backend {
	b := Backend{Address: serverAddress(i, isV6(s.VIP)), Port: 8000 + i, Weight: g.weight(), Forward: pick(g, forwards...)}
	if b.Forward != "nat" || s.Port == 0 {
		b.Port = s.Port // dr and tunnels cannot change it
	}
	if b.Forward != "nat" && b.Forward != "dr" && s.Scheduler != "mh" && g.chance(20) {
		b.Address = serverAddress(i, !isV6(s.VIP)) // a tunnel takes a packet of the other family, too; for mh see docs/ipvs.md
	}
	if b.Forward == "gue" {
		if b.TunnelPort = 6080; !isV6(b.Address) {
			b.TunnelPort += i % 2
		}
	}
	g.thresholds(&b)
	return b
}

func (g *generator) weight() int { return pick(g, 0, 1, 1, 1, 2, 2, 3, 4, 6, 10, 100) }

func (g *generator) thresholds(b *Backend) {
	b.Upper, b.Lower = 0, 0
	if g.chance(20) {
		b.Upper = 1 + g.IntN(4)
		b.Lower = g.IntN(b.Upper + 1)
	}
}

// choosePopulation decides from how many addresses clients come: few for schedulers that know them, many for the others.
func (g *generator) choosePopulation() { g.clients = pick(g, 1, 2, 5, 2000) }

func (g *generator) client(v6 bool) string {
	i := g.IntN(g.clients)
	if v6 {
		return fmt.Sprintf("2001:db8:c::%x", 1+i)
	}
	return fmt.Sprintf("198.18.%d.%d", 128+i/250, 1+i%250)
}

// op adds the next operation, or a few that belong together.
func (g *generator) op() {
	switch x := g.IntN(100); {
	case x < 10 && g.have.Edits:
		g.edit()
	case x < 15 && g.have.Waits && g.s.Timeouts != nil:
		g.wait()
	case x < 17:
		g.add(Op{Do: DoEcho, Flow: g.flow(), Data: g.IntN(64)})
	case x < 24 && g.have.Errors:
		g.complain()
	case x < 29:
		g.stray()
	case x < 60 || len(g.lives) == 0:
		g.live(g.open())
	default:
		g.live(g.IntN(len(g.lives)))
	}
}

func (g *generator) add(o Op) { g.s.Ops = append(g.s.Ops, o) }

// wait lets time pass: once only where templates may end. A template that outlived its time because of its connections has another timeout in
// the kernel from then on (docs/ipvs.md), which a second wait would show.
func (g *generator) wait() {
	if g.brief && g.waited > 0 {
		return
	}
	seconds := gridSeconds * pick(g, 1, 1, 1, 2, 2, 4)
	if g.waited+seconds <= waitSeconds {
		g.waited += seconds
		g.add(Op{Do: DoWait, Seconds: seconds})
	}
}

// flow is one of those there are, or a new one.
func (g *generator) flow() int {
	if len(g.lives) == 0 {
		return g.open()
	}
	return g.IntN(len(g.lives))
}

// open makes a flow towards a service, and nothing of it yet.
func (g *generator) open() int {
	if len(g.services) == 0 {
		g.addNamed()
	}
	s := &g.services[g.IntN(len(g.services))]
	port := s.Port
	if port == 0 {
		port = pick(g, 22, 80, 443, 8080)
	}
	return g.newFlow(s.VIP, port, s.Protocol)
}

func (g *generator) newFlow(vip string, port int, protocol string) int {
	g.nextPort++
	g.s.Flows = append(g.s.Flows, Flow{VIP: vip, VPort: port, Protocol: protocol, Client: g.client(isV6(vip)), Port: g.nextPort})
	g.lives = append(g.lives, life{v6: isV6(vip), protocol: protocol})
	return len(g.lives) - 1
}

// stray is a packet to a port without a service.
func (g *generator) stray() {
	s := &g.s.Services[g.IntN(len(g.s.Services))]
	protocol := pick(g, "tcp", "udp")
	o := Op{Do: DoPacket, Flow: g.newFlow(s.VIP, 7777, protocol), Data: g.IntN(20)}
	if protocol == "tcp" {
		o.Flags = pick(g, flagSYN, flagSYN, flagACK, flagFIN|flagACK, flagRST)
	}
	g.add(o)
}

// complain is an ICMP error of a router or an end about a packet of a flow.
func (g *generator) complain() {
	flow := g.flow()
	o := Op{Do: DoError, Flow: flow, Side: g.IntN(2), Router: g.chance(50), Quote: pick(g, 8, 8, 20, 0)}
	type kind struct{ typ, code, mtu int }
	k := pick(g, kind{3, 0, 0}, kind{3, 1, 0}, kind{3, 3, 0}, kind{3, 4, 1280}, kind{3, 13, 0}, kind{4, 0, 0}, kind{11, 0, 0}, kind{11, 1, 0}, kind{12, 0, 0})
	if g.lives[flow].v6 {
		k = pick(g, kind{1, 0, 0}, kind{1, 1, 0}, kind{1, 3, 0}, kind{1, 4, 0}, kind{2, 0, 1280}, kind{3, 0, 0}, kind{4, 1, 0})
	}
	o.Type, o.Code, o.MTU = k.typ, k.code, k.mtu
	if g.have.Garbage && g.chance(10) {
		o.Spoil = "sum"
	}
	g.add(o)
}

func cloneServices(services []Service) []Service {
	c := append([]Service{}, services...)
	for i := range c {
		c[i].Backends = append([]Backend{}, c[i].Backends...)
	}
	return c
}
