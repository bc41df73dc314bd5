package control

import "slices"

// disableOffloads switches off what would hide from us what is on the wire of a device, until close.
func (p *ports) disableOffloads(name string) {
	_, changed, err := p.host.DisableOffloads(name)
	p.wereOn(name, changed)
	if len(changed) > 0 {
		p.log.Info("offloads switched off while weir runs", "kind", "host", "interface", name, "features", changed)
	}
	if err != nil {
		p.log.Warn("offloads", "kind", "host", "interface", name, "err", err)
	}
}

// wereOn notes offloads that are switched off, beside those of a former device of that name.
func (p *ports) wereOn(name string, features []string) {
	p.off[name] = slices.Compact(slices.Sorted(slices.Values(slices.Concat(p.off[name], features))))
}
