package config

import (
	"slices"
	"strings"
)

// Features is what of the configuration this version carries out beyond what every version does: what was taken up into the contract
// before it was built. The zero value has none of it.
type Features struct {
	Overlay []string // ways to forward through a VXLAN segment
	Queues  bool     // other than all
	VXLAN   bool     // segments
	HTTP    bool     // admin.http
}

// AllFeatures is the whole of the configuration.
func AllFeatures() Features {
	return Features{Overlay: []string{"vxlan", "vxlan-dr"}, Queues: true, VXLAN: true, HTTP: true}
}

// Unsupported names everything in c that have does not cover, as errors in the order of the file. What has its default passes.
func (c *Config) Unsupported(have Features) []Diagnostic {
	var diags []Diagnostic
	unless := func(built, used bool, place *Place, key, what string) {
		if used && !built {
			diags = append(diags, c.Errorf(place.Field(key), join(place.Path, key), "%s", strings.TrimSpace(what+" is not built into this version")))
		}
	}
	for i := range c.Ports {
		p := &c.Ports[i]
		unless(have.Queues, !p.Queues.All, &p.Place, "queues", "other than all")
	}
	for i := range c.Services {
		s := &c.Services[i]
		missing := func(forward string) bool { return overlay(forward) && !slices.Contains(have.Overlay, forward) }
		told := s.Given("forward") && missing(s.Forward)
		unless(false, told, &s.Place, "forward", s.Forward)
		for j := range s.Backends {
			b := &s.Backends[j]
			unless(false, missing(b.Forward) && (b.Given("forward") || !told), &b.Place, "forward", b.Forward)
		}
	}
	unless(have.VXLAN, len(c.VXLAN.Segments) > 0, &c.VXLAN.Place, "segments", "")
	unless(have.HTTP, c.Admin.HTTP.IsValid(), &c.Admin.Place, "http", "")
	return sorted(diags)
}
