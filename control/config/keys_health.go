package config

import (
	"encoding/hex"
	"math"
	"net/url"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// checkTable is of services' checks and of backends', which have the same keys.
var checkTable = table[Check]{"services[].check", []field[Check]{
	{"type", func(d *decoder, v value, c *Check) { d.enum(v, &c.Type, "type of check", CheckTypes) }},
	{"address", func(d *decoder, v value, c *Check) { d.unicast(v, &c.Address, "what is asked") }},
	{"port", func(d *decoder, v value, c *Check) { integer(d, v, &c.Port, 1, 65535) }},
	{"interval", func(d *decoder, v value, c *Check) { d.duration(v, &c.Interval, 100*time.Millisecond, time.Hour) }},
	{"timeout", func(d *decoder, v value, c *Check) { d.duration(v, &c.Timeout, 10*time.Millisecond, time.Hour) }},
	{"rise", func(d *decoder, v value, c *Check) { integer(d, v, &c.Rise, 1, 100) }},
	{"fall", func(d *decoder, v value, c *Check) { integer(d, v, &c.Fall, 1, 100) }},
	{"init_state", func(d *decoder, v value, c *Check) { d.enum(v, &c.InitState, "state", CheckStates) }},
	{"method", func(d *decoder, v value, c *Check) { d.enum(v, &c.Method, "method", CheckMethods) }},
	{"path", func(d *decoder, v value, c *Check) { decodePath(d, v, &c.URI) }},
	{"host", func(d *decoder, v value, c *Check) { decodeHost(d, v, &c.Host) }},
	{"status", func(d *decoder, v value, c *Check) { decodeStatus(d, v, &c.Status) }},
	{"verify", func(d *decoder, v value, c *Check) { d.boolean(v, &c.Verify) }},
	{"ca_file", func(d *decoder, v value, c *Check) { decodeFile(d, v, &c.CAFile) }},
	{"authorization", func(d *decoder, v value, c *Check) { d.text(v, &c.Authorization, maxSecret) }},
	{"authorization_file", func(d *decoder, v value, c *Check) { d.secret(v, &c.Authorization, maxSecret) }},
	{"sni", func(d *decoder, v value, c *Check) { decodeHost(d, v, &c.SNI) }},
	{"send", func(d *decoder, v value, c *Check) { d.bytes(v, &c.Send) }},
	{"send_hex", func(d *decoder, v value, c *Check) { decodeHex(d, v, &c.Send) }},
	{"send_file", func(d *decoder, v value, c *Check) { d.secret(v, &c.Send, maxSend) }},
	{"expect", func(d *decoder, v value, c *Check) { d.bytes(v, &c.Expect) }},
	{"expect_regex", func(d *decoder, v value, c *Check) { decodeRegex(d, v, &c.ExpectRegex) }},
	{"query", func(d *decoder, v value, c *Check) { decodeQuery(d, v, &c.Query) }},
	{"query_type", func(d *decoder, v value, c *Check) { d.enum(v, &c.QueryType, "type of query", QueryTypes) }},
	{"command", func(d *decoder, v value, c *Check) { c.Command = nil; decodeList(d, v, &c.Command, decodeArgument) }},
}}

// checkKeys says which types a key is for. Those that are not here are for all.
var checkKeys = map[string][]string{
	"port":   {"tcp", "http", "https", "udp", "dns"},
	"method": {"http", "https"}, "path": {"http", "https"}, "host": {"http", "https"}, "status": {"http", "https"},
	"authorization": {"http", "https"}, "authorization_file": {"http", "https"}, "verify": {"https"}, "ca_file": {"https"}, "sni": {"https"},
	"send": {"tcp", "udp"}, "send_hex": {"tcp", "udp"}, "send_file": {"tcp", "udp"}, "expect": {"tcp", "udp", "http", "https"}, "expect_regex": {"tcp", "udp", "http", "https"},
	"query": {"dns"}, "query_type": {"dns"}, "command": {"exec"},
}

// decodeCheck takes a check, which begins as base unless that is nil: a mapping, or its type alone.
func decodeCheck(d *decoder, v value, base *Check) *Check {
	c := defaultCheck()
	if base != nil {
		c = *base
	}
	if d.schema != nil {
		d.either(oneOf(CheckTypes), d.described(func() { decodeMapping(d, v, &c, nil, &checkTable) }))
		return nil
	}
	c.Place = Place{Pos: v.pos(), Path: v.path}
	before := d.errors
	if v.node.Kind == yaml.ScalarNode && !isNull(v.node) {
		d.enum(v, &c.Type, "type of check", CheckTypes)
		c.note("type", v.pos(), d.errors > before)
	} else if !decodeMapping(d, v, &c, &c.Place, &checkTable) {
		return nil
	}
	return &c
}

var passiveTable = table[Passive]{"services[].passive", []field[Passive]{
	{"syns", func(d *decoder, v value, p *Passive) { integer(d, v, &p.SYNs, 1, 1e6) }},
	{"for", func(d *decoder, v value, p *Passive) { d.duration(v, &p.For, time.Second, time.Hour) }},
}}

func decodePassive(d *decoder, v value) *Passive {
	p := &Passive{SYNs: 5, For: 10 * time.Second}
	if !decodeMapping(d, v, p, &p.Place, &passiveTable) {
		return nil
	}
	return p
}

// bytes sets to to a text that may hold any character, as YAML's double quotes write them: "PING\r\n".
func (d *decoder) bytes(v value, to *string) {
	if d.describe(schema{"type": "string", "minLength": 1, "maxLength": maxSend}) {
		return
	}
	s, ok := d.scalar(v, "text")
	switch {
	case !ok:
	case v.node.ShortTag() != "!!str":
		d.errorf(v.pos(), v.path, "must be text: write it in quotes, %s", quoted(s))
	case s == "" || len(s) > maxSend:
		d.errorf(v.pos(), v.path, "must be 1 to %d bytes long, not %d", maxSend, len(s))
	default:
		*to = s
	}
}

// maxSend is what fits into one datagram on any link.
const maxSend = 1200

func decodeHex(d *decoder, v value, to *string) {
	if d.either(textLike("^[0-9A-Fa-f ]+$"), whole(0, math.MaxInt64)) { // digits alone are a number for YAML
		return
	}
	s, ok := d.scalar(v, `bytes in hexadecimal such as "0a ff"`)
	if !ok {
		return
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	switch {
	case err != nil:
		d.errorf(v.pos(), v.path, `must be bytes in hexadecimal such as "0a ff", not %s`, quoted(s))
	case len(b) == 0 || len(b) > maxSend:
		d.errorf(v.pos(), v.path, "must be 1 to %d bytes long, not %d", maxSend, len(b))
	default:
		*to = string(b)
	}
}

func decodeRegex(d *decoder, v value, to *string) {
	before := d.errors
	var s string
	if d.text(v, &s, 4096); d.errors > before {
		return
	}
	if _, err := regexp.Compile(s); err != nil {
		d.errorf(v.pos(), v.path, "is no regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return
	}
	*to = s
}

func decodePath(d *decoder, v value, to *string) {
	before := d.errors
	var s string
	if d.text(v, &s, 2048); d.errors > before {
		return
	}
	if !strings.HasPrefix(s, "/") {
		d.suggestf(v.pos(), v.path, "/"+s, "must begin with /: %s", quoted(s))
		return
	}
	if _, err := url.ParseRequestURI(s); err != nil || strings.ContainsAny(s, " #") {
		d.errorf(v.pos(), v.path, "is no path of a URL: %s", quoted(s))
		return
	}
	*to = s
}

func decodeHost(d *decoder, v value, to *string) {
	before := d.errors
	var s string
	if d.text(v, &s, 253); d.errors > before {
		return
	}
	if strings.ContainsAny(s, " /\\@?#") {
		d.errorf(v.pos(), v.path, "must be a name or an address, not %s", quoted(s))
		return
	}
	*to = s
}

func decodeFile(d *decoder, v value, to *string) {
	before := d.errors
	var s string
	if d.text(v, &s, 4096); d.errors > before {
		return
	}
	if !strings.HasPrefix(s, "/") {
		d.errorf(v.pos(), v.path, "must be the file's absolute path, not %s", quoted(s))
		return
	}
	*to = s
}

func decodeStatus(d *decoder, v value, to *[]int) {
	before := d.errors
	var list []int
	if d.numbers(v, &list, 599); d.errors > before || d.schema != nil {
		return
	}
	if list[0] < 100 {
		d.errorf(v.pos(), v.path, "status codes are 100 to 599, not %d", list[0])
		return
	}
	*to = list
}

// decodeQuery takes a domain name, whose labels have 63 bytes at most (RFC 1035 section 2.3.4).
func decodeQuery(d *decoder, v value, to *string) {
	before := d.errors
	var s string
	if d.text(v, &s, 253); d.errors > before {
		return
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if s != "." && (label == "" || len(label) > 63) {
			d.errorf(v.pos(), v.path, "is no domain name: %s", quoted(s))
			return
		}
	}
	*to = s
}

func decodeArgument(d *decoder, v value, s *string) bool {
	before := d.errors
	d.text(v, s, 4096)
	return d.errors == before
}
