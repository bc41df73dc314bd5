package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.yaml.in/yaml/v3"
)

var serviceTable = table[Service]{"services[]", append([]field[Service]{
	{"name", func(d *decoder, v value, s *Service) { d.name(v, &s.Name) }},
	{"vip", func(d *decoder, v value, s *Service) { decodeVIPs(d, v, s, false) }},
	{"vips", func(d *decoder, v value, s *Service) { decodeVIPs(d, v, s, true) }},
	{"port", func(d *decoder, v value, s *Service) { d.ports(v, &s.Port, true) }},
	{"protocol", func(d *decoder, v value, s *Service) { d.enum(v, &s.Protocol, "protocol", Protocols) }},
	{"scheduler", func(d *decoder, v value, s *Service) { d.enum(v, &s.Scheduler, "scheduler", Schedulers) }},
	{"flags", func(d *decoder, v value, s *Service) { decodeList(d, v, &s.Flags, decodeFlag) }},
	{"forward", func(d *decoder, v value, s *Service) { d.enum(v, &s.Forward, "way to forward", Forwards) }},
	{"one_packet", func(d *decoder, v value, s *Service) { d.boolean(v, &s.OnePacket) }},
	{"persistence", func(d *decoder, v value, s *Service) { s.Persistence = decodePersistence(d, v) }},
	{"fullnat", func(d *decoder, v value, s *Service) { s.FullNAT = decodeFullNAT(d, v) }},
	{"masquerade", func(d *decoder, v value, s *Service) { decodeMasquerade(d, v, &s.Masquerade) }},
	{"udp_active", func(d *decoder, v value, s *Service) { d.boolean(v, &s.UDPActive) }},
	{"hash_seed", func(d *decoder, v value, s *Service) { decodeSeed(d, v, &s.HashSeed) }},
	{"hash_seed_file", func(d *decoder, v value, s *Service) {
		var text string
		if d.secret(v, &text, maxSecret); text != "" {
			s.HashSeed = seedOf(text)
		}
	}},
	{"mh_table", func(d *decoder, v value, s *Service) { decodeMHTable(d, v, &s.MHTable) }},
	{"allow", func(d *decoder, v value, s *Service) { decodeList(d, v, &s.Allow, decodeNetwork) }},
	{"deny", func(d *decoder, v value, s *Service) { decodeList(d, v, &s.Deny, decodeNetwork) }},
	{"vni", func(d *decoder, v value, s *Service) { integer(d, v, &s.VNI, 1, maxVNI) }},
	{"conntrack", func(d *decoder, v value, s *Service) {
		decodeMapping(d, v, &s.Conntrack, &s.Conntrack.Place, &serviceConntrackTable)
	}},
	{"check", func(d *decoder, v value, s *Service) { s.Check = decodeCheck(d, v, nil) }},
	{"on_down", func(d *decoder, v value, s *Service) { d.enum(v, &s.OnDown, "word", OnDowns) }},
	{"inhibit_on_failure", func(d *decoder, v value, s *Service) { d.boolean(v, &s.Inhibit) }},
	{"slow_start", func(d *decoder, v value, s *Service) { d.duration(v, &s.SlowStart, 0, time.Hour) }},
	{"passive", func(d *decoder, v value, s *Service) { s.Passive = decodePassive(d, v) }},
	{"drain_timeout", func(d *decoder, v value, s *Service) { d.duration(v, &s.DrainTimeout, 0, longest) }},
	{"backends", func(d *decoder, v value, s *Service) {
		decodeList(d, v, &s.Backends, func(d *decoder, v value, b *Backend) bool { return decodeBackend(d, v, s, b) })
	}},
}, connFieldsOf(func(s *Service) *Conntrack { return &s.Conntrack })...)}

// connFieldsOf are connFields as keys of what has a Conntrack.
func connFieldsOf[T any](of func(*T) *Conntrack) (fields []field[T]) {
	for _, f := range connFields {
		fields = append(fields, field[T]{f.key, func(d *decoder, v value, to *T) { f.set(d, v, of(to)) }})
	}
	return fields
}

