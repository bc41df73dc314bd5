package control

import (
	"time"

	"weir/control/config"
)

// List shows the services of a configuration as the daemon lists them, with nothing counted yet.
func List(cfg *config.Config) []ServiceView {
	views := []ServiceView{}
	for i := range cfg.Services {
		for _, key := range keysOf(&cfg.Services[i]) {
			views = append(views, serviceView(&cfg.Services[i], key))
		}
	}
	return views
}

// serviceView is what the configuration says of the service key, one of c's, and of the backends that it has.
func serviceView(c *config.Service, key serviceKey) ServiceView {
	v := ServiceView{
		Name: c.Name, VIP: VIP{key.vip}, VNI: key.vni, Port: key.port, Protocol: protocolName(key.protocol), Scheduler: c.Scheduler, Flags: c.Flags,
		OnePacket: c.OnePacket, Backends: []BackendView{},
	}
	if key.port != 0 && key.portTo != key.port { // port 0, every port, is shown as it is configured
		v.PortTo = key.portTo
	}
	if p := c.Persistence; p != nil {
		v.Persistence = &PersistenceView{TimeoutS: int(p.Timeout / time.Second), Prefix: p.Prefix}
		if key.vip.Addr().Is6() {
			v.Persistence.Prefix = p.Prefix6
		}
	}
	for x := range backendsOf(c, key) {
		b := x.config
		v.Backends = append(v.Backends, BackendView{
			Name: b.Name, Address: x.key.address, Port: x.key.port, VNI: x.key.vni, Forward: b.Forward, Weight: int32(b.Weight), Configured: int32(b.Weight), State: up.String(),
			Upper: b.UpperThreshold, Lower: b.LowerThreshold, TunnelPort: b.TunnelPort, Backup: b.Backup,
		})
	}
	return v
}
