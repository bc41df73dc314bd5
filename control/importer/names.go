package importer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Resolver finds what names stand for, as getservbyname and gethostbyname do.
type Resolver interface {
	Port(protocol, name string) (uint16, error)
	Host(name string) (netip.Addr, error)
}

// host is this host's resolver: /etc/services, /etc/hosts and the DNS.
type host struct{}

// Port finds a service by name. SCTP has hardly a name of its own, so those of the other two do.
func (host) Port(protocol, name string) (uint16, error) {
	networks := []string{protocol}
	if protocol == "sctp" {
		networks = []string{"tcp", "udp"}
	}
	for _, network := range networks {
		if n, err := net.LookupPort(network, name); err == nil {
			return uint16(n), nil
		}
	}
	return 0, fmt.Errorf("unknown %s port %q (numbers need no name: ipvsadm-save -n)", protocol, name)
}

// Host finds a host's address, IPv4 before IPv6 as in gethostbyname.
func (host) Host(name string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, network := range []string{"ip4", "ip6"} {
		if all, err := net.DefaultResolver.LookupNetIP(ctx, network, name); err == nil && len(all) > 0 {
			return all[0].Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("unknown host %q (numbers need no name: ipvsadm-save -n)", name)
}

// address is an address or the name of a host.
func address(r Resolver, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err == nil && a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q: an address cannot have a zone", text)
	case err == nil:
		return a.Unmap(), nil
	case text == "" || strings.ContainsAny(text, ":/%*") || strings.Trim(text, "0123456789.") == "":
		return netip.Addr{}, fmt.Errorf("%q is no address", text)
	}
	return r.Host(text)
}

// port is a port's number or name; 0 is every port.
func port(r Resolver, protocol, text string) (uint16, error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		if n > 65535 {
			return 0, fmt.Errorf("ports are 0 to 65535, not %s", text)
		}
		return uint16(n), nil
	}
	if text == "" || strings.ContainsAny(text[:1], "+-0123456789") {
		return 0, fmt.Errorf("%q is no port", text)
	}
	return r.Port(protocol, text)
}

// split cuts HOST:PORT as ipvsadm does: an IPv6 address with a port stands in brackets, one without may stand bare. given says that
// there was a port.
func split(text string) (host, port string, given bool) {
	if strings.HasPrefix(text, "[") {
		if end := strings.Index(text, "]:"); end > 0 {
			return text[1:end], text[end+2:], true
		}
		if strings.HasSuffix(text, "]") {
			return text[1 : len(text)-1], "", false
		}
		return text, "", false
	}
	if strings.Count(text, ":") > 1 {
		return text, "", false
	}
	return strings.Cut(text, ":")
}
