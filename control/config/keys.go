package config

import (
	"math"
	"path/filepath"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"
)

// The tables of the whole but for services and the overlay. docs/config.md tells the same to users; a test compares the keys.

// rootTable has conntrack before services, which begin from its values.
var rootTable = table[Config]{"", []field[Config]{
	{"version", func(d *decoder, v value, c *Config) { integer(d, v, &c.Version, 1, 1) }},
	{"engine", func(d *decoder, v value, c *Config) { decodeMapping(d, v, &c.Engine, &c.Engine.Place, &engineTable) }},
	{"ports", func(d *decoder, v value, c *Config) { decodeList(d, v, &c.Ports, decodePort) }},
	{"routes", func(d *decoder, v value, c *Config) { decodeList(d, v, &c.Routes, decodeRoute) }},
	{"neighbors", func(d *decoder, v value, c *Config) { decodeList(d, v, &c.Neighbors, decodeNeighbor) }},
	{"conntrack", func(d *decoder, v value, c *Config) {
		decodeMapping(d, v, &c.Conntrack, &c.Conntrack.Place, &conntrackTable)
	}},
	{"services", func(d *decoder, v value, c *Config) { decodeList(d, v, &c.Services, decodeService) }},
	{"limits", func(d *decoder, v value, c *Config) { decodeMapping(d, v, &c.Limits, &c.Limits.Place, &limitsTable) }},
	{"vxlan", func(d *decoder, v value, c *Config) { decodeMapping(d, v, &c.VXLAN, &c.VXLAN.Place, &vxlanTable) }},
	{"admin", func(d *decoder, v value, c *Config) { decodeMapping(d, v, &c.Admin, &c.Admin.Place, &adminTable) }},
	{"bind_vips", func(d *decoder, v value, c *Config) { d.boolean(v, &c.BindVIPs) }},
	{"grace", func(d *decoder, v value, c *Config) { d.duration(v, &c.Grace, 0, 10*time.Minute) }},
	{"include", func(d *decoder, v value, c *Config) {
		decodeList(d, v, &c.Include, func(d *decoder, v value, s *string) bool { d.text(v, s, 4096); return *s != "" })
	}},
}}

// decodeConfig fills the decoder's Config from the document.
func (d *decoder) decodeConfig(root *yaml.Node) {
	c := d.config
	if decodeMapping(d, value{node: follow(root)}, c, &c.Place, &rootTable) {
		d.require(&c.Place, "version", "ports")
	}
}

var engineTable = table[Engine]{"engine", []field[Engine]{
	{"workers", func(d *decoder, v value, e *Engine) { decodeWorkers(d, v, &e.Workers) }},
	{"wait", func(d *decoder, v value, e *Engine) { d.enum(v, &e.Wait, "way to wait", Waits) }},
	{"state_dir", func(d *decoder, v value, e *Engine) { d.stateDir(v, &e.StateDir) }},
}}

// stateDir is a directory, or one of two words for it.
func (d *decoder) stateDir(v value, to *string) {
	before := d.errors
	var s string
	if d.text(v, &s, 4000); d.errors > before { // PATH_MAX, with room for a name in it
		return
	}
	if s != StateAuto && s != StateNone && !filepath.IsAbs(s) {
		d.suggestf(v.pos(), v.path, nearest(s, []string{StateAuto, StateNone}), "must be auto, none or a directory that begins with /, not %s", quoted(s))
		return
	}
	*to = s
}

var workersTable = table[Workers]{"engine.workers", []field[Workers]{
	{"cpus", func(d *decoder, v value, w *Workers) { d.numbers(v, &w.CPUs, maxCPU) }},
}}

const (
	maxCPU     = 4095
	maxQueue   = 1023
	maxWorkers = 256
)

