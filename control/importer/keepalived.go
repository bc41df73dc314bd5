package importer

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// Keepalived imports keepalived.conf; file is its name, and files that it includes are read relative to it. id is the host's
// configuration ID, for lines that begin with @.
//
// The services are those that keepalived 2.2 makes when all its checkers are content: real servers are added in the order of the file,
// so that the kernel has them in the reverse order.
func Keepalived(file string, text []byte, id string, o Options) Result {
	r := newReader(o)
	s := &scanner{reader: &r, id: id, defined: map[string]string{}}
	s.file(file, string(text))
	d := &document{origin: "the configuration of keepalived", ports: o.Ports}
	k := &keepalived{reader: &r, document: d, groups: map[string]*group{}, taken: map[string]Pos{}}
	all := s.blocks()
	for _, b := range all {
		if b.key() == "virtual_server_group" {
			k.group(b) // wherever it stands
		}
	}
	for _, b := range all {
		k.top(b)
	}
	for name, g := range k.groups {
		if !g.used {
			k.quietf(g.pos, "virtual_server_group %s: no virtual_server uses it", name)
		}
	}
	return r.result(d)
}

// keepalived makes services of blocks.
type keepalived struct {
	*reader
	*document
	groups map[string]*group
	taken  map[string]Pos // identities of services
}

// group is a virtual_server_group.
type group struct {
	pos     Pos
	members []member
	used    bool
}

// member is one address of a group.
type member struct {
	pos  Pos
	vip  netip.Addr
	port uint16
}

// others are the blocks that weir has no use for, and why.
var others = map[string]string{
	"global_defs":              "settings of keepalived itself",
	"vrrp":                     "weir has no VRRP: let keepalived, BGP or a cluster manager move the addresses",
	"track":                    "is for VRRP, which weir does not have",
	"static":                   "addresses, routes and rules of the host stay with the host",
	"bfd_instance":             "weir speaks no BFD",
	"SSL":                      "weir's checks send no certificate of their own; whose are good say verify and ca_file",
	"linkbeat_interfaces":      "is for VRRP, which weir does not have",
	"linkbeat_use_polling":     "is for VRRP, which weir does not have",
	"garp_group":               "is for VRRP, which weir does not have",
	"interface_up_down_delays": "is for VRRP, which weir does not have",
	"net_namespace":            "start weir in the namespace: ip netns exec",
	"net_namespace_ipvs":       "start weir in the namespace: ip netns exec",
	"namespace_with_ipsets":    "settings of keepalived itself",
	"instance":                 "settings of keepalived itself",
	"use_pid_dir":              "settings of keepalived itself",
	"child_wait_time":          "settings of keepalived itself",
}

// top takes a block of the top level.
func (k *keepalived) top(b *block) {
	switch key := b.key(); key {
	case "virtual_server":
		k.virtualServer(b)
	case "virtual_server_group": // taken before
	case "global_defs":
		k.global(b)
	default:
		why, known := others[key]
		if !known {
			prefix, _, _ := strings.Cut(key, "_")
			why, known = others[prefix]
		}
		if !known {
			why = "not a keyword that keepalived has here"
		}
		k.notef(b.pos, nil, "%s: %s", strings.TrimSpace(key+" "+b.arg(1)), why)
	}
}

// global takes what of keepalived's own settings is about IPVS.
func (k *keepalived) global(b *block) {
	rest := 0
	for _, x := range b.inside {
		switch x.key() {
		case "lvs_timeouts":
			k.globalTimeouts(x)
		case "lvs_sync_daemon":
			k.notef(x.pos, nil, "lvs_sync_daemon: weir does not synchronize connections with another balancer")
		default:
			rest++
		}
	}
	if rest > 0 {
		k.quietf(b.pos, "global_defs: %s", others["global_defs"])
	}
}