// serviceConntrackTable lets a service give the same keys in a section of the same name, for whoever copies the global one.
var serviceConntrackTable = table[Conntrack]{"services[].conntrack", connFields}

func decodeService(d *decoder, v value, s *Service) bool {
	*s = Service{Protocol: "tcp", Scheduler: "wlc", Forward: "nat", Masquerade: Masquerade{Mode: "never"}, MHTable: MHTables[0], Conntrack: d.config.Conntrack,
		OnDown: OnDowns[0]}
	s.Conntrack.Place = Place{} // the service's own section, if it has one
	if !decodeMapping(d, v, s, &s.Place, &serviceTable) {
		return true
	}
	d.require(&s.Place, "port")
	for i := range s.Backends {
		s.complete(&s.Backends[i])
	}
	if !s.Given("name") && len(s.VIPs) > 0 && s.Port != (PortRange{}) {
		s.Name = s.Protocol + "-" + s.endpoint(s.VIPs[0])
	}
	if s.VNI != 0 && !s.Given("masquerade") && anyOf(s.Backends, func(b *Backend) bool { return masquerades(b.Forward) }) {
		s.Masquerade.Mode = "always" // a tenant's address is known in its segment alone, and there servers would answer past us
	}
	return true
}

// complete gives b what it takes from s where it says nothing itself.
func (s *Service) complete(b *Backend) {
	if !b.Given("forward") {
		b.Forward = s.Forward
	}
	if b.Port == 0 && !b.bad("port") && s.Port.Single() {
		b.Port = s.Port.From // the client's port is the service's, whichever of the two was meant
	}
	if !b.Given("tunnel_port") {
		b.TunnelPort = 0
		if b.Forward == "gue" {
			b.TunnelPort = 6080 // as IANA has it for GUE
		}
	}
	if !b.Given("name") && b.Address.IsValid() {
		b.Name = b.identity()
	}
}

// newBackend is a backend of s of which no key was given.
func (s *Service) newBackend() Backend {
	return Backend{Weight: 1, Check: s.Check, State: States[0], DrainTimeout: s.DrainTimeout}
}

// endpoint is where a VIP's service is: 198.18.9.9:80, in a segment with its VNI, 172.16.1.100:80@5001.
func (s *Service) endpoint(vip netip.Prefix) string {
	at := hostPort(vip, s.Port)
	if s.VNI != 0 {
		at += "@" + strconv.Itoa(int(s.VNI))
	}
	return at
}

// hostPort is an address with its port or ports, in the usual form: 198.18.9.9:80, [2001:db8::1]:8000-8010.
func hostPort(vip netip.Prefix, p PortRange) string {
	return net.JoinHostPort(VIPText(vip), p.String())
}

// String is the range as it is written: 80, 8000-8010, or 0 for every port.
func (p PortRange) String() string {
	switch {
	case p.From == 0:
		return "0"
	case p.From == p.To:
		return strconv.Itoa(int(p.From))
	}
	return fmt.Sprintf("%d-%d", p.From, p.To)
}

// identity tells backends of one service apart.
func (b *Backend) identity() string {
	id := netip.AddrPortFrom(b.Address, b.Port).String()
	if b.VNI != 0 {
		id += "@" + strconv.Itoa(int(b.VNI))
	}
	return id
}

