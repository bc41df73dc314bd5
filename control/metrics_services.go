package control

import (
	"net/netip"
	"strconv"

	"weir/control/config"
	"weir/control/metrics"
	"weir/dataplane"
)

// Metrics of services and backends, of which there may be a million samples.
var (
	serviceInfo    = metrics.NewGauge("weir_service_info", "A service and its scheduler: always 1", "service", "vip", "port", "protocol", "vni", "scheduler")
	serviceConns   = metrics.NewCounter("weir_service_connections_total", "Connections opened", "service", "vip", "port", "protocol", "vni")
	servicePackets = metrics.NewCounter("weir_service_packets_total", "IP packets from clients (in) and from servers (out)", "service", "vip", "port", "protocol", "vni", "direction")
	serviceBytes   = metrics.NewCounter("weir_service_bytes_total", "Bytes of these packets", "service", "vip", "port", "protocol", "vni", "direction")

	backendInfo       = metrics.NewGauge("weir_backend_info", "A backend, its address and how it is forwarded to: always 1", "service", "vip", "port", "protocol", "vni", "backend", "address", "forward")
	backendUp         = metrics.NewGauge("weir_backend_up", "0 if the backend is down, by its check or because SYNs to it had no answer; 1 otherwise, also while it drains", "service", "vip", "port", "protocol", "vni", "backend")
	backendWeight     = metrics.NewGauge("weir_backend_weight", "Weight, as configured; 0 while it is down or drains: it takes no new connections", "service", "vip", "port", "protocol", "vni", "backend")
	backendNow        = metrics.NewGauge("weir_backend_connections", "Connections now, as IPVS counts them: active (established, and handshakes) or inactive", "service", "vip", "port", "protocol", "vni", "backend", "state")
	backendPersistent = metrics.NewGauge("weir_backend_persistent", "Persistence templates now; of services with persistence", "service", "vip", "port", "protocol", "vni", "backend")
	backendConns      = metrics.NewCounter("weir_backend_connections_total", "Connections opened", "service", "vip", "port", "protocol", "vni", "backend")
	backendPackets    = metrics.NewCounter("weir_backend_packets_total", "IP packets from clients (in) and from the server (out)", "service", "vip", "port", "protocol", "vni", "backend", "direction")
	backendBytes      = metrics.NewCounter("weir_backend_bytes_total", "Bytes of these packets", "service", "vip", "port", "protocol", "vni", "backend", "direction")
)

// wide are the families above, in the order in which they are written.
var wide = []*metrics.Family{serviceInfo, serviceConns, servicePackets, serviceBytes,
	backendInfo, backendUp, backendWeight, backendNow, backendPersistent, backendConns, backendPackets, backendBytes}

const (
	inbound  = `direction="in"`
	outbound = `direction="out"`
	active   = `state="active"`
	inactive = `state="inactive"`
)

// layout is what of the wide metrics stays the same while a configuration is in force: who there is, and the text of their labels. It is
// immutable once it is spelled.
type layout struct {
	generation uint64
	text       []byte // of all labels, one behind the other
	services   []serviceRow
	backends   []backendRow
	rows       map[serviceKey]int32 // of services
}

// span is a part of a layout's text.
type span struct{ from, to int32 }

func (l *layout) label(s span) []byte { return l.text[s.from:s.to] }

type serviceRow struct {
	of     *service
	key    serviceKey
	config *config.Service // until it is spelled
	labels span
	info   span // the labels that serviceInfo has beside them
}

type backendRow struct {
	of         *backend
	config     *config.Backend // until it is spelled
	service    int32           // row
	labels     span
	info       span // the labels that backendInfo has beside them, which stand behind them
	persistent bool
}

// layout is that of the configuration in force, not spelled yet. c.mu is held.
func (c *core) layout() *layout {
	l := &layout{generation: c.generation, rows: make(map[serviceKey]int32, len(c.reg.services))}
	if c.cfg == nil {
		return l
	}
	l.services, l.backends = make([]serviceRow, 0, len(c.reg.services)), make([]backendRow, 0, len(c.reg.backends))
	for i := range c.cfg.Services {
		cfg := &c.cfg.Services[i]
		for _, key := range keysOf(cfg) {
			s := c.reg.services[key]
			if s == nil {
				continue
			}
			row := int32(len(l.services))
			l.rows[key] = row
			l.services = append(l.services, serviceRow{of: s, key: key, config: cfg})
			for j := range cfg.Backends {
				x := &cfg.Backends[j]
				if !x.Serves(key.vip) {
					continue
				}
				if of := c.reg.backends[backendKey{key, x.Address.Unmap(), x.Port, x.VNI}]; of != nil {
					l.backends = append(l.backends, backendRow{of: of, config: x, service: row, persistent: cfg.Persistence != nil})
				}
			}
		}
	}
	return l
}

// spell writes the text of all labels, and lets go of the configuration.
func (l *layout) spell() {
	b := make([]byte, 0, 128*(len(l.services)+len(l.backends)))
	for i := range l.services {
		s := &l.services[i]
		from := int32(len(b))
		b = appendService(b, s.config.Name, &s.key)
		s.labels = span{from, int32(len(b))}
		b = metrics.AppendLabel(b, "scheduler", s.config.Scheduler)
		s.info = span{s.labels.to, int32(len(b))}
		s.config = nil
	}
	for i := range l.backends {
		x := &l.backends[i]
		of := l.services[x.service].labels
		from := int32(len(b))
		b = append(b, b[of.from:of.to]...)
		b = metrics.AppendLabel(b, "backend", x.config.Name)
		x.labels = span{from, int32(len(b))}
		b = metrics.AppendLabel(b, "address", addressOf(x.of.key))
		b = metrics.AppendLabel(b, "forward", x.config.Forward)
		x.info = span{x.labels.to, int32(len(b))}
		x.config = nil
	}
	l.text = b
}

