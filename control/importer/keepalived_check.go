package importer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"weir/control/config"
)

// pace is how often, and how patiently, a server is asked. keepalived has it of a virtual server, of a real server and of a checker; the nearest holds.
type pace struct {
	loop, timeout time.Duration // 0: not given
	retry         int           // -1: not given
	alpha         *block        // nil: not given
	host          string        // virtualhost
}

func newPace() pace { return pace{retry: -1} }

// over is p with what is not given as in above.
func (p pace) over(above pace) pace {
	if p.loop == 0 {
		p.loop = above.loop
	}
	if p.timeout == 0 {
		p.timeout = above.timeout
	}
	if p.retry < 0 {
		p.retry = above.retry
	}
	if p.alpha == nil {
		p.alpha = above.alpha
	}
	if p.host == "" {
		p.host = above.host
	}
	return p
}

// line takes one line about pace; it reports whether it was one.
func (p *pace) line(r *reader, x *block) bool {
	switch x.key() {
	case "delay_loop":
		r.timer(x, &p.loop)
	case "connect_timeout":
		r.timer(x, &p.timeout)
	case "retry":
		n, err := integer("retry", x.arg(1), 0, math.MaxInt32)
		if err != nil {
			r.errorf(x.pos, "%v", err)
			return true
		}
		p.retry = n
	case "alpha":
		p.alpha = r.toggle(x, p.alpha)
	case "virtualhost":
		p.host = x.arg(1)
	case "delay_before_retry":
		r.quietf(x.pos, "delay_before_retry: weir asks again after interval, so a server is down after fall times that; make interval shorter if that is too long")
	case "warmup":
		r.quietf(x.pos, "warmup: weir spreads the first checks over a second, and has each begin 5 %% earlier or later")
	default:
		return false
	}
	return true
}

// toggle is x, which holds from now on instead of what was, or what was if keepalived ignores x.
func (r *reader) toggle(x, was *block) *block {
	if _, ok := x.on(); !ok {
		r.quietf(x.pos, "%s %s: must be on or off; keepalived ignores it, too", x.key(), quoted(x.arg(1)))
		return was
	}
	return x
}

// timer takes seconds, with a fraction.
func (r *reader) timer(x *block, to *time.Duration) {
	n, err := strconv.ParseFloat(x.arg(1), 64)
	if err != nil || n <= 0 || n > longest {
		r.errorf(x.pos, "%s must be more than 0 and at most %d seconds, not %s", x.key(), longest, quoted(x.arg(1)))
		return
	}
	*to = time.Duration(n * float64(time.Second))
}

// check is a server's checker while it is read, then as it is printed.
type check struct {
	pos  Pos
	pace pace
	keys [][2]string // in the order that they are printed; a value that begins with [ is a list
}

// has reports whether a key is set.
func (c *check) has(key string) bool {
	return slices.ContainsFunc(c.keys, func(k [2]string) bool { return k[0] == key })
}

// set adds a key, or gives it another value.
func (c *check) set(key, value string) {
	for i := range c.keys {
		if c.keys[i][0] == key {
			c.keys[i][1] = value
			return
		}
	}
	c.keys = append(c.keys, [2]string{key, value})
}

// unlike are keepalived's checkers that weir has nothing like.
var unlike = map[string]string{
	"SMTP_CHECK": `weir does not speak SMTP; the nearest is check: {type: tcp, expect: "220 "}`,
	"BFD_CHECK":  "weir speaks no BFD",
	"FILE_CHECK": "weir watches no files; the nearest is check: {type: exec, command: [...]}",
}