// decodeVIPs takes one VIP or a list of them. Both keys at once are the check's matter.
func decodeVIPs(d *decoder, v value, s *Service, list bool) {
	vip := func(d *decoder, v value, vip *netip.Prefix) bool {
		if d.either(textLike(addressPattern), textLike(prefixPattern)) {
			return false
		}
		if strings.Contains(v.node.Value, "/") {
			if !d.prefix(v, vip, false) {
				return false
			}
			least := 8
			if vip.Addr().Is6() {
				least = 32
			}
			switch why := NotUnicast(vip.Addr()); {
			case why != "":
				d.errorf(v.pos(), v.path, "a VIP cannot be %s: %s", why, vip)
			case vip.Bits() < least:
				d.errorf(v.pos(), v.path, "a VIP's length must be %d at least: %s", least, vip)
			default:
				return d.aVIP(v, vip.Addr())
			}
			return false
		}
		var a netip.Addr
		if !d.unicast(v, &a, "a VIP") || !d.aVIP(v, a) {
			return false
		}
		*vip = netip.PrefixFrom(a, a.BitLen())
		return true
	}
	if d.schema != nil && !list {
		d.either(textLike(addressPattern), textLike(prefixPattern))
		return
	}
	if list {
		decodeList(d, v, &s.VIPs, vip)
		return
	}
	if v.node.Kind == yaml.SequenceNode {
		d.errorf(v.pos(), v.path, "must be one address: write a list of them as vips")
		return
	}
	var a netip.Prefix
	if vip(d, v, &a) {
		s.VIPs = append(s.VIPs, a)
	}
}

// aVIP reports whether a can be a VIP, or the beginning of one.
func (d *decoder) aVIP(v value, a netip.Addr) bool {
	if a.Is6() && a.IsLinkLocalUnicast() {
		d.errorf(v.pos(), v.path, "a VIP cannot be a link-local address: %s", a)
		return false
	}
	return true
}

func decodeFlag(d *decoder, v value, flag *string) bool {
	d.enum(v, flag, "flag", SchedulerFlags)
	return *flag != ""
}

// decodeSeed takes any text, so that a secret need not be a number: its xxhash is the seed.
func decodeSeed(d *decoder, v value, seed *uint64) {
	if d.describe(schema{"type": []string{"string", "integer", "number", "boolean"}}) {
		return
	}
	text, ok := d.scalar(v, "a secret")
	switch {
	case !ok:
	case text == "":
		d.errorf(v.pos(), v.path, "is empty: leave it out for the kernel's own hash")
	default:
		*seed = seedOf(text)
	}
}

func seedOf(text string) uint64 {
	return xxhash.Sum64String(text) | 1 // not zero, which means the kernel's constants
}

func decodeMHTable(d *decoder, v value, slots *int) {
	if d.describe(schema{"enum": MHTables}) {
		return
	}
	n := 0
	if integer(d, v, &n, 251, 131071); n == 0 {
		return
	}
	if !slices.Contains(MHTables, n) {
		d.errorf(v.pos(), v.path, "must be one of the primes %s, not %d", listOf(MHTables), n)
		return
	}
	*slots = n
}

// listOf is numbers in ascending order with commas.
func listOf(numbers []int) string {
	var words []string
	for _, n := range slices.Sorted(slices.Values(numbers)) {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ", ")
}

func decodeNetwork(d *decoder, v value, p *netip.Prefix) bool { return d.prefix(v, p, false) }

var persistenceTable = table[Persistence]{"services[].persistence", []field[Persistence]{
	{"timeout", func(d *decoder, v value, p *Persistence) { d.duration(v, &p.Timeout, time.Second, longest) }},
	{"prefix", func(d *decoder, v value, p *Persistence) { integer(d, v, &p.Prefix, 1, 32) }},
	{"prefix6", func(d *decoder, v value, p *Persistence) { integer(d, v, &p.Prefix6, 1, 128) }},
}}

func decodePersistence(d *decoder, v value) *Persistence {
	if isNull(v.node) {
		return nil
	}
	p := &Persistence{Timeout: 300 * time.Second, Prefix: 32, Prefix6: 128}
	decodeMapping(d, v, p, &p.Place, &persistenceTable)
	return p
}