func decodeWorkers(d *decoder, v value, w *Workers) {
	switch {
	case d.schema != nil:
		d.either(schema{"const": "auto"}, whole(1, maxWorkers), d.described(func() { decodeMapping(d, v, w, nil, &workersTable); d.require(nil, "cpus") }))
	case v.node.Kind == yaml.MappingNode:
		before := d.errors
		decodeMapping(d, v, w, nil, &workersTable)
		switch w.Count = len(w.CPUs); {
		case w.Count == 0 && d.errors == before:
			d.errorf(v.pos(), v.path, "cpus is missing")
		case w.Count > maxWorkers:
			d.errorf(v.pos(), v.path, "there can be %d workers, not %d", maxWorkers, w.Count)
		}
	case v.node.Kind == yaml.ScalarNode && v.node.Value == "auto":
		*w = Workers{}
	case v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!int":
		integer(d, v, &w.Count, 1, maxWorkers)
	default:
		near := ""
		if v.node.Kind == yaml.ScalarNode {
			near = nearest(v.node.Value, []string{"auto"})
		}
		d.suggestf(v.pos(), v.path, near, `must be auto, a number or {cpus: "2-5"}, not %s`, kindOf(v.node))
	}
}

var portTable = table[Port]{"ports[]", []field[Port]{
	{"name", func(d *decoder, v value, p *Port) { d.name(v, &p.Name) }},
	{"driver", func(d *decoder, v value, p *Port) { d.enum(v, &p.Driver, "driver", Drivers) }},
	{"interface", func(d *decoder, v value, p *Port) { d.text(v, &p.Interface, 15) }}, // IFNAMSIZ less the NUL
	{"xdp_mode", func(d *decoder, v value, p *Port) { d.enum(v, &p.XDPMode, "XDP mode", XDPModes) }},
	{"xdp_send", func(d *decoder, v value, p *Port) { d.enum(v, &p.XDPSend, "way to send", XDPSends) }},
	{"queues", func(d *decoder, v value, p *Port) { decodeQueues(d, v, &p.Queues) }},
	{"vlan", func(d *decoder, v value, p *Port) { integer(d, v, &p.VLAN, 0, 4094) }},
	{"mac", func(d *decoder, v value, p *Port) { p.HasMAC = d.mac(v, &p.MAC) }},
	{"addresses", func(d *decoder, v value, p *Port) { decodeList(d, v, &p.Addresses, (*decoder).stationPrefix) }},
	{"mtu", func(d *decoder, v value, p *Port) { integer(d, v, &p.MTU, 576, 3500) }},
}}

func decodePort(d *decoder, v value, p *Port) bool {
	*p = Port{Driver: "af_xdp", XDPMode: "auto", XDPSend: "ring", Queues: Queues{All: true}}
	if decodeMapping(d, v, p, &p.Place, &portTable) {
		d.require(&p.Place, "name")
	}
	if p.MTU == 0 && (d.replay || p.Driver != "" && !kernelDevice(p.Driver)) {
		p.MTU = 1500
	}
	return true
}

func decodeQueues(d *decoder, v value, q *Queues) {
	if d.either(schema{"const": "all"}, textLike(numbersPattern)) {
		return
	}
	if v.node.Kind == yaml.ScalarNode && v.node.Value == "all" {
		return
	}
	if v.node.ShortTag() == "!!int" {
		d.errorf(v.pos(), v.path, `must be all or a list such as "0-3": is %s a number of queues, or the queue "%[1]s"?`, abbreviated(v.node.Value))
		return
	}
	q.All = false
	d.numbers(v, &q.List, maxQueue)
}

var routeTable = table[Route]{"routes[]", []field[Route]{
	{"to", func(d *decoder, v value, r *Route) { d.prefix(v, &r.To, false) }},
	{"via", func(d *decoder, v value, r *Route) { d.unicast(v, &r.Via, "a next hop") }},
	{"port", func(d *decoder, v value, r *Route) { d.name(v, &r.Port) }},
}}

func decodeRoute(d *decoder, v value, r *Route) bool {
	if decodeMapping(d, v, r, &r.Place, &routeTable) {
		d.require(&r.Place, "to", "via")
	}
	return true
}

var neighborTable = table[Neighbor]{"neighbors[]", []field[Neighbor]{
	{"address", func(d *decoder, v value, n *Neighbor) { d.unicast(v, &n.Address, "a neighbor") }},
	{"mac", func(d *decoder, v value, n *Neighbor) { d.mac(v, &n.MAC) }},
	{"port", func(d *decoder, v value, n *Neighbor) { d.name(v, &n.Port) }},
}}

func decodeNeighbor(d *decoder, v value, n *Neighbor) bool {
	if decodeMapping(d, v, n, &n.Place, &neighborTable) {
		d.require(&n.Place, "address", "mac", "port")
	}
	return true
}

