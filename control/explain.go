package control

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"weir/conntrack"
	"weir/dataplane"
	"weir/dataplane/sched"
)

// ExplainView is what would become of a client's packet, and why.
type ExplainView struct {
	Protocol   string          `json:"protocol"`
	Client     netip.AddrPort  `json:"client"`
	Virtual    netip.AddrPort  `json:"virtual"`
	VNI        uint32          `json:"vni,omitempty"`
	Fate       dataplane.Fate  `json:"fate"`
	Why        string          `json:"why"`
	Service    *ServiceRef     `json:"service,omitempty"`
	Backend    *BackendRef     `json:"backend,omitempty"`
	Connection *ConnView       `json:"connection,omitempty"` // with these addresses and ports that there is
	Template   *ConnView       `json:"template,omitempty"`   // of persistence
	Schedulers []SchedulerView `json:"schedulers,omitempty"` // that were asked: the service's, then its backups'
}

// ServiceRef names a service.
type ServiceRef struct {
	Name      string   `json:"name"`
	VIP       VIP      `json:"vip"`
	VNI       uint32   `json:"vni,omitempty"`
	Port      uint16   `json:"port"`
	PortTo    uint16   `json:"port_to,omitempty"`
	Protocol  string   `json:"protocol"`
	Scheduler string   `json:"scheduler"`
	Flags     []string `json:"flags,omitempty"`
}

// BackendRef names a backend, and how packets come to it.
type BackendRef struct {
	Name     string     `json:"name"`
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	VNI      uint32     `json:"vni,omitempty"`
	Forward  string     `json:"forward"`
	Rewrites bool       `json:"rewrites_source"`    // the server does not see the client's address
	Way      string     `json:"way,omitempty"`      // resolved, unresolved or no_route; nothing of one in a segment
	OutPort  string     `json:"out_port,omitempty"` // of ours
	NextHop  netip.Addr `json:"next_hop,omitzero"`
}

// SchedulerView is a scheduler that was asked, and all that it could choose.
type SchedulerView struct {
	Name       string          `json:"name"`
	Backup     bool            `json:"backup,omitempty"` // of the servers for the time when there is no other
	Why        string          `json:"why"`
	Level      int             `json:"level,omitempty"` // of wrr: the weight that is asked for
	Last       string          `json:"last,omitempty"`  // of rr and wrr: the backend chosen last, where the search goes on
	Candidates []CandidateView `json:"candidates"`
}

// CandidateView is one of the servers to choose from.
type CandidateView struct {
	Name       string     `json:"name"`
	Address    netip.Addr `json:"address"`
	Port       uint16     `json:"port"`
	VNI        uint32     `json:"vni,omitempty"`
	Weight     int        `json:"weight"`
	Active     int        `json:"active"`
	Inactive   int        `json:"inactive"`
	Overloaded bool       `json:"overloaded,omitempty"`
	Usable     bool       `json:"usable"`
	Cost       *float64   `json:"cost,omitempty"` // that is compared, the lowest wins; of schedulers that weigh
	Chosen     bool       `json:"chosen,omitempty"`
}

// questionOf reads a request: protocol=tcp&client=198.18.0.2:40000&virtual=198.18.9.9:80, and perhaps vni.
func questionOf(r *http.Request) (q dataplane.Question, err error) {
	protocol := r.FormValue("protocol")
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return q, fmt.Errorf("protocol %q: must be tcp, udp or sctp", protocol)
	}
	q.Protocol = protocolNumber(protocol)
	if q.VNI, err = vniOf(r); err != nil {
		return q, err
	}
	for name, to := range map[string]*netip.AddrPort{"client": &q.Client, "virtual": &q.Virtual} {
		at, err := netip.ParseAddrPort(r.FormValue(name))
		if err != nil || at.Addr().Zone() != "" {
			return q, fmt.Errorf("%s %q: must be ADDRESS:PORT, such as 198.18.9.9:80 or [2001:db8::9]:80", name, r.FormValue(name))
		}
		*to = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	if q.Client.Addr().Is4() != q.Virtual.Addr().Is4() {
		return q, errors.New("client and virtual must be of one family")
	}
	return q, nil
}