// globalTimeouts takes the timeouts of lvs_timeouts, which are those of ipvsadm --set.
func (k *keepalived) globalTimeouts(b *block) {
	for i := 1; i < len(b.words); i += 2 {
		key := map[string]string{"tcp": "tcp_established", "tcpfin": "tcp_fin_wait", "udp": "udp"}[b.words[i]]
		if key == "" {
			k.errorf(b.pos, "lvs_timeouts has tcp, tcpfin and udp, not %s", quoted(b.words[i]))
			return
		}
		n, err := integer("lvs_timeouts "+b.words[i], b.arg(i+1), 1, longest)
		if err != nil {
			k.errorf(b.pos, "%v", err)
			return
		}
		k.timeouts = append(slices.DeleteFunc(k.timeouts, func(t timeout) bool { return t.key == key }), timeout{key, n})
	}
}

// maxRange is how many addresses of one line of a group are written out.
const maxRange = 1024

// group takes a virtual_server_group apart.
func (k *keepalived) group(b *block) {
	name := b.arg(1)
	switch first := k.groups[name]; {
	case name == "":
		k.errorf(b.pos, "virtual_server_group: its name is missing")
		return
	case first != nil:
		k.errorf(b.pos, "virtual_server_group %s is there already, line %d", name, first.pos.Line)
		return
	}
	g := &group{pos: b.pos}
	k.groups[name] = g
	taken := map[netip.AddrPort]bool{}
	for _, x := range b.inside {
		if x.key() == "fwmark" {
			k.notef(x.pos, nil, "fwmark %s: weir's services are addresses and ports, not firewall marks; left out", x.arg(1))
			continue
		}
		from, to, err := addressRange(x.key())
		if err != nil {
			k.errorf(x.pos, "%v", err)
			continue
		}
		number, err := port(k.resolver, "tcp", x.argOr(1, "0"))
		if err != nil {
			k.errorf(x.pos, "%v", err)
			continue
		}
		n := 0
		for a := from; a.IsValid() && a.Compare(to) <= 0; a = a.Next() {
			if n++; n > maxRange {
				k.notef(x.pos, nil, "%s: more than %d addresses; those after %s are left out (a whole prefix can be one VIP: vip: 203.0.113.0/24)",
					x.key(), maxRange, g.members[len(g.members)-1].vip)
				break
			}
			m := member{x.pos, a, number}
			if taken[netip.AddrPortFrom(a, number)] {
				k.quietf(x.pos, "%s is in the group already", hostPort(a, number))
				continue
			}
			taken[netip.AddrPortFrom(a, number)] = true
			g.members = append(g.members, m)
		}
	}
}

// argOr is the n-th argument, or otherwise if there are fewer.
func (b *block) argOr(n int, otherwise string) string {
	if a := b.arg(n); a != "" {
		return a
	}
	return otherwise
}

// addressRange is what keepalived has of ranges: A, A-N (the last part up to N), A-B and A/bits.
func addressRange(text string) (from, to netip.Addr, err error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Bits() == 0:
			return from, to, fmt.Errorf("%s is no range of addresses", quoted(text))
		case p.Masked() != p:
			return from, to, fmt.Errorf("%s has bits beyond its length", text)
		}
		return p.Addr(), last(p), nil
	}
	first, end, ranged := strings.Cut(text, "-")
	if from, err = netip.ParseAddr(first); err != nil || from.Zone() != "" {
		return from, to, fmt.Errorf("%s is no address", quoted(first))
	}
	switch {
	case !ranged:
		return from, from, nil
	case strings.ContainsAny(end, ".:"):
		if to, err = netip.ParseAddr(end); err != nil || to.Is4() != from.Is4() {
			return from, to, fmt.Errorf("%s is no address of the family of %s", quoted(end), from)
		}
	case from.Is4():
		n, err := integer("the end of a range", end, 0, 255)
		if err != nil {
			return from, to, err
		}
		b := from.As4()
		b[3] = byte(n)
		to = netip.AddrFrom4(b)
	default:
		n, err := hexadecimal(end)
		if err != nil {
			return from, to, err
		}
		b := from.As16()
		b[14], b[15] = byte(n>>8), byte(n)
		to = netip.AddrFrom16(b)
	}
	if to.Less(from) {
		return from, to, fmt.Errorf("the range %s ends before it begins", text)
	}
	return from, to, nil
}

// last is the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch host := p.Bits() - 8*i; {
		case host <= 0:
			b[i] = math.MaxUint8
		case host < 8:
			b[i] |= math.MaxUint8 >> host
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