var fullNATTable = table[FullNAT]{"services[].fullnat", []field[FullNAT]{
	{"addresses", func(d *decoder, v value, f *FullNAT) {
		decodeList(d, v, &f.Addresses, func(d *decoder, v value, a *netip.Addr) bool { return d.routable(v, a, "a fullnat address") })
	}},
	{"ports", func(d *decoder, v value, f *FullNAT) { d.ports(v, &f.Ports, false) }},
	{"client_address", func(d *decoder, v value, f *FullNAT) {
		d.enum(v, &f.ClientAddress, "way to pass on the client's address", ClientAddresses)
	}},
}}

func decodeFullNAT(d *decoder, v value) *FullNAT {
	if isNull(v.node) {
		return nil
	}
	f := &FullNAT{Ports: PortRange{32768, 60999}, ClientAddress: "none"}
	if decodeMapping(d, v, f, &f.Place, &fullNATTable) && d.schema == nil && len(f.Addresses) == 0 && !f.bad("addresses") {
		d.errorf(f.Pos, f.Path, "addresses is missing")
	}
	return f
}

var masqueradeTable = table[Masquerade]{"services[].masquerade", []field[Masquerade]{
	{"except", func(d *decoder, v value, m *Masquerade) {
		decodeList(d, v, &m.Except, decodeNetwork)
	}},
}}

func decodeMasquerade(d *decoder, v value, m *Masquerade) {
	if d.schema != nil {
		d.either(oneOf(Masquerades[:3]), d.described(func() { decodeMapping(d, v, m, nil, &masqueradeTable); d.require(nil, "except") }))
		return
	}
	if v.node.Kind != yaml.MappingNode {
		d.enum(v, &m.Mode, "masquerade", Masquerades[:3])
		return
	}
	m.Mode = "except"
	before := d.errors
	if decodeMapping(d, v, m, nil, &masqueradeTable); len(m.Except) == 0 && d.errors == before {
		d.errorf(v.pos(), v.path, "except is missing: masquerade without exception is written always")
	}
}

var backendTable = table[Backend]{"services[].backends[]", []field[Backend]{
	{"name", func(d *decoder, v value, b *Backend) { d.name(v, &b.Name) }},
	{"address", func(d *decoder, v value, b *Backend) { d.routable(v, &b.Address, "a backend") }},
	{"port", func(d *decoder, v value, b *Backend) { integer(d, v, &b.Port, 0, 65535) }},
	{"weight", func(d *decoder, v value, b *Backend) { integer(d, v, &b.Weight, 0, 65535) }},
	{"upper_threshold", func(d *decoder, v value, b *Backend) { integer(d, v, &b.UpperThreshold, 0, math.MaxInt32) }},
	{"lower_threshold", func(d *decoder, v value, b *Backend) { integer(d, v, &b.LowerThreshold, 0, math.MaxInt32) }},
	{"forward", func(d *decoder, v value, b *Backend) { d.enum(v, &b.Forward, "way to forward", Forwards) }},
	{"backup", func(d *decoder, v value, b *Backend) { d.boolean(v, &b.Backup) }},
	{"tunnel_checksum", func(d *decoder, v value, b *Backend) { d.boolean(v, &b.TunnelChecksum) }},
	{"tunnel_port", func(d *decoder, v value, b *Backend) { integer(d, v, &b.TunnelPort, 1, 65535) }},
	{"vni", func(d *decoder, v value, b *Backend) { integer(d, v, &b.VNI, 1, maxVNI) }},
	{"check", func(d *decoder, v value, b *Backend) { b.Check = decodeCheck(d, v, b.Check) }},
	{"state", func(d *decoder, v value, b *Backend) { d.enum(v, &b.State, "state", States) }},
	{"drain_timeout", func(d *decoder, v value, b *Backend) { d.duration(v, &b.DrainTimeout, 0, longest) }},
}}

// decodeBackend takes a backend of s, whose own keys that backends begin from stand before backends in its table.
func decodeBackend(d *decoder, v value, s *Service, b *Backend) bool {
	*b = s.newBackend()
	if decodeMapping(d, v, b, &b.Place, &backendTable) {
		d.require(&b.Place, "address")
	}
	return true
}