// appendService appends the labels that tell a service from all others. An empty label is none to Prometheus, so only what is in a segment has
// a VNI.
func appendService(b []byte, name string, key *serviceKey) []byte {
	b = metrics.AppendLabel(b, "service", name)
	b = metrics.AppendLabel(b, "vip", VIP{key.vip}.String())
	port := strconv.Itoa(int(key.port))
	if key.port != 0 && key.port != key.portTo {
		port += "-" + strconv.Itoa(int(key.portTo))
	}
	b = metrics.AppendLabel(b, "port", port)
	b = metrics.AppendLabel(b, "protocol", protocolName(key.protocol))
	if key.vni != 0 {
		b = metrics.AppendLabel(b, "vni", strconv.FormatUint(uint64(key.vni), 10))
	}
	return b
}

// addressOf is a backend's identity as text: 198.18.1.10:8000, [2001:db8::1]:80, 172.16.1.7:80@5001.
func addressOf(key backendKey) string {
	text := netip.AddrPortFrom(key.address, key.port).String()
	if key.vni != 0 {
		text += "@" + strconv.FormatUint(uint64(key.vni), 10)
	}
	return text
}

// reading is what was counted at one moment, for the rows of a layout.
type reading struct {
	*layout
	services []dataplane.Traffic
	backends []backendReading
}

type backendReading struct {
	dataplane.Traffic
	weight, active, inactive, persistent int32
	condition                            condition
}

// read reads all counters into r, whose memory it uses again. What backends have counted that were removed and still have connections, or whose
// IDs were given back, is their service's.
func (c *core) read(r *reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.wide == nil || c.wide.generation != c.generation {
		l := c.layout()
		c.mu.Unlock() // most of the work needs nothing that changes
		l.spell()
		c.mu.Lock()
		c.wide = l
	}
	r.layout = c.wide
	r.services, r.backends = r.services[:0], r.backends[:0]
	for i := range r.layout.services {
		r.services = append(r.services, r.layout.services[i].of.retired)
	}
	for i := range r.layout.backends {
		row := &r.layout.backends[i]
		b := row.of
		x := backendReading{c.traffic(b), b.weight, int32(b.load.Active()), int32(b.load.Inactive()), int32(b.load.Persistent()), b.fit.condition}
		if b.fit.off() {
			x.weight = 0
		}
		r.backends = append(r.backends, x)
		r.services[row.service] = r.services[row.service].Plus(x.Traffic)
	}
	for _, b := range c.reg.ids {
		if b == nil || b.live {
			continue
		}
		if row, ok := r.rows[b.key.service]; ok {
			r.services[row] = r.services[row].Plus(c.traffic(b))
		}
	}
}

// write writes all of it. Counts of connections are below zero for a moment when one ends sooner than it was counted: then they are none.
func (r *reading) write(w *metrics.Writer) {
	services := func(f *metrics.Family, sample func(labels []byte, i int)) {
		w.Family(f)
		for i := range r.services {
			sample(r.label(r.layout.services[i].labels), i)
		}
	}
	backends := func(f *metrics.Family, sample func(labels []byte, b *backendReading)) {
		w.Family(f)
		for i := range r.backends {
			sample(r.label(r.layout.backends[i].labels), &r.backends[i])
		}
	}
	count := func(n int32) uint64 { return uint64(max(0, n)) }
	services(serviceInfo, func(labels []byte, i int) {
		w.Sample(serviceInfo, labels, string(r.label(r.layout.services[i].info)), 1)
	})
	services(serviceConns, func(labels []byte, i int) { w.Sample(serviceConns, labels, "", r.services[i].Conns) })
	services(servicePackets, func(labels []byte, i int) {
		w.Sample(servicePackets, labels, inbound, r.services[i].InPackets)
		w.Sample(servicePackets, labels, outbound, r.services[i].OutPackets)
	})
	services(serviceBytes, func(labels []byte, i int) {
		w.Sample(serviceBytes, labels, inbound, r.services[i].InBytes)
		w.Sample(serviceBytes, labels, outbound, r.services[i].OutBytes)
	})
	w.Family(backendInfo)
	for i := range r.layout.backends {
		row := &r.layout.backends[i]
		w.Sample(backendInfo, r.text[row.labels.from:row.info.to], "", 1) // they stand one behind the other
	}
	backends(backendUp, func(labels []byte, b *backendReading) {
		up := uint64(0)
		if b.condition != down {
			up = 1
		}
		w.Sample(backendUp, labels, "", up)
	})
	backends(backendWeight, func(labels []byte, b *backendReading) { w.Sample(backendWeight, labels, "", count(b.weight)) })
	backends(backendNow, func(labels []byte, b *backendReading) {
		w.Sample(backendNow, labels, active, count(b.active))
		w.Sample(backendNow, labels, inactive, count(b.inactive))
	})
	w.Family(backendPersistent)
	for i := range r.backends {
		if row := &r.layout.backends[i]; row.persistent {
			w.Sample(backendPersistent, r.label(row.labels), "", count(r.backends[i].persistent))
		}
	}
	backends(backendConns, func(labels []byte, b *backendReading) { w.Sample(backendConns, labels, "", b.Conns) })
	backends(backendPackets, func(labels []byte, b *backendReading) {
		w.Sample(backendPackets, labels, inbound, b.InPackets)
		w.Sample(backendPackets, labels, outbound, b.OutPackets)
	})
	backends(backendBytes, func(labels []byte, b *backendReading) {
		w.Sample(backendBytes, labels, inbound, b.InBytes)
		w.Sample(backendBytes, labels, outbound, b.OutBytes)
	})
}
