package config

import (
	"slices"
	"strconv"
	"strings"
)

// Features is what of the configuration this version carries out. The zero value is nothing but ports, services and backends.
type Features struct {
	Drivers, Waits, XDPModes []string
	Protocols, Schedulers    []string
	SchedulerFlags           []string
	Forwards                 []string
	ClientAddresses          []string // of fullnat; none is always there
	Masquerades              []string // never is always there
	ConnReuseModes           []int    // 1 is always there
	Workers                  bool     // other than auto
	Queues                   bool     // other than all
	VLAN                     bool     // of ports
	Routes, Neighbors        bool
	IPv6                     bool // VIPs and backends
	MultipleVIPs             bool // of one service
	PortRanges, AnyPort      bool // ports 8000-8010 and 0 of services
	OnePacket                bool
	Persistence              bool
	Thresholds               bool
	Timeouts, SloppyTCP      bool
	ExpireNodestConn         bool
	ExpireQuiescentTemplate  bool
	ServiceConntrack         bool // conntrack's keys in a service
	AnswerLimit              bool
	VXLAN                    bool // segments
	HTTP                     bool
	DetachedVIPs             bool // bind_vips: false
}

// AllFeatures is the whole of the configuration.
func AllFeatures() Features {
	return Features{
		Drivers: Drivers, Waits: Waits, XDPModes: XDPModes, Protocols: Protocols, Schedulers: Schedulers, SchedulerFlags: SchedulerFlags,
		Forwards: Forwards, ClientAddresses: ClientAddresses, Masquerades: Masquerades, ConnReuseModes: []int{0, 1, 2, 3},
		Workers: true, Queues: true, VLAN: true, Routes: true, Neighbors: true, IPv6: true, MultipleVIPs: true, PortRanges: true,
		AnyPort: true, OnePacket: true, Persistence: true, Thresholds: true, Timeouts: true, SloppyTCP: true, ExpireNodestConn: true,
		ExpireQuiescentTemplate: true, ServiceConntrack: true, AnswerLimit: true, VXLAN: true, HTTP: true, DetachedVIPs: true,
	}
}

// Unsupported names everything in c that have does not cover, as errors in the order of the file. What has its default passes, except
// that the words of enumerated keys (drivers, schedulers, ...) must be among have's, default or not.
func (c *Config) Unsupported(have Features) []Diagnostic {
	u := &unsupported{c: c, have: &have}
	u.word(&c.Engine.Place, "wait", "engine.wait", c.Engine.Wait, have.Waits)
	u.unless(have.Workers, !c.Engine.Workers.Auto(), &c.Engine.Place, "workers", "other than auto")
	for i := range c.Ports {
		u.port(&c.Ports[i])
	}
	u.unless(have.Routes, len(c.Routes) > 0, &c.Place, "routes", "")
	u.unless(have.Neighbors, len(c.Neighbors) > 0, &c.Place, "neighbors", "")
	u.conntrack(&c.Conntrack, &c.Conntrack.Place)
	for i := range c.Services {
		u.service(&c.Services[i])
	}
	u.unless(have.AnswerLimit, !same(c.Limits, plain.Limits), &c.Limits.Place, "answers", "")
	u.unless(have.VXLAN, len(c.VXLAN.Segments) > 0, &c.VXLAN.Place, "segments", "")
	u.unless(have.HTTP, c.Admin.HTTP.IsValid(), &c.Admin.Place, "http", "")
	u.unless(have.DetachedVIPs, !c.BindVIPs, &c.Place, "bind_vips", "false")
	return sorted(u.diags)
}

// plain is a configuration of which no key was given.
var plain = defaults()

// unsupported collects what Unsupported finds.
type unsupported struct {
	c     *Config
	have  *Features
	diags []Diagnostic
}

// unless tells of place's key when it is used but not built. what narrows down which value of it.
func (u *unsupported) unless(built, used bool, place *Place, key, what string) {
	if used && !built {
		u.diags = append(u.diags, u.c.Errorf(place.Field(key), join(place.Path, key), "%s", strings.TrimSpace(what+" is not built into this version")))
	}
}

// word tells of a word that is not among those built. path is place's, where the file may not give place at all.
func (u *unsupported) word(place *Place, key, path, word string, built []string) {
	if slices.Contains(built, word) {
		return
	}
	have := strings.Join(built, ", ")
	if have == "" {
		have = "none"
	}
	u.diags = append(u.diags, u.c.Errorf(place.Field(key), path, "%q is not built into this version (have: %s)", word, have))
}

