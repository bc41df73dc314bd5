package importer

import (
	"fmt"
	"math"
	"strings"
)

// server carries out -a, -e and -d.
func (t *ipvsadm) server(at Pos, l *line, s *service) error {
	if !l.has("real-server") {
		return fmt.Errorf("--%s needs -r", l.command)
	}
	text := l.value("real-server")
	a, number, err := t.endpoint(s.protocol, text, s.port)
	if err != nil {
		return fmt.Errorf("server %s: %w", quoted(text), err)
	}
	b := backend{pos: at, address: a, port: number, weight: 1}
	if l.command != "delete-server" {
		if err := t.serverOptions(at, l, s, &b); err != nil {
			return err
		}
	}
	i, there := s.find(&b)
	switch {
	case l.command == "add-server" && there:
		return fmt.Errorf("%s: the server exists already, line %d", hostPort(a, b.port), s.backends[i].pos.Line)
	case l.command == "add-server":
		s.add(b)
	case !there:
		return fmt.Errorf("%s: no such server", hostPort(a, b.port))
	case l.command == "edit-server":
		s.backends[i] = b
	default:
		s.remove(i)
	}
	return nil
}

// serverOptions takes what -a and -e say of a server.
func (t *ipvsadm) serverOptions(at Pos, l *line, s *service, b *backend) (err error) {
	b.forward = "dr" // ipvsadm's default
	methods := 0
	for _, m := range []struct{ option, forward string }{{"gatewaying", "dr"}, {"ipip", "ipip"}, {"masquerading", "nat"}} {
		if l.has(m.option) {
			b.forward = m.forward
			methods++
		}
	}
	if methods > 1 {
		return fmt.Errorf("-g, -i and -m: a server is reached in one way")
	}
	if err := t.tunnel(at, l, b); err != nil {
		return err
	}
	if b.forward == "nat" || b.forward == "dr" {
		if b.address.Is4() != s.vips[0].Is4() {
			return fmt.Errorf("%s: only tunnels go from one address family to the other", b.address)
		}
	}
	if b.forward != "nat" {
		b.port = s.port // the packet stays as it is; ipvsadm does the same
	}
	if l.has("weight") {
		if b.weight, err = integer("--weight", l.value("weight"), 0, math.MaxInt32); err != nil {
			return err
		}
		t.limitWeight(at, b)
	}
	if l.has("u-threshold") {
		if b.upper, err = integer("--u-threshold", l.value("u-threshold"), 0, math.MaxInt32); err != nil {
			return err
		}
	}
	if l.has("l-threshold") {
		if b.lower, err = integer("--l-threshold", l.value("l-threshold"), 0, math.MaxInt32); err != nil {
			return err
		}
	}
	if b.lower > b.upper {
		return fmt.Errorf("the lower threshold %d is above the upper one, %d", b.lower, b.upper)
	}
	return nil
}

// limitWeight holds a weight to what weir has.
func (r *reader) limitWeight(at Pos, b *backend) {
	if b.weight > maxWeight {
		r.notef(at, &b.comments, "weight %d: weir's end at %d, which is taken; divide all weights of the service if their ratio matters", b.weight, maxWeight)
		b.weight = maxWeight
	}
}

// tunnel takes the options of a tunnel.
func (t *ipvsadm) tunnel(at Pos, l *line, b *backend) error {
	var sum string
	for _, o := range []string{"tun-nocsum", "tun-csum", "tun-remcsum"} {
		if l.has(o) {
			if sum != "" {
				return fmt.Errorf("--%s and --%s: one of them", sum, o)
			}
			sum = o
		}
	}
	if b.forward != "ipip" {
		if l.has("tun-type") || l.has("tun-port") || sum != "" {
			return fmt.Errorf("options of tunnels need -i")
		}
		return nil
	}
	kind := "ipip"
	if l.has("tun-type") {
		kind = l.value("tun-type")
	}
	var number int
	if l.has("tun-port") {
		var err error
		if number, err = integer("--tun-port", l.value("tun-port"), 1, 65535); err != nil {
			return err
		}
	}
	return t.encapsulate(at, b, kind, number, strings.TrimPrefix(sum, "tun-"))
}

// encapsulate makes b a tunnel of a kind, with the UDP port of gue and the word for its checksum: nocsum, csum, remcsum or nothing.
func (r *reader) encapsulate(at Pos, b *backend, kind string, port int, sum string) error {
	switch kind {
	case "ipip", "gre", "gue":
	default:
		return fmt.Errorf("unknown tunnel type %s: ipip, gue or gre", quoted(kind))
	}
	if (kind == "gue") != (port != 0) {
		return fmt.Errorf("a gue tunnel needs its port, the others have none")
	}
	if kind == "ipip" && sum != "" || kind == "gre" && sum == "remcsum" {
		return fmt.Errorf("a tunnel of type %s has no %s", kind, sum)
	}
	if sum == "remcsum" {
		r.notef(at, &b.comments, "remcsum: weir does not offload checksums to the server; the tunnel bears none")
	}
	b.forward, b.tunnelPort, b.checksum = kind, uint16(port), sum == "csum"
	return nil
}
