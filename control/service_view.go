package control

import (
	"slices"

	"weir/control/config"
)

// Service is the service that text names, as config.FindService takes it: of one with several VIPs that of the VIP in text, or the first.
func (c *core) Service(text string) (v ServiceView, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.cfg.FindService(text)
	if err != nil {
		return v, err
	}
	keys := keysOf(s)
	key := keys[0]
	if i := slices.IndexFunc(keys, func(k serviceKey) bool { return k.named(text) }); i >= 0 {
		key = keys[i]
	}
	all := c.servicesSince(true)
	i := slices.IndexFunc(all, func(v ServiceView) bool {
		return v.VIP.Prefix == key.vip && v.Protocol == s.Protocol && v.Port == key.port && v.VNI == key.vni
	})
	if i < 0 {
		return v, config.ErrNoService
	}
	return all[i], nil
}

// Backend is a backend of that service, as config.Service.FindBackend takes it.
func (c *core) Backend(service, backend string) (v BackendView, err error) {
	c.mu.Lock()
	s, err := c.cfg.FindService(service)
	var b *config.Backend
	if err == nil {
		b, err = s.FindBackend(backend)
	}
	c.mu.Unlock()
	if err != nil {
		return v, err
	}
	of, err := c.Service(service)
	if err != nil {
		return v, err
	}
	for _, v := range of.Backends {
		if v.Address == b.Address.Unmap() && v.Port == b.Port && v.VNI == b.VNI {
			return v, nil
		}
	}
	return v, config.ErrNoBackend // it serves another VIP of the service
}