// Explain tells what would become of the first packet of a connection if it came now.
func (c *core) Explain(q dataplane.Question) (v ExplainView, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.VNI != 0 {
		if err := c.known(q.VNI); err != nil {
			return v, err
		}
	}
	x := c.engine.Explain(q, c.now())
	v = ExplainView{Protocol: protocolName(q.Protocol), Client: q.Client, Virtual: q.Virtual, VNI: q.VNI, Fate: x.Fate, Why: fates[x.Fate]}
	if s := x.Service; s != nil {
		v.Service = c.serviceRef(s)
	}
	conn := func(i *conntrack.Info) *ConnView {
		if i == nil {
			return nil
		}
		cv := connView(i, x.Snapshot)
		return &cv
	}
	v.Connection, v.Template = conn(x.Conn), conn(x.Template)
	for i, p := range []*sched.Preview{x.Plan, x.Backup} {
		if p != nil {
			v.Schedulers = append(v.Schedulers, c.schedulerView(p, i == 1))
			if p.Chosen >= 0 && x.Found {
				v.Why = p.Why
			}
		}
	}
	switch {
	case x.Fate == dataplane.FateHost && x.VIP:
		v.Why = "the address is a VIP, but of no service with this protocol and port: the kernel answers"
	case x.Reopens:
		v.Why = "the connection that there is ends, and a new one begins: " + v.Why
	case x.Void:
		v.Why = "the server that the client sticks to is gone or drained: " + v.Why
	}
	if x.Found {
		v.Backend = c.backendRef(&x)
	}
	return v, nil
}

// fates say what each means, where no scheduler says why.
var fates = map[dataplane.Fate]string{
	dataplane.FatePersistent:  "the client sticks to the server of its persistence template",
	dataplane.FateConnection:  "packets of a connection go where its first one went",
	dataplane.FateBackendGone: "it is of a connection whose server was removed: dropped, backend_gone",
	dataplane.FateTableFull:   "the connection table is full: dropped, table_full",
	dataplane.FateNoBackend:   "no server takes new connections: answered with port unreachable",
	dataplane.FateDenied:      "the service does not admit the client (allow, deny): dropped, denied",
	dataplane.FateMartian:     "no packet can come from this address: dropped, martian_source",
	dataplane.FateRouted:      "no VIP: a segment's gateway routes it, or answers",
	dataplane.FateHost:        "no VIP of ours: it is the kernel's",
}

func (c *core) serviceRef(s *dataplane.Service) *ServiceRef {
	ref := &ServiceRef{Name: s.Name, VIP: VIP{s.VIP}, VNI: s.VNI, Port: s.Port, Protocol: protocolName(s.Protocol), Scheduler: s.Plan.Scheduler()}
	if s.Port != s.PortTo {
		ref.PortTo = s.PortTo
		if s.Port == 0 {
			ref.PortTo = 0
		}
	}
	if x := c.reg.services[serviceKey{s.Protocol, s.VIP, s.Port, s.PortTo, s.VNI}]; x != nil && x.from != nil {
		ref.Flags = x.from.Flags
	}
	return ref
}

// bearer is the backend with an ID, nil if there is none any more.
func (c *core) bearer(id uint32) *backend {
	if int(id) < len(c.reg.ids) {
		return c.reg.ids[id]
	}
	return nil
}

func (c *core) schedulerView(p *sched.Preview, backup bool) SchedulerView {
	v := SchedulerView{Name: p.Scheduler, Backup: backup, Why: p.Why, Level: p.Position.Level, Candidates: []CandidateView{}}
	for i := range p.Candidates {
		x := &p.Candidates[i]
		to := CandidateView{Weight: x.Weight, Active: x.Active, Inactive: x.Inactive, Overloaded: x.Overloaded, Usable: x.Usable(), Chosen: i == p.Chosen}
		if b := c.bearer(x.ID); b != nil {
			to.Name, to.Address, to.Port, to.VNI = b.name, b.key.address, b.key.port, b.key.vni
		}
		if x.HasCost {
			to.Cost = &x.Cost
		}
		v.Candidates = append(v.Candidates, to)
	}
	if n := p.Position.Last; (p.Scheduler == "rr" || p.Scheduler == "wrr") && n >= 0 && n < len(v.Candidates) {
		v.Last = v.Candidates[n].Name
	}
	return v
}

func (c *core) backendRef(x *dataplane.Explanation) *BackendRef {
	b := &x.Snapshot.Backends[x.Backend]
	ref := &BackendRef{Address: dataplane.NetipOf(b.Addr, b.V6), Port: b.Port, VNI: b.VNI, Rewrites: x.Rewrites}
	if of := c.bearer(x.Backend); of != nil {
		ref.Name = of.name
		if s := c.reg.services[of.key.service]; s != nil && s.from != nil {
			for y := range backendsOf(s.from, of.key.service) {
				if y.key == of.key {
					ref.Forward = y.config.Forward
				}
			}
		}
	}
	if ref.VNI == 0 {
		ref.Way, ref.OutPort, ref.NextHop = wayTo(x.Snapshot, ref.Address)
	}
	return ref
}
