package control

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"weir/control/config"
	"weir/dataplane"
	"weir/dataplane/driver/afxdp"
)

// Stats are all counters.
func (c *Control) Stats() Stats {
	s := c.stats()
	c.surround(&s)
	return s
}

// surround adds what the core does not know: ports and the XDP program.
func (c *Control) surround(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Ports, s.Steering = c.outside.views(c.cfg, c.engine.Snapshot()), c.outside.steered()
}

// steered are frames by the rule of the XDP program that decided.
func (p *ports) steered() map[string]uint64 {
	s, err := p.program.Stats()
	if err != nil {
		return nil
	}
	return s.Named()
}

// glance looks at all that has few numbers, for metrics.
func (c *Control) glance() glance {
	g := glance{stats: c.totals(), status: c.Status(), workers: c.Workers()}
	c.surround(&g.stats)
	c.mu.Lock()
	defer c.mu.Unlock()
	g.refused = !c.lastAt.IsZero() && !c.last.OK
	return g
}

// views shows every port.
func (p *ports) views(cfg *config.Config, snap *dataplane.Snapshot) (all []PortView) {
	for i := range cfg.Ports {
		c, s := &cfg.Ports[i], &snap.Ports[i]
		v := PortView{Name: c.Name, Interface: c.Interface, Driver: c.Driver, MAC: macText(s.MAC), MTU: s.MTU, VLAN: c.VLAN}
		for _, queues := range p.queues {
			q := queues[s.Device]
			if q == nil {
				continue
			}
			st := q.Stats()
			v.Queues++
			v.Mode, v.Up = st.Mode, st.Up
			v.Setup = "weir"
			if x, ok := q.(*afxdp.Queue); ok {
				v.Setup = x.Setup()
			}
			v.Received += st.Received
			v.Sent += st.Sent
			v.SendLost += st.SendLost
			v.RxLost += st.RxRingFull + st.FillRingEmpty + st.RxDropped
			v.Invalid += st.InvalidDescriptor
			v.Wakeups += st.Wakeups
			v.SentLive += st.Live
		}
		all = append(all, v)
	}
	return all
}

func macText(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Workers are how busy the workers are.
func (c *Control) Workers() []WorkerView {
	views := []WorkerView{}
	for i, r := range c.runners {
		sum := r.Worker.Counters.Sum()
		views = append(views, WorkerView{Worker: i, CPU: r.CPU, Wait: r.Waiter.Mode().String(), Received: sum.Received, Vectors: sum.Vectors,
			Rounds: sum.Rounds, Sleeps: sum.Sleeps, Held: sum.Held, Chunks: r.Worker.Chunks(), Pages: c.ports.umems[i].Pages(), BeatAgeS: c.ports.beats[i].age().Seconds(),
			CPUSeconds: r.CPUTime().Seconds()})
	}
	return views
}

// Status is how the daemon is.
func (c *Control) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{
		Version: c.options.Version, PID: os.Getpid(), Started: c.started, Config: c.options.Config, Generation: c.generation, Loaded: c.loaded,
		Connections: c.engine.Table.Len(), Capacity: c.engine.Table.Cap(), HalfOpen: c.engine.Table.HalfOpen(), HalfOpenCap: c.engine.Table.HalfOpenCap(),
		Evicted: c.engine.Table.Evicted(), LastReloadOK: c.last.OK, LastReload: "none since the start",
	}
	for _, w := range c.engine.Workers() {
		sum := w.Counters.Sum()
		s.Cookies.Sent += sum.CookiesSent
		s.Cookies.Good += sum.CookiesGood
		s.Cookies.Bad += sum.CookiesBad
		s.Cookies.Challenges += sum.Challenges
		s.Cookies.Vouched += sum.Vouched
	}
	m := c.engine.Table.Memory()
	s.TableMemory = MemoryView{Bytes: m.Bytes, HugeBytes: m.Huge, HugePages: string(m.Pages)}
	s.TakenOver = c.engine.Table.Adopted().Kept
	s.Takeover = c.taken
	if c.state != nil {
		s.TableFile = c.state.path
	}
	if !c.lastAt.IsZero() {
		s.LastReload = c.lastAt.Format(time.RFC3339) + " " + c.last.Message
	}
	s.Health = c.reg.health()
	s.Warnings = c.outside.complaints()
	if c.cramped != nil {
		s.Warnings = append(s.Warnings, c.cramped.Error())
	}
	if c.state != nil && c.state.homeless != "" {
		s.Warnings = append(s.Warnings, c.state.homeless)
	}
	s.Changes = len(c.edits)
	return s
}

