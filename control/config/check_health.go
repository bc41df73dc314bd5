package config

import (
	"net/netip"
	"slices"
	"strings"
)

// checkHealth checks how a service's servers are watched, and what of it is without effect.
func (d *decoder) checkHealth(s *Service) {
	if s.Check != nil {
		d.checkCheck(s.Check)
	}
	checked, own := 0, 0
	for i := range s.Backends {
		b := &s.Backends[i]
		c := b.Check
		if b.keys == nil || c == nil {
			continue
		}
		if b.Given("check") {
			own++
			d.checkCheck(c)
		}
		if c.Type == "none" {
			continue
		}
		checked++
		if c.Type == "" || b.bad("check") || s.bad("check") {
			continue
		}
		pos, path := b.Field("address"), b.Path
		if b.Given("check") {
			pos, path = c.Pos, c.Path
		}
		switch {
		case b.VNI != 0 && !c.Address.IsValid() && c.Type != "exec":
			d.errorf(pos, path, "%s is in segment %d, where this host is not: give check an address outside, or write check: none for it", b.Address, b.VNI)
		case needsPort(c.Type) && c.Port == 0 && b.Port == 0 && !b.bad("port"):
			d.errorf(pos, path, "its port is the client's, so its check needs a port of its own")
		}
	}
	if s.Check != nil && own == len(s.Backends) && own > 0 && checked == 0 {
		d.warnf(s.Field("check"), s.Path+".check", "has no effect: each backend says check: none")
	}
	unless := func(useful bool, key, why string) {
		if !useful && s.Given(key) && !s.bad(key) {
			d.warnf(s.Field(key), join(s.Path, key), "has no effect %s", why)
		}
	}
	down := anyOf(s.Backends, func(b *Backend) bool { return b.State == "down" })
	watched := checked > 0 || down || s.Passive != nil || s.bad("check") || s.bad("backends")
	unless(watched, "on_down", "without check or passive")
	unless(watched, "inhibit_on_failure", "without check or passive")
	unless(s.Scheduler == "" || slices.Contains(RampedSchedulers, s.Scheduler), "slow_start",
		"with scheduler "+s.Scheduler+": it takes "+strings.Join(RampedSchedulers, ", "))
	if s.Passive != nil && s.Protocol != "" && s.Protocol != "tcp" {
		d.errorf(s.Field("passive"), s.Path+".passive", "is for tcp only, not for %s", s.Protocol)
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Given("drain_timeout") && !b.bad("state") && b.State != "drain" {
			d.warnf(b.Field("drain_timeout"), b.Path+".drain_timeout", "has no effect without state: drain")
		}
	}
}

// checkCheck checks what is written of one check.
func (d *decoder) checkCheck(c *Check) {
	for _, k := range c.keys {
		types := checkKeys[k.key]
		if c.Type != "" && types != nil && !slices.Contains(types, c.Type) {
			d.errorf(c.Field(k.key), join(c.Path, k.key), "is for type: %s only, not for %s", enumerated(types), c.Type)
		}
	}
	for _, keys := range [][2]string{{"send", "send_hex"}, {"send", "send_file"}, {"send_hex", "send_file"}, {"authorization", "authorization_file"}} {
		if c.Given(keys[0]) && c.Given(keys[1]) {
			d.errorf(c.Field(keys[1]), join(c.Path, keys[1]), "%s is given, too: write one of them", keys[0])
		}
	}
	if c.Given("ca_file") && !c.Verify && !c.bad("verify") {
		d.warnf(c.Field("ca_file"), c.Path+".ca_file", "has no effect without verify: true")
	}
	if c.Type == "exec" && !c.bad("command") {
		switch {
		case len(c.Command) == 0:
			d.errorf(c.Pos, c.Path, "command is missing: type: exec needs it")
		case !strings.HasPrefix(c.Command[0], "/"):
			pos, path := d.item(&c.Place, "command", 0)
			d.errorf(pos, path, "must be the program's absolute path, not %s", quoted(c.Command[0]))
		}
	}
	if c.Type == "dns" && c.QueryType == "PTR" && !c.Given("query") {
		d.warnf(c.Field("query_type"), c.Path+".query_type", "asks for the PTR of the root: give query")
	}
	if addr, err := netip.ParseAddr(c.SNI); err == nil && c.Given("sni") {
		d.errorf(c.Field("sni"), c.Path+".sni", "must be a name (RFC 6066 section 3), not %s", addr)
	}
}

// enumerated is words with commas and an "and".
func enumerated(words []string) string {
	n := len(words)
	if n < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
}