// checker takes a block such as TCP_CHECK. It returns nil, with a note, for what weir cannot ask.
func (r *reader) checker(x *block, comments *[]Note) *check {
	c := &check{pos: x.pos, pace: newPace()}
	if why := unlike[x.key()]; why != "" {
		r.notef(x.pos, comments, "%s: %s; until then the server counts as up", x.key(), why)
		return nil
	}
	types := map[string]string{"TCP_CHECK": "tcp", "HTTP_GET": "http", "SSL_GET": "https", "DNS_CHECK": "dns", "MISC_CHECK": "exec", "UDP_CHECK": "udp", "PING_CHECK": "icmp"}
	c.set("type", types[x.key()])
	urls, dynamic := 0, false
	for _, y := range x.inside {
		if c.pace.line(r, y) {
			continue
		}
		switch key := y.key(); key {
		case "connect_ip":
			c.set("address", y.arg(1))
		case "connect_port":
			if n, err := port(r.resolver, "tcp", y.arg(1)); err != nil {
				r.errorf(y.pos, "%s: %v", key, err)
			} else {
				c.set("port", strconv.Itoa(int(n)))
			}
		case "url":
			if urls++; urls > 1 {
				r.notef(y.pos, comments, "url: a check of weir's asks for one; this one is not asked for")
			} else {
				r.url(c, y, comments)
			}
		case "enable_sni": // weir sends the name that it asks for anyway
		case "type":
			c.set("query_type", y.arg(1))
		case "name":
			c.set("query", y.arg(1))
		case "misc_path":
			r.script(c, y, comments)
		case "misc_timeout":
			r.timer(y, &c.pace.timeout)
		case "payload":
			if h, ok := hexBytes(strings.Join(y.words[1:], " ")); ok {
				c.set("send_hex", fmt.Sprintf("%x", h))
			} else {
				r.notef(y.pos, comments, "payload: is no hexadecimal; an empty datagram is sent")
			}
		case "require_reply":
			r.reply(c, y, comments)
		case "misc_dynamic", "dynamic":
			dynamic = true // such a program hardly ever ends with 0: as a check it would take down servers that are well
			r.notef(y.pos, comments, "%s: keepalived takes an end with 2 to 255 for a success and makes a weight of it, but a check of weir's succeeds with 0 alone; "+
				"until you write one that does the server counts as up", key)
		case "user":
			r.notef(y.pos, comments, "user %s: programs run as weir's own user", y.arg(1))
		default:
			r.quietf(y.pos, "%s: %s has nothing like it in weir's checks", key, x.key())
		}
	}
	if dynamic {
		return nil
	}
	if x.key() == "HTTP_GET" || x.key() == "SSL_GET" {
		if urls == 0 {
			r.notef(x.pos, comments, "%s: it has no url; until then the server counts as up", x.key())
			return nil
		}
		if !c.has("status") {
			c.set("status", "200-299") // keepalived's default
		}
	}
	return c
}

// url takes a url of HTTP_GET or SSL_GET.
func (r *reader) url(c *check, x *block, comments *[]Note) {
	turned := slices.ContainsFunc(x.inside, func(y *block) bool { return y.key() == "regex_no_match" })
	for _, y := range x.inside {
		switch key := y.key(); key {
		case "path":
			c.set("path", y.arg(1))
		case "status_code":
			c.set("status", strings.Join(y.words[1:], ","))
		case "virtualhost":
			c.pace.host = y.arg(1)
		case "regex":
			if !turned {
				c.set("expect_regex", y.arg(1))
			}
		case "regex_no_match":
			r.notef(y.pos, comments, "regex_no_match: a check of weir's wants what it finds; the body is not looked at")
		case "digest":
			r.notef(y.pos, comments, "digest %s: weir compares no digests; the status says that the server serves (expect or expect_regex looks at the body)", y.arg(1))
		default:
			r.quietf(y.pos, "%s: has nothing like it in weir's checks", key)
		}
	}
}

// script takes the program of a MISC_CHECK apart, as keepalived does: words, of which quotes hold some together.
func (r *reader) script(c *check, x *block, comments *[]Note) {
	line := strings.Join(x.words[1:], " ")
	words, _, err := cutWords(strings.ReplaceAll(line, "'", `"`))
	if err != nil || len(words) == 0 {
		r.notef(x.pos, comments, "misc_path %s: is no command", quoted(line))
		return
	}
	c.set("command", "["+strings.Join(words, "\x00"))
}

// reply takes what a UDP_CHECK wants to hear.
func (r *reader) reply(c *check, x *block, comments *[]Note) {
	text := strings.Join(x.words[1:], " ")
	h, ok := hexBytes(text)
	printable := !slices.ContainsFunc(h, func(b byte) bool { return b >= 0x80 })
	switch {
	case text != "" && (!ok || !printable):
		r.notef(x.pos, comments, "require_reply: weir compares text, not bits: any answer will do")
		fallthrough
	case text == "":
		c.set("expect_regex", "^")
	default:
		c.set("expect", string(h))
	}
}

