package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// address sets to to an IP address. An IPv4 address written as IPv6 is refused rather than guessed at, and so is a zone, which a
// port's name tells better.
func (d *decoder) address(v value, to *netip.Addr) bool {
	if d.describe(textLike(addressPattern)) {
		return false
	}
	s, ok := d.scalar(v, "an IP address")
	if !ok {
		return false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		suggestion := ""
		if p, err := netip.ParsePrefix(s); err == nil {
			suggestion = p.Addr().String()
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be an IP address, not %s", quoted(s))
		return false
	case a.Zone() != "":
		d.suggestf(v.pos(), v.path, a.WithZone("").String(), "an address cannot have a zone here: %s", quoted(s))
		return false
	case a.Is4In6():
		d.suggestf(v.pos(), v.path, a.Unmap().String(), "%s is an IPv4 address written as IPv6", quoted(s))
		return false
	}
	*to = a
	return true
}

// routable is unicast for what is reached by route: a link-local address does not say by which port.
func (d *decoder) routable(v value, to *netip.Addr, what string) bool {
	var a netip.Addr
	if !d.unicast(v, &a, what) {
		return false
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		d.errorf(v.pos(), v.path, "%s cannot be a link-local address: %s", what, a)
		return false
	}
	*to = a
	return true
}

// unicast is address for what must be one station's: it refuses what no station can have or be reached by. what names it, for the message.
func (d *decoder) unicast(v value, to *netip.Addr, what string) bool {
	var a netip.Addr
	if !d.address(v, &a) {
		return false
	}
	if why := NotUnicast(a); why != "" {
		d.errorf(v.pos(), v.path, "%s cannot be %s: %s", what, why, a)
		return false
	}
	*to = a
	return true
}

// NotUnicast says why a is no station's address, such as a VIP's or a backend's, or "".
func NotUnicast(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a.Is4() && a.As4()[0] == 0:
		return "an address of this network (RFC 1122 section 3.2.1.3)"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}

// prefix sets to to an address with the length of its network. hostBits says whether bits beyond the length may be set.
func (d *decoder) prefix(v value, to *netip.Prefix, hostBits bool) bool {
	example := "198.18.128.0/17"
	if hostBits {
		example = "198.18.0.1/24"
	}
	if d.describe(textLike(prefixPattern)) {
		return false
	}
	s, ok := d.scalar(v, "a prefix such as "+example)
	if !ok {
		return false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		suggestion := ""
		if a, err := netip.ParseAddr(s); err == nil && !hostBits && a.Zone() == "" {
			suggestion = netip.PrefixFrom(a, a.BitLen()).String()
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be a prefix such as %s, not %s", example, quoted(s))
		return false
	case p.Addr().Is4In6():
		d.errorf(v.pos(), v.path, "%s is IPv4 written as IPv6", quoted(s))
		return false
	case !hostBits && p != p.Masked():
		d.suggestf(v.pos(), v.path, p.Masked().String(), "%s has bits set beyond its length", quoted(s))
		return false
	}
	*to = p
	return true
}

// stationPrefix is prefix for the address of a station in its network.
func (d *decoder) stationPrefix(v value, to *netip.Prefix) bool {
	var p netip.Prefix
	if !d.prefix(v, &p, true) {
		return false
	}
	if why := NotUnicast(p.Addr()); why != "" {
		d.errorf(v.pos(), v.path, "an address cannot be %s: %s", why, p)
		return false
	}
	if p.Bits() == 0 {
		d.errorf(v.pos(), v.path, "an address cannot have the length 0: %s", p)
		return false
	}
	*to = p
	return true
}

// mac sets to to the Ethernet address of one station.
func (d *decoder) mac(v value, to *[6]byte) bool {
	if d.describe(textLike(macPattern)) {
		return false
	}
	s, ok := d.scalar(v, "a MAC address such as 02:00:00:00:01:0c")
	if !ok {
		return false
	}
	m, err := net.ParseMAC(s)
	switch {
	case err != nil || len(m) != 6 || strings.Count(s, ":") != 5:
		suggestion := ""
		if err == nil && len(m) == 6 {
			suggestion = m.String()
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be a MAC address such as 02:00:00:00:01:0c, not %s", quoted(s))
		return false
	case m[0]&1 != 0:
		d.errorf(v.pos(), v.path, "%s is a group's address, not a station's", s)
		return false
	case [6]byte(m) == [6]byte{}:
		d.errorf(v.pos(), v.path, "a MAC address cannot be zero")
		return false
	}
	*to = [6]byte(m)
	return true
}

// listenAddress sets to to where HTTP is listened on: an address with a port, or :PORT for all addresses.
func (d *decoder) listenAddress(v value, to *netip.AddrPort) {
	if d.describe(textLike(":[0-9]+$")) {
		return
	}
	what := "an address with a port such as 127.0.0.1:9180"
	s, ok := d.scalar(v, what)
	if !ok {
		return
	}
	host, port, err := net.SplitHostPort(s)
	if err == nil && host == "" {
		host = "::"
	}
	a, addrErr := netip.ParseAddr(host)
	n, isPort := number(port)
	if err != nil || addrErr != nil || !isPort || n < 1 || n > 65535 || a.Zone() != "" {
		suggestion := ""
		if n >= 1 && n <= 65535 && strings.EqualFold(host, "localhost") {
			suggestion = "127.0.0.1:" + port
		} else if n, ok := number(s); ok && n >= 1 && n <= 65535 {
			suggestion = "127.0.0.1:" + strconv.FormatInt(n, 10)
		}
		d.suggestf(v.pos(), v.path, suggestion, "must be %s, not %s", what, quoted(s))
		return
	}
	*to = netip.AddrPortFrom(a, uint16(n))
}
