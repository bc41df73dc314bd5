package importer

import (
	"slices"
	"strconv"
)

// server is a real_server or the sorry_server while it is read.
type server struct {
	backend
	method   *method
	pace     pace
	checks   []*check // of which weir has one
	inhibits *block   // inhibit_on_failure; nil: not given
}

// method is a way to forward: NAT, DR or TUN with its options.
type method struct {
	pos     Pos
	forward string
	kind    string
	port    int
	sum     string
}

// newServer begins a real_server or sorry_server, or tells why there is none.
func (v *virtualServer) newServer(x *block) *server {
	a, err := numeric(x.arg(1))
	if err == nil {
		var n uint16
		if n, err = port(v.resolver, "tcp", x.argOr(2, "0")); err == nil {
			return &server{pace: newPace(), backend: backend{pos: x.pos, address: a, port: n, weight: -1}}
		}
	}
	v.errorf(x.pos, "%s: %v", x.key(), err)
	return nil
}

// serverLine takes one line of a real_server.
func (v *virtualServer) serverLine(s *server, x *block) {
	if s.pace.line(v.reader, x) {
		return
	}
	if slices.Contains(checkers, x.key()) {
		if c := v.checker(x, &s.comments); c != nil {
			s.checks = append(s.checks, c)
		}
		return
	}
	switch key := x.key(); key {
	case "inhibit_on_failure":
		s.inhibits = v.toggle(x, s.inhibits)
	case "weight":
		v.number(x, &s.weight)
	case "lvs_method", "lb_kind":
		s.method = v.parseMethod(x)
	case "uthreshold":
		v.number(x, &s.upper)
	case "lthreshold":
		v.number(x, &s.lower)
	default:
		v.quietf(x.pos, "%s: %s", key, why(key))
	}
}

// parseMethod takes NAT, DR or TUN [type ipip|gue|gre] [port N] [nocsum|csum|remcsum].
func (v *virtualServer) parseMethod(x *block) *method {
	m := &method{pos: x.pos, kind: "ipip"}
	switch x.arg(1) {
	case "NAT":
		m.forward = "nat"
	case "DR":
		m.forward = "dr"
	case "TUN":
		m.forward = "ipip"
	default:
		v.errorf(x.pos, "%s must be NAT, DR or TUN, not %s", x.key(), quoted(x.arg(1)))
		return nil
	}
	for i := 2; i < len(x.words); i++ {
		switch w := x.words[i]; w {
		case "type":
			i++
			m.kind = x.arg(i)
		case "port":
			i++
			n, err := integer("the port of a gue tunnel", x.arg(i), 1, 65535)
			if err != nil {
				v.errorf(x.pos, "%s: %v", x.key(), err)
				return nil
			}
			m.port = n
		case "nocsum", "csum", "remcsum":
			m.sum = w
		default:
			v.errorf(x.pos, "%s: unknown option %s", x.key(), quoted(w))
			return nil
		}
	}
	return m
}

// backend makes a server one of s's. What it was left out for is told once, by the first of a group's services.
func (v *virtualServer) backend(s *service, x *server, first bool) (backend, bool) {
	b := x.backend
	b.comments = slices.Clone(b.comments)
	say := v.reader
	if !first {
		say = &reader{}
	}
	at := hostPort(b.address, b.port)
	m := x.method
	if m == nil {
		m = v.method
	}
	if m == nil {
		m = &method{pos: b.pos, forward: "nat"}
	}
	b.forward = m.forward
	if m.forward == "ipip" {
		if err := say.encapsulate(m.pos, &b, m.kind, m.port, m.sum); err != nil {
			say.errorf(m.pos, "%v", err)
		}
	} else if b.address.Is4() != s.vips[0].Is4() {
		say.notef(b.pos, &s.comments, "%s: not of the family of the virtual server; keepalived skips it, too", at)
		return b, false
	}
	if b.forward != "nat" && b.port != s.port {
		if b.port != 0 {
			say.notef(b.pos, &b.comments, "port %d: the packet keeps the service's %d", b.port, s.port)
		}
		b.port = s.port
	}
	if b.weight < 0 {
		b.weight = v.weight
	}
	say.limitWeight(b.pos, &b)
	if b.lower > b.upper {
		say.errorf(b.pos, "%s: lthreshold %d is above uthreshold %d", at, b.lower, b.upper)
	}
	if _, there := s.find(&b); there {
		say.notef(b.pos, &s.comments, "%s is there already; left out", at)
		return b, false
	}
	for i, c := range x.checks {
		if i > 0 {
			say.notef(c.pos, &b.comments, "a server has one check: this second one is not taken over")
			continue
		}
		c = c.settled(x.pace, v.pace)
		if b.forward != "nat" && x.port != 0 && x.port != s.port && !c.has("port") && !slices.Contains([]string{"icmp", "exec"}, c.keys[0][1]) {
			c.set("port", strconv.Itoa(int(x.port))) // where keepalived asks, whatever port packets keep
		}
		if flaw := c.flaw(s, b); flaw != "" {
			say.notef(c.pos, &b.comments, "its check cannot be one of weir's: %s; until you write one the server counts as up", flaw)
			continue
		}
		b.check = c
	}
	return b, true
}
