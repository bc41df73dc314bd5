package importer

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// virtualServer takes a virtual_server: one address, a group of them, or a firewall mark.
func (k *keepalived) virtualServer(b *block) {
	v := &virtualServer{keepalived: k, service: service{pos: b.pos}, weight: 1, pace: newPace()}
	var members []member
	switch b.arg(1) {
	case "":
		k.errorf(b.pos, "virtual_server: its address is missing")
		return
	case "fwmark":
		k.notef(b.pos, nil, "virtual_server fwmark %s: weir's services are addresses and ports, not firewall marks; left out with its servers", b.arg(2))
		return
	case "group":
		g := k.groups[b.arg(2)]
		if g == nil {
			k.errorf(b.pos, "virtual_server_group %s is not defined", quoted(b.arg(2)))
			return
		}
		g.used = true
		members = g.members
	default:
		a, err := numeric(b.arg(1))
		if err != nil {
			k.errorf(b.pos, "virtual_server: %v", err)
			return
		}
		number, err := port(k.resolver, "tcp", b.argOr(2, "0"))
		if err != nil {
			k.errorf(b.pos, "virtual_server: %v", err)
			return
		}
		members = []member{{b.pos, a, number}}
	}
	v.service.vips = addressesOf(members)
	for _, x := range b.inside {
		v.line(x)
	}
	v.finish(b, members)
}

func addressesOf(members []member) (all []netip.Addr) {
	for _, m := range members {
		all = append(all, m.vip)
	}
	return all
}

// virtualServer is a virtual_server while it is read.
type virtualServer struct {
	*keepalived
	service
	weight   int
	method   *method // nil: not given
	servers  []server
	sorry    *server
	pace     pace
	inhibits *block   // inhibit_on_failure of the whole; nil: not given
	numbered []*block // flag-1 and the like, which mean what the scheduler makes of them
}

// checkers are keepalived's ways to ask a server.
var checkers = []string{"HTTP_GET", "SSL_GET", "TCP_CHECK", "SMTP_CHECK", "DNS_CHECK", "MISC_CHECK", "BFD_CHECK", "UDP_CHECK", "PING_CHECK", "FILE_CHECK"}

// why is the reason for which a keyword of a server is left out.
func why(key string) string {
	switch {
	case key == "ha_suspend":
		return "weir has no VRRP that it could follow"
	case strings.HasPrefix(key, "quorum_"), strings.HasPrefix(key, "notify_"):
		return "weir runs no scripts: watch its log"
	case key == "quorum", key == "hysteresis":
		return "weir serves as long as one server is up, and by backups when none is"
	case key == "omega":
		return "is for scripts, which weir does not run"
	case key == "sorry_server_inhibit":
		return "a backup leaves the list of servers when it is not needed"
	case key == "smtp_alert":
		return "weir sends no mail: watch its metrics"
	case key == "snmp_name":
		return "weir has no SNMP"
	case key == "ip_family":
		return "is for firewall marks"
	case key == "hashed":
		return "means nothing to the kernel either"
	}
	return "not a keyword that keepalived has here"
}

// line takes one line of a virtual_server.
func (v *virtualServer) line(x *block) {
	key := x.key()
	if v.pace.line(v.reader, x) {
		return
	}
	switch key {
	case "lb_algo", "lvs_sched":
		if slices.Contains(schedulers, x.arg(1)) {
			v.scheduler = x.arg(1)
		} else {
			v.notef(x.pos, &v.comments, "%s %s: unknown, wlc instead", key, quoted(x.arg(1)))
		}
	case "flag-1", "flag-2", "flag-3":
		v.numbered = append(v.numbered, x)
	case "sh-port", "sh-fallback", "mh-port", "mh-fallback":
		if name, _ := flagOf(v.scheduler, key); name != "" {
			v.addFlag(name)
		} else {
			v.notef(x.pos, &v.comments, "%s: no flag of the scheduler that was set up to here; keepalived ignores it, too", key)
		}
	case "ops":
		v.onePacket = true
	case "lb_kind", "lvs_method":
		v.method = v.parseMethod(x)
	case "persistence_timeout":
		v.persist(x)
	case "persistence_granularity":
		v.granularity(x)
	case "persistence_engine":
		v.notef(x.pos, &v.comments, "persistence_engine %s: persistence is by the client's address only", x.arg(1))
	case "protocol":
		p := strings.ToLower(x.arg(1))
		if p != "tcp" && p != "udp" && p != "sctp" {
			v.errorf(x.pos, "protocol must be TCP, UDP or SCTP, not %s", quoted(x.arg(1)))
		}
		v.protocol = p
	case "weight":
		v.number(x, &v.weight)
	case "sorry_server":
		if v.sorry = v.newServer(x); v.sorry != nil {
			v.sorry.weight = 1 // whatever the others have by default
		}
	case "sorry_server_lvs_method":
		if v.sorry == nil {
			v.errorf(x.pos, "%s: there is no sorry_server before it", key)
			return
		}
		v.sorry.method = v.parseMethod(x)
	case "inhibit_on_failure":
		v.inhibits = x
	case "quorum":
		if x.arg(1) != "1" { // one is what it is without the line
			v.notef(x.pos, &v.comments, "quorum %s: %s", x.arg(1), why(key))
		}
	case "real_server":
		if s := v.newServer(x); s != nil {
			for _, y := range x.inside {
				v.serverLine(s, y)
			}
			v.servers = append(v.servers, *s)
		}
	default:
		v.quietf(x.pos, "%s: %s", key, why(key))
	}
}