// hexBytes reads keepalived's hexadecimal: words of digits, each taken two by two, a last one alone being a byte.
func hexBytes(text string) (all []byte, ok bool) {
	for _, w := range strings.Fields(text) {
		for i := 0; i < len(w); i += 2 {
			n, err := strconv.ParseUint(w[i:min(i+2, len(w))], 16, 8)
			if err != nil {
				return nil, false
			}
			all = append(all, byte(n))
		}
	}
	return all, len(all) > 0
}

// settled gives c its pace: what of a server, then of its virtual server, holds where the checker says nothing.
func (c *check) settled(server, service pace) *check {
	p := c.pace.over(server).over(service)
	s := &check{pos: c.pos, keys: slices.Clone(c.keys)}
	isType := func(t ...string) bool { return slices.Contains(t, c.keys[0][1]) }
	if p.loop == 0 {
		p.loop = 60 * time.Second
	}
	if p.timeout == 0 {
		if p.timeout = 5 * time.Second; isType("exec") {
			p.timeout = p.loop
		}
	}
	if p.retry < 0 {
		p.retry = map[string]int{"dns": 3, "exec": 0}[c.keys[0][1]]
		if !isType("dns", "exec") {
			p.retry = 1
		}
	}
	within := func(d, low, high time.Duration) string {
		d = min(max(d.Round(10*time.Millisecond), low), high)
		if d%time.Second == 0 {
			return duration(int(d / time.Second))
		}
		return d.String()
	}
	if p.host != "" && isType("http", "https") {
		s.set("host", p.host)
	}
	s.set("interval", within(p.loop, 100*time.Millisecond, time.Hour))
	s.set("timeout", within(p.timeout, 10*time.Millisecond, time.Hour))
	s.set("rise", "1")
	s.set("fall", strconv.Itoa(min(p.retry+1, 100)))
	if p.alpha != nil {
		if on, _ := p.alpha.on(); on { // off of a checker holds against on of its server
			s.set("init_state", "down")
		}
	}
	return s
}

// yaml prints the check.
func (c *check) yaml() node {
	m := mapping()
	m.Style = yaml.FlowStyle
	for _, k := range c.keys {
		list, isList := strings.CutPrefix(k[1], "[")
		if k[0] == "command" && isList {
			m.add(k[0], flowList(strings.Split(list, "\x00")))
		} else if slices.Contains([]string{"rise", "fall", "port"}, k[0]) {
			m.add(k[0], word(k[1]).plain("!!int"))
		} else {
			m.add(k[0], word(k[1]))
		}
	}
	return m
}

// flaw is what weir check would have against c, asked of b; empty if nothing.
func (c *check) flaw(s *service, b backend) string {
	b.check, b.comments, b.forward, b.tunnelPort, b.checksum = c, nil, "nat", 0, false
	if b.address.Is4() != s.vips[0].Is4() {
		b.address = s.vips[0].Next()
	}
	alone := &document{services: []service{{vips: s.vips[:1], port: s.port, protocol: s.protocol, scheduler: "wlc", persistence: s.persistence, backends: []backend{b}}}}
	_, diags := config.Parse("", alone.yaml())
	for _, d := range diags {
		if d.Severity == config.Error && strings.Contains(d.Path, "check") {
			key := strings.TrimPrefix(d.Path[strings.Index(d.Path, "check"):], "check")
			return strings.TrimSpace(strings.TrimPrefix(key, ".") + " " + d.Message)
		}
	}
	return ""
}

// same reports whether two servers are asked alike.
func (c *check) same(o *check) bool {
	return c == o || c != nil && o != nil && maps.Equal(c.byKey(), o.byKey())
}

func (c *check) byKey() map[string]string {
	m := map[string]string{}
	for _, k := range c.keys {
		m[k[0]] = k[1]
	}
	return m
}

// watch gives the service a check if all of its servers have the same one, and else leaves it to each.
func (s *service) watch(inhibit bool) {
	var common *check
	watched := false
	for i := range s.backends {
		b := &s.backends[i]
		if b.backup {
			continue
		}
		watched = watched || b.check != nil
		if common == nil {
			common = b.check
		}
	}
	if !watched {
		return
	}
	// keepalived takes a server out, and the kernel drops its connections' packets; with weight 0 they go on.
	s.onDown, s.inhibit = "reschedule", inhibit
	if inhibit {
		s.onDown = "keep"
	}
	for i := range s.backends {
		if b := &s.backends[i]; !b.backup && !b.check.same(common) {
			return
		}
	}
	s.check = common
	for i := range s.backends {
		b := &s.backends[i]
		b.check, b.unchecked = nil, b.backup
	}
}
