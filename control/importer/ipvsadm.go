package importer

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// IPVSAdm imports rules as ipvsadm-save prints them; file is their name in messages. They are carried out one after the other, as
// ipvsadm-restore does, and what is in the table at the end is printed: edits and removals count.
func IPVSAdm(file string, rules []byte, o Options) Result {
	t := &ipvsadm{reader: newReader(o), byKey: map[string]*service{}, marks: map[string]bool{}}
	if text := strings.TrimPrefix(string(rules), "\ufeff"); checkText(&t.reader, file, text) {
		n := 0
		if strings.HasPrefix(text, "IP Virtual Server version ") {
			t.errorf(t.at(file, 1), "this is a listing, as of ipvsadm -Ln: give what `ipvsadm-save -n` prints")
			text = ""
		}
		for l := range strings.Lines(text) {
			n++
			t.do(t.at(file, n), l)
		}
	}
	d := &document{origin: "the rules of ipvsadm", ports: o.Ports, timeouts: t.timeouts}
	for _, s := range t.services {
		s.settle()
		d.services = append(d.services, *s)
	}
	return t.result(d)
}

// ipvsadm is the table while its rules are carried out.
type ipvsadm struct {
	reader
	services []*service
	byKey    map[string]*service // by protocol and address
	marks    map[string]bool     // firewall marks that have a service, which is left out
	timeouts []timeout
}

// do carries out one line.
func (t *ipvsadm) do(at Pos, text string) {
	words := strings.Fields(text)
	if len(words) > 0 && (words[0] == "ipvsadm" || strings.HasSuffix(words[0], "/ipvsadm")) {
		words = words[1:] // as ipvsadm-restore allows, too
	}
	if len(words) == 0 || words[0][0] == '#' {
		return
	}
	l, err := parseLine(words)
	if err == nil {
		err = t.run(at, l)
	}
	if err != nil {
		t.errorf(at, "%v", err)
	}
}

func (t *ipvsadm) run(at Pos, l *line) error {
	switch l.command {
	case "clear":
		t.services, t.byKey, t.marks = nil, map[string]*service{}, map[string]bool{}
	case "set":
		return t.set(at, l.given["set"])
	case "start-daemon":
		t.notef(at, nil, "--start-daemon %s: weir does not synchronize connections with another balancer", l.value("start-daemon"))
	case "stop-daemon", "zero", "list", "save", "help", "version":
		t.quietf(at, "--%s: no rule", l.command)
	case "restore":
		t.quietf(at, "--restore: rules read by a rule are not followed")
	default:
		return t.rule(at, l)
	}
	return nil
}

// set takes the three timeouts of --set; 0 leaves one as it is.
func (t *ipvsadm) set(at Pos, values []string) error {
	for i, key := range []string{"tcp_established", "tcp_fin_wait", "udp"} {
		n, err := integer("--set", values[i], 0, math.MaxInt32)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		if n > longest {
			t.notef(at, nil, "--set %d: no timeout of weir's is longer than 31 days, %d s", n, longest)
			n = longest
		}
		t.timeouts = slices.DeleteFunc(t.timeouts, func(x timeout) bool { return x.key == key })
		t.timeouts = append(t.timeouts, timeout{key, n})
	}
	return nil
}

// rule carries out a command about a service or one of its servers.
func (t *ipvsadm) rule(at Pos, l *line) error {
	protocol, text := "", ""
	for _, p := range []string{"tcp", "udp", "sctp", "fwmark"} {
		if !l.has(p + "-service") {
			continue
		}
		if protocol != "" {
			return fmt.Errorf("--%s-service and --%s-service: a service is one of them", protocol, p)
		}
		protocol, text = p, l.value(p+"-service")
	}
	switch protocol {
	case "":
		return fmt.Errorf("--%s needs a service: -t, -u or --sctp-service", l.command)
	case "fwmark":
		return t.mark(at, l, text)
	}
	if l.has("ipv6") {
		return fmt.Errorf("-6 is for firewall marks only")
	}
	vip, number, err := t.endpoint(protocol, text, 0)
	if err != nil {
		return fmt.Errorf("service %s: %w", quoted(text), err)
	}
	key := protocol + " " + hostPort(vip, number)
	s := t.byKey[key]
	if s == nil && l.command != "add-service" {
		return fmt.Errorf("%s: no such service", key)
	}
	switch l.command {
	case "add-service":
		if s != nil {
			return fmt.Errorf("%s: the service exists already, line %d", key, s.pos.Line)
		}
		s = &service{pos: at, vips: []netip.Addr{vip}, port: number, protocol: protocol}
		t.services, t.byKey[key] = append(t.services, s), s // whatever its options: its servers are not to blame
		return t.options(at, l, s)
	case "edit-service":
		edited := &service{pos: s.pos, vips: s.vips, port: s.port, protocol: s.protocol, backends: s.backends, at: s.at}
		if err := t.options(at, l, edited); err != nil {
			return err
		}
		*s = *edited
	case "delete-service":
		t.services = slices.DeleteFunc(t.services, func(x *service) bool { return x == s })
		delete(t.byKey, key)
	default:
		return t.server(at, l, s)
	}
	return nil
}