// Rates are what happened a second, over an interval that has just passed.
type Rates struct {
	Seconds  float64       `json:"seconds"`
	Services []ServiceRate `json:"services"`
}

// ServiceRate is one service's.
type ServiceRate struct {
	Name     string `json:"name"`
	VIP      VIP    `json:"vip"`
	VNI      uint32 `json:"vni,omitempty"`
	Port     uint16 `json:"port"`
	PortTo   uint16 `json:"port_to,omitempty"`
	Protocol string `json:"protocol"`
	Rate
	Backends []BackendRate `json:"backends"`
}

// BackendRate is one backend's.
type BackendRate struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	VNI     uint32     `json:"vni,omitempty"`
	Rate
}

// Rate is events a second.
type Rate struct {
	Conns      float64 `json:"conns"`
	InPackets  float64 `json:"in_packets"`
	InBytes    float64 `json:"in_bytes"`
	OutPackets float64 `json:"out_packets"`
	OutBytes   float64 `json:"out_bytes"`
}

func rateOf(t dataplane.Traffic, seconds float64) Rate {
	return Rate{float64(t.Conns) / seconds, float64(t.InPackets) / seconds, float64(t.InBytes) / seconds, float64(t.OutPackets) / seconds, float64(t.OutBytes) / seconds}
}

// Rates looks at the counters twice, interval apart. The data path pays nothing for it: IPVS's estimator, which it replaces, ran on
// every core. What came or went in between is left out.
func (c *core) Rates(ctx context.Context, interval time.Duration) (Rates, error) {
	c.mu.Lock()
	before := c.services()
	c.mu.Unlock()
	start := time.Now()
	select {
	case <-time.After(interval):
	case <-ctx.Done():
		return Rates{}, ctx.Err()
	}
	c.mu.Lock()
	after := c.services()
	c.mu.Unlock()
	r := Rates{Seconds: time.Since(start).Seconds(), Services: []ServiceRate{}}
	type id struct {
		vip      VIP
		vni      uint32
		port     uint16
		protocol string
		address  netip.Addr
		real     uint16
		realVNI  uint32
	}
	was := map[id]dataplane.Traffic{}
	for _, s := range before {
		was[id{s.VIP, s.VNI, s.Port, s.Protocol, netip.Addr{}, 0, 0}] = s.Traffic
		for _, b := range s.Backends {
			was[id{s.VIP, s.VNI, s.Port, s.Protocol, b.Address, b.Port, b.VNI}] = b.Traffic
		}
	}
	for _, s := range after {
		old, ok := was[id{s.VIP, s.VNI, s.Port, s.Protocol, netip.Addr{}, 0, 0}]
		if !ok {
			continue
		}
		x := ServiceRate{Name: s.Name, VIP: s.VIP, VNI: s.VNI, Port: s.Port, PortTo: s.PortTo, Protocol: s.Protocol, Rate: rateOf(s.Traffic.Minus(old), r.Seconds), Backends: []BackendRate{}}
		for _, b := range s.Backends {
			if old, ok := was[id{s.VIP, s.VNI, s.Port, s.Protocol, b.Address, b.Port, b.VNI}]; ok {
				x.Backends = append(x.Backends, BackendRate{b.Name, b.Address, b.Port, b.VNI, rateOf(b.Traffic.Minus(old), r.Seconds)})
			}
		}
		r.Services = append(r.Services, x)
	}
	return r, nil
}
