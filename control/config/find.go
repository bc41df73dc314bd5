package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ID is the service's identity by its first VIP: tcp 198.18.9.9:80, in a segment tcp 172.16.1.100:80@5001.
func (s *Service) ID() string {
	if len(s.VIPs) == 0 {
		return s.Name
	}
	return s.Protocol + " " + s.endpoint(s.VIPs[0])
}

// ID is the backend's identity within its service: 198.18.1.10:8000, in a segment 172.16.1.7:80@5001.
func (b *Backend) ID() string { return b.identity() }

// FindService is the service that text names: its name, PROTOCOL VIP:PORT with a space, a dash or a colon between, or, where no other
// has it, VIP:PORT or VIP alone. The error is ErrNoService or ErrAmbiguous.
func (c *Config) FindService(text string) (*Service, error) {
	var found []*Service
	for i := range c.Services {
		s := &c.Services[i]
		if s.Name == text {
			return s, nil
		}
		if slices.ContainsFunc(s.VIPs, func(vip netip.Prefix) bool {
			at := s.endpoint(vip)
			if text == at || text == VIPText(vip) {
				return true
			}
			rest, ok := strings.CutPrefix(text, s.Protocol)
			return ok && len(rest) > 0 && strings.IndexByte(" -:", rest[0]) >= 0 && rest[1:] == at
		}) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s (`weir list` shows all)", ErrNoService, printableText(text))
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, s := range found {
		ids = append(ids, s.ID())
	}
	return nil, fmt.Errorf("%s: %w: %s", printableText(text), ErrAmbiguous, abridged(ids))
}

// serviceWith is the number of the service that has the identity, by any of its VIPs.
func (c *Config) serviceWith(id string) (int, error) {
	for i := range c.Services {
		s := &c.Services[i]
		rest, ok := strings.CutPrefix(id, s.Protocol+" ")
		if ok && slices.ContainsFunc(s.VIPs, func(vip netip.Prefix) bool { return s.endpoint(vip) == rest }) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %s", ErrNoService, printableText(id))
}

// FindBackend is the backend that text names: its name, its identity, or, where no other has it, ADDRESS:PORT or ADDRESS alone. The error is
// ErrNoBackend or ErrAmbiguous.
func (s *Service) FindBackend(text string) (*Backend, error) {
	var found []*Backend
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Name == text || b.identity() == text {
			return b, nil
		}
		at, _, _ := strings.Cut(b.identity(), "@")
		if text == at || text == b.Address.String() {
			found = append(found, b)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s has no %s", ErrNoBackend, printableText(s.Name), printableText(text))
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, b := range found {
		ids = append(ids, b.identity())
	}
	return nil, fmt.Errorf("%s: %w: %s", printableText(text), ErrAmbiguous, abridged(ids))
}

// ParseBackendID reads ADDRESS, ADDRESS:PORT or ADDRESS:PORT@VNI into the keys that say it.
func ParseBackendID(text string) (Object, error) {
	at, vni, inSegment := strings.Cut(text, "@")
	o := Object{}
	if inSegment {
		if _, ok := number(vni); !ok {
			return nil, fmt.Errorf("%s: must be ADDRESS:PORT@VNI", printableText(text))
		}
		o["vni"] = json.Number(vni)
	}
	if a, err := netip.ParseAddr(strings.Trim(at, "[]")); err == nil {
		o["address"] = a.String()
		return o, nil
	}
	ap, err := netip.ParseAddrPort(at)
	if err != nil {
		return nil, fmt.Errorf("%s: must be an address, or ADDRESS:PORT", printableText(text))
	}
	o["address"], o["port"] = ap.Addr().String(), json.Number(strconv.Itoa(int(ap.Port())))
	return o, nil
}

func (s *Service) backendWith(id string) (int, error) {
	i := slices.IndexFunc(s.Backends, func(b Backend) bool { return b.identity() == id })
	if i < 0 {
		return 0, fmt.Errorf("%w: %s has no %s", ErrNoBackend, printableText(s.Name), printableText(id))
	}
	return i, nil
}

// printableText is what somebody asked for, fit to be shown: as it is if it is plain.
func printableText(s string) string {
	for _, r := range s {
		if r < ' ' || r > '~' || r == '"' {
			return quoted(s)
		}
	}
	if len(s) > 2*longestTypo {
		return quoted(s)
	}
	return s
}

// Stations are the servers and VTEPs that packets are sent to. Servers in a segment are their gateway's to resolve.
func (c *Config) Stations() (all []netip.Addr) {
	for i := range c.Services {
		for j := range c.Services[i].Backends {
			if b := &c.Services[i].Backends[j]; b.Address.IsValid() && b.VNI == 0 {
				all = append(all, b.Address)
			}
		}
	}
	for i := range c.VXLAN.Segments {
		s := &c.VXLAN.Segments[i]
		for j := range s.Peers {
			all = append(all, s.Peers[j].Address)
		}
		for _, f := range s.FDB {
			all = append(all, f.VTEP)
		}
	}
	return all
}