// mark notes what is about a firewall mark.
func (t *ipvsadm) mark(at Pos, l *line, text string) error {
	if _, err := integer("firewall mark", text, 1, math.MaxUint32); err != nil {
		return err
	}
	if !t.marks[text] && l.command != "add-service" {
		return fmt.Errorf("firewall mark %s: no such service", text)
	}
	switch l.command {
	case "add-service":
		t.marks[text] = true
		t.notef(at, nil, "firewall mark %s: weir's services are addresses and ports, not marks; left out", text)
	case "add-server":
		t.notef(at, nil, "firewall mark %s: its server %s is left out with it", text, l.value("real-server"))
	default:
		t.quietf(at, "firewall mark %s: left out", text)
	}
	return nil
}

// endpoint is HOST[:PORT]; without a port it is otherwise.
func (t *ipvsadm) endpoint(protocol, text string, otherwise uint16) (netip.Addr, uint16, error) {
	h, p, given := split(text)
	a, err := address(t.resolver, h)
	if err != nil || !given {
		return a, otherwise, err
	}
	n, err := port(t.resolver, protocol, p)
	return a, n, err
}

// options takes what -A and -E say of a service.
func (t *ipvsadm) options(at Pos, l *line, s *service) error {
	s.scheduler = "wlc" // ipvsadm's default
	if name := l.value("scheduler"); slices.Contains(schedulers, name) {
		s.scheduler = name
	} else if l.has("scheduler") {
		t.notef(at, &s.comments, "scheduler %s: weir has the kernel's own only; wlc instead", quoted(name))
	}
	if l.has("sched-flags") {
		for flag := range strings.SplitSeq(l.value("sched-flags"), ",") {
			name, known := flagOf(l.value("scheduler"), flag)
			switch {
			case !known:
				return fmt.Errorf("unknown scheduler flag %s", quoted(flag))
			case name == "" && !strings.HasPrefix(flag, "flag-"):
				return fmt.Errorf("%s is no flag of scheduler %s", flag, s.scheduler)
			case name == "":
				t.notef(at, &s.comments, "%s: means nothing to scheduler %s", flag, s.scheduler)
			default:
				s.addFlag(name)
			}
		}
	}
	if s.onePacket = l.has("ops"); s.onePacket && s.protocol != "udp" {
		return fmt.Errorf("--ops is for udp only")
	}
	if l.has("persistent") {
		s.persistence = &persistence{seconds: unsetTimeout}
		if v := l.value("persistent"); v != "" {
			n, err := integer("--persistent", v, 1, longest)
			if err != nil {
				return err
			}
			s.persistence.seconds = n
		}
	}
	if l.has("netmask") {
		if err := t.netmask(at, s, "--netmask", l.value("netmask")); err != nil {
			return err
		}
	}
	if l.has("pe") {
		t.notef(at, &s.comments, "--pe %s: persistence is by the client's address only", l.value("pe"))
	}
	if s.port == 0 && s.persistence == nil {
		return fmt.Errorf("port 0 is every port, which needs --persistent")
	}
	return nil
}

// netmask takes the granularity of persistence, a mask for IPv4 and a length for IPv6. It says nothing without persistence.
func (r *reader) netmask(at Pos, s *service, what, text string) error {
	if s.vips[0].Is6() {
		n, err := integer(what, text, 1, 128)
		if err == nil && s.persistence != nil {
			s.persistence.prefix = n
		}
		return err
	}
	mask, err := netip.ParseAddr(text)
	if err != nil || !mask.Is4() {
		return fmt.Errorf("%s: an IPv4 mask is written 255.255.255.0, not %s", what, quoted(text))
	}
	if s.persistence == nil {
		return nil
	}
	n, ok := prefixOf(mask)
	switch {
	case !ok:
		r.notef(at, &s.comments, "%s %s: a mask with holes is no prefix; each client counts by itself instead", what, mask)
		n = 32
	case n == 0:
		r.notef(at, &s.comments, "%s %s: all clients on one server; two halves of the world (prefix 1) instead", what, mask)
		n = 1
	}
	s.persistence.prefix = n
	return nil
}

// integer is a decimal number in a range.
func integer(what, text string, low, high int64) (int, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s must be %d to %d, not %s", what, low, high, quoted(text))
	}
	return int(n), nil
}