func (v *virtualServer) persist(x *block) {
	seconds := unsetTimeout
	if len(x.words) > 1 {
		n, err := integer(x.key(), x.arg(1), 0, longest)
		if err != nil {
			v.errorf(x.pos, "%v", err)
			return
		}
		if n == 0 {
			v.quietf(x.pos, "persistence_timeout 0: no persistence")
			return
		}
		seconds = n
	}
	if v.persistence == nil {
		v.persistence = &persistence{}
	}
	v.persistence.seconds = seconds
}

func (v *virtualServer) granularity(x *block) {
	if len(v.vips) == 0 {
		return
	}
	if v.persistence == nil {
		v.persistence = &persistence{seconds: unsetTimeout}
	}
	if err := v.netmask(x.pos, &v.service, x.key(), x.arg(1)); err != nil {
		v.errorf(x.pos, "%v", err)
	}
}

// number takes the number that x gives.
func (v *virtualServer) number(x *block, to *int) {
	n, err := integer(x.key(), x.arg(1), 0, math.MaxInt32)
	if err != nil {
		v.errorf(x.pos, "%v", err)
		return
	}
	*to = n
}

// finish puts together what was read, and makes a service of each port that members have, in each family.
func (v *virtualServer) finish(b *block, members []member) {
	s := &v.service
	if len(v.servers) == 0 {
		v.notef(b.pos, nil, "virtual_server %s has no real_server; keepalived ignores it, too", strings.Join(b.words[1:], " "))
		return
	}
	if s.scheduler == "" {
		s.scheduler = "wlc"
	}
	for _, x := range v.numbered {
		if name, _ := flagOf(s.scheduler, x.key()); name != "" {
			s.addFlag(name)
		} else {
			v.notef(x.pos, &s.comments, "%s: means nothing to scheduler %s", x.key(), s.scheduler)
		}
	}
	if s.protocol == "" {
		s.protocol = "udp"
		v.notef(b.pos, &s.comments, "no protocol is given: UDP, as keepalived takes it")
	}
	if s.onePacket && s.protocol != "udp" {
		s.onePacket = false
		v.notef(b.pos, &s.comments, "ops is for UDP only; keepalived ignores it, too")
	}
	if s.persistence == nil && slices.ContainsFunc(members, func(m member) bool { return m.port == 0 }) {
		s.persistence = &persistence{seconds: unsetTimeout}
		v.notef(b.pos, &s.comments, "port 0 is every port, which needs persistence: %d s, as keepalived takes it", unsetTimeout)
	}
	if len(members) == 0 {
		v.notef(b.pos, nil, "virtual_server %s: nothing is left of its group; left out with its servers", strings.Join(b.words[1:], " "))
		return
	}
	type kind struct {
		port uint16
		v6   bool
	}
	byKind := map[kind]*service{}
	var order []kind
	for _, m := range members {
		identity := s.protocol + " " + hostPort(m.vip, m.port)
		if first, ok := v.taken[identity]; ok {
			v.errorf(m.pos, "%s is there already, line %d", identity, first.Line)
			continue
		}
		v.taken[identity] = m.pos
		x := kind{m.port, m.vip.Is6()}
		if byKind[x] == nil {
			each := *s
			each.port, each.vips = m.port, nil
			each.comments = slices.Clone(s.comments)
			byKind[x] = &each
			order = append(order, x)
		}
		byKind[x].vips = append(byKind[x].vips, m.vip)
	}
	for n, x := range order {
		each := byKind[x]
		v.fill(each, n == 0)
		v.document.services = append(v.document.services, *each)
	}
}

// fill makes the servers s's. Only the first of several services of a group tells what is left out.
func (v *virtualServer) fill(s *service, first bool) {
	for i := range v.servers {
		if b, ok := v.backend(s, &v.servers[i], first); ok {
			s.add(b)
		}
	}
	var backup []backend
	if v.sorry != nil {
		if b, ok := v.backend(s, v.sorry, first); ok {
			b.backup = true
			backup = append(backup, b)
		}
	}
	s.settle()
	s.backends = append(s.backends, backup...)
	s.watch(v.inhibit(first))
}

// inhibit reports whether servers that are down keep their place, which weir has of a whole service.
func (v *virtualServer) inhibit(tell bool) bool {
	var some *block
	all := true
	for i := range v.servers {
		x := v.servers[i].inhibits
		if x == nil {
			x = v.inhibits // which has no word behind it that counts
		} else if on, _ := x.on(); !on {
			x = nil
		}
		if x != nil {
			some = x
		} else {
			all = false
		}
	}
	if all && some != nil {
		return true
	}
	if some != nil && tell {
		v.notef(some.pos, &v.comments, "inhibit_on_failure: weir has it of a service, not of one server; not taken over")
	}
	return false
}

// numeric is an address; keepalived asks no DNS here.
func numeric(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%s is no address", quoted(text))
	}
	return a.Unmap(), nil
}

func hexadecimal(text string) (int, error) {
	n, err := strconv.ParseUint(text, 16, 16)
	if err != nil {
		return 0, fmt.Errorf("the end of a range must be 0 to ffff, not %s", quoted(text))
	}
	return int(n), nil
}