var conntrackTable = table[Conntrack]{"conntrack", append([]field[Conntrack]{
	{"max_connections", func(d *decoder, v value, c *Conntrack) { integer(d, v, &c.MaxConnections, 1<<10, 1<<26) }},
}, connFields...)}

// connFields may stand in a service, too.
var connFields = []field[Conntrack]{
	{"timeouts", func(d *decoder, v value, c *Conntrack) { decodeMapping(d, v, &c.Timeouts, nil, &timeoutsTable) }},
	{"sloppy_tcp", func(d *decoder, v value, c *Conntrack) { d.boolean(v, &c.SloppyTCP) }},
	{"conn_reuse_mode", func(d *decoder, v value, c *Conntrack) { integer(d, v, &c.ConnReuseMode, 0, 3) }},
	{"expire_nodest_conn", func(d *decoder, v value, c *Conntrack) { d.boolean(v, &c.ExpireNodestConn) }},
	{"syn_cookies", func(d *decoder, v value, c *Conntrack) { d.enum(v, &c.SynCookies, "use of cookies", SynCookies) }},
	{"expire_quiescent_template", func(d *decoder, v value, c *Conntrack) { d.boolean(v, &c.ExpireQuiescentTemplate) }},
}

var timeoutsTable = table[Timeouts]{"conntrack.timeouts", []field[Timeouts]{
	{"tcp_none", timeout(func(t *Timeouts) *time.Duration { return &t.TCPNone })},
	{"tcp_established", timeout(func(t *Timeouts) *time.Duration { return &t.TCPEstablished })},
	{"tcp_syn_sent", timeout(func(t *Timeouts) *time.Duration { return &t.TCPSynSent })},
	{"tcp_syn_recv", timeout(func(t *Timeouts) *time.Duration { return &t.TCPSynRecv })},
	{"tcp_fin_wait", timeout(func(t *Timeouts) *time.Duration { return &t.TCPFinWait })},
	{"tcp_time_wait", timeout(func(t *Timeouts) *time.Duration { return &t.TCPTimeWait })},
	{"tcp_close", timeout(func(t *Timeouts) *time.Duration { return &t.TCPClose })},
	{"tcp_close_wait", timeout(func(t *Timeouts) *time.Duration { return &t.TCPCloseWait })},
	{"tcp_last_ack", timeout(func(t *Timeouts) *time.Duration { return &t.TCPLastAck })},
	{"udp", timeout(func(t *Timeouts) *time.Duration { return &t.UDP })},
}}

func timeout(of func(*Timeouts) *time.Duration) func(*decoder, value, *Timeouts) {
	return func(d *decoder, v value, t *Timeouts) { d.duration(v, of(t), time.Second, longest) }
}

var limitsTable = table[Limits]{"limits", []field[Limits]{
	{"answers", func(d *decoder, v value, l *Limits) { d.rate(v, &l.Answers, 1e6) }},
	{"half_open_per_source", func(d *decoder, v value, l *Limits) { integer(d, v, &l.HalfOpenPerSource, 0, 1<<26) }},
	{"new_per_source", func(d *decoder, v value, l *Limits) { d.rate(v, &l.NewPerSource, 1e6) }},
	{"unusual", func(d *decoder, v value, l *Limits) { d.rate(v, &l.Unusual, 1e7) }},
}}

var adminTable = table[Admin]{"admin", []field[Admin]{
	{"socket", func(d *decoder, v value, a *Admin) { d.text(v, &a.Socket, 107) }}, // sun_path less the NUL
	{"http", func(d *decoder, v value, a *Admin) { d.listenAddress(v, &a.HTTP) }},
	{"token_file", func(d *decoder, v value, a *Admin) { d.text(v, &a.TokenFile, math.MaxInt16) }},
	{"pprof", func(d *decoder, v value, a *Admin) { d.boolean(v, &a.Pprof) }},
	{"hosts", func(d *decoder, v value, a *Admin) { decodeList(d, v, &a.Hosts, decodeOwnName) }},
}}

// hostName is a DNS name, or the first part of one.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

func decodeOwnName(d *decoder, v value, name *string) bool {
	before := d.errors
	if d.text(v, name, 253); d.errors > before {
		return false
	}
	if !hostName.MatchString(*name) {
		d.errorf(v.pos(), v.path, "must be a name such as lb1.example, without scheme or port, not %s", quoted(*name))
		return false
	}
	return true
}