func (u *unsupported) port(p *Port) {
	u.word(&p.Place, "driver", p.Path+".driver", p.Driver, u.have.Drivers)
	if p.Driver == "af_xdp" {
		u.word(&p.Place, "xdp_mode", p.Path+".xdp_mode", p.XDPMode, u.have.XDPModes)
	}
	u.unless(u.have.Queues, !p.Queues.All, &p.Place, "queues", "other than all")
	u.unless(u.have.VLAN, p.VLAN != 0, &p.Place, "vlan", "")
}

func (u *unsupported) service(s *Service) {
	have := u.have
	u.word(&s.Place, "protocol", s.Path+".protocol", s.Protocol, have.Protocols)
	u.word(&s.Place, "scheduler", s.Path+".scheduler", s.Scheduler, have.Schedulers)
	for _, f := range s.Flags {
		u.word(&s.Place, "flags", s.Path+".flags", f, have.SchedulerFlags)
	}
	vip := "vips"
	if s.Given("vip") {
		vip = "vip"
	}
	u.unless(have.MultipleVIPs, len(s.VIPs) > 1, &s.Place, vip, "more than one")
	for _, a := range s.VIPs {
		u.unless(have.IPv6, a.Is6(), &s.Place, vip, "IPv6")
	}
	u.unless(have.AnyPort, s.Port.Any(), &s.Place, "port", "port 0")
	u.unless(have.PortRanges, !s.Port.Any() && !s.Port.Single(), &s.Place, "port", "a range")
	u.unless(have.OnePacket, s.OnePacket, &s.Place, "one_packet", "")
	u.unless(have.Persistence, s.Persistence != nil, &s.Place, "persistence", "")
	if f := s.FullNAT; f != nil && f.ClientAddress != "none" {
		u.word(&f.Place, "client_address", f.Path+".client_address", f.ClientAddress, have.ClientAddresses)
	}
	if m := s.Masquerade.Mode; m != "never" {
		u.word(&s.Place, "masquerade", s.Path+".masquerade", m, have.Masquerades)
	}
	u.serviceConntrack(s)
	told := s.Given("forward") && !slices.Contains(have.Forwards, s.Forward)
	if told || len(s.Backends) == 0 {
		u.word(&s.Place, "forward", s.Path+".forward", s.Forward, have.Forwards)
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Given("forward") || !told {
			u.word(&b.Place, "forward", b.Path+".forward", b.Forward, have.Forwards)
		}
		u.unless(have.IPv6, b.Address.Is6(), &b.Place, "address", "IPv6")
		u.unless(have.Thresholds, b.UpperThreshold != 0, &b.Place, "upper_threshold", "")
	}
}

// conntrack tells of the keys that place gives c.
func (u *unsupported) conntrack(c *Conntrack, place *Place) {
	have, d := u.have, &plain.Conntrack
	given := func(key string, used bool) bool { return used && place.Given(key) }
	u.unless(have.Timeouts, given("timeouts", c.Timeouts != d.Timeouts), place, "timeouts", "")
	u.unless(have.SloppyTCP, given("sloppy_tcp", c.SloppyTCP), place, "sloppy_tcp", "")
	mode := c.ConnReuseMode
	u.unless(mode == d.ConnReuseMode || slices.Contains(have.ConnReuseModes, mode), given("conn_reuse_mode", true), place, "conn_reuse_mode",
		strconv.Itoa(mode))
	u.unless(have.ExpireNodestConn, given("expire_nodest_conn", c.ExpireNodestConn), place, "expire_nodest_conn", "")
	u.unless(have.ExpireQuiescentTemplate, given("expire_quiescent_template", c.ExpireQuiescentTemplate), place, "expire_quiescent_template", "")
}

// serviceConntrack tells of conntrack's keys in a service: that there are any, or those that are built nowhere.
func (u *unsupported) serviceConntrack(s *Service) {
	if u.have.ServiceConntrack {
		u.conntrack(&s.Conntrack, &s.Place)
		u.conntrack(&s.Conntrack, &s.Conntrack.Place)
		return
	}
	global := u.c.Conntrack
	global.Place = s.Conntrack.Place
	if same(global, s.Conntrack) {
		return // repeats the global values
	}
	for _, f := range connFields {
		for _, place := range []*Place{&s.Place, &s.Conntrack.Place} {
			u.unless(false, place.Given(f.key), place, f.key, "of its own for a service")
		}
	}
}
