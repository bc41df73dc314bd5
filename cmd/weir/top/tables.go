package top

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"weir/control"
)

// Column is a table's column: its title on the screen and its name in JSON. Rates have per_s in theirs, or bit_s.
type Column struct {
	Title, Name string
	Words       bool // else a number
}

// Cell is a word or a number, as the column says.
type Cell struct {
	Word   string
	Number float64
}

// Table is one view, its rows in the order of the daemon.
type Table struct {
	Name    string
	Columns []Column
	Rows    [][]Cell
}

func word(s string) Cell { return Cell{Word: s} }

func number[T int | int32 | uint64 | float64](n T) Cell { return Cell{Number: float64(n)} }

// identity is what a counter belongs to in both samples: the contract's identity, no name, as names are labels.
type identity struct {
	protocol, service, backend string
}

func serviceID(s *control.ServiceView) identity {
	at := endpoint(s.VIP.String(), s.Port, s.VNI)
	if s.PortTo > s.Port {
		at += "-" + strconv.Itoa(int(s.PortTo))
	}
	return identity{protocol: s.Protocol, service: at}
}

func (i identity) of(b *control.BackendView) identity {
	i.backend = endpoint(b.Address.String(), b.Port, b.VNI)
	return i
}

func endpoint(address string, port uint16, vni uint32) string {
	at := net.JoinHostPort(address, strconv.Itoa(int(port)))
	if vni != 0 {
		at += "@" + strconv.FormatUint(uint64(vni), 10)
	}
	return at
}

// traffic is what services and backends count: conns, in packets, in bytes, out packets, out bytes.
type traffic [5]uint64

func (c clock) cells(before, now traffic) []Cell {
	r := func(i int, times float64) Cell { return Cell{Number: times * c.rate(before[i], now[i])} }
	return []Cell{r(0, 1), r(1, 1), r(3, 1), r(2, 8), r(4, 8)}
}

var trafficColumns = []Column{{"CONNS/S", "conns_per_s", false}, {"IN PKT/S", "in_packets_per_s", false}, {"OUT PKT/S", "out_packets_per_s", false},
	{"IN BIT/S", "in_bit_s", false}, {"OUT BIT/S", "out_bit_s", false}}

// Tables makes the five views of two samples: services, backends, workers, drops, ports.
func Tables(before, now *Sample) [5]Table {
	c := between(before, now)
	services, backends := balanced(c, before, now)
	return [5]Table{services, backends, workers(c, before, now), drops(c, before, now), ports(c, before, now)}
}

func balanced(c clock, before, now *Sample) (services, backends Table) {
	services = Table{Name: "services", Columns: slices.Concat([]Column{{"SERVICE", "service", true}, {"PROTO", "protocol", true}, {"NAME", "name", true}},
		trafficColumns, []Column{{"ACTIVE", "active", false}, {"INACT", "inactive", false}, {"SERVING", "serving", false}, {"BACKENDS", "backends", false}})}
	backends = Table{Name: "backends", Columns: slices.Concat([]Column{{"BACKEND", "backend", true}, {"NAME", "name", true}, {"SERVICE", "service", true}, {"PROTO", "protocol", true}, {"STATE", "state", true}},
		trafficColumns, []Column{{"ACTIVE", "active", false}, {"INACT", "inactive", false}, {"WEIGHT", "weight", false}})}
	old := map[identity]traffic{}
	for i := range before.Stats.Services {
		s := &before.Stats.Services[i]
		id := serviceID(s)
		old[id] = traffic{s.Conns, s.InPackets, s.InBytes, s.OutPackets, s.OutBytes}
		for j := range s.Backends {
			b := &s.Backends[j]
			old[id.of(b)] = traffic{b.Conns, b.InPackets, b.InBytes, b.OutPackets, b.OutBytes}
		}
	}
	for i := range now.Stats.Services {
		s := &now.Stats.Services[i]
		id := serviceID(s)
		active, inactive, serving := 0, 0, 0
		for j := range s.Backends {
			b := &s.Backends[j]
			active, inactive = active+b.Active, inactive+b.Inactive
			if b.Weight > 0 {
				serving++
			}
			own := id.of(b)
			rates := c.cells(old[own], traffic{b.Conns, b.InPackets, b.InBytes, b.OutPackets, b.OutBytes})
			backends.Rows = append(backends.Rows, slices.Concat([]Cell{word(own.backend), word(b.Name), word(id.service), word(s.Protocol), word(b.State)},
				rates, []Cell{number(b.Active), number(b.Inactive), number(b.Weight)}))
		}
		rates := c.cells(old[id], traffic{s.Conns, s.InPackets, s.InBytes, s.OutPackets, s.OutBytes})
		services.Rows = append(services.Rows, slices.Concat([]Cell{word(id.service), word(s.Protocol), word(s.Name)},
			rates, []Cell{number(active), number(inactive), number(serving), number(len(s.Backends))}))
	}
	return services, backends
}

func workers(c clock, before, now *Sample) Table {
	t := Table{Name: "workers", Columns: []Column{{"WORKER", "worker", false}, {"CPU", "cpu", false}, {"WAIT", "wait", true}, {"PKT/S", "received_per_s", false},
		{"PER VECTOR", "per_vector", false}, {"CPU %", "cpu_percent", false}, {"SLEEPS/S", "sleeps_per_s", false}, {"HELD", "held", false}}}
	old := map[int]control.WorkerView{}
	for _, w := range before.Workers {
		old[w.Worker] = w
	}
	for _, w := range now.Workers {
		b := old[w.Worker]
		received, vectors := c.rate(b.Received, w.Received), c.rate(b.Vectors, w.Vectors)
		per, busy := 0.0, 0.0
		if vectors > 0 {
			per = received / vectors
		}
		if c.seconds > 0 {
			busy = 100 * max(0, w.CPUSeconds-b.CPUSeconds) / c.seconds
		}
		t.Rows = append(t.Rows, []Cell{number(w.Worker), number(w.CPU), word(w.Wait), number(received), number(per), number(busy),
			number(c.rate(b.Sleeps, w.Sleeps)), number(w.Held)})
	}
	return t
}

// drops has the reasons that were ever counted.
func drops(c clock, before, now *Sample) Table {
	t := Table{Name: "drops", Columns: []Column{{"REASON", "reason", true}, {"FRAMES/S", "frames_per_s", false}, {"FRAMES", "frames", false}}}
	for reason, n := range now.Stats.Drops {
		if n > 0 {
			t.Rows = append(t.Rows, []Cell{word(reason), number(c.rate(before.Stats.Drops[reason], n)), number(n)})
		}
	}
	slices.SortFunc(t.Rows, func(a, b []Cell) int { return compare(a[0], b[0]) }) // a map has no order
	return t
}

func ports(c clock, before, now *Sample) Table {
	t := Table{Name: "ports", Columns: []Column{{"PORT", "port", true}, {"INTERFACE", "interface", true}, {"MODE", "mode", true}, {"UP", "up", true},
		{"RX PKT/S", "received_per_s", false}, {"TX PKT/S", "sent_per_s", false}, {"RX LOST/S", "rx_lost_per_s", false}, {"TX LOST/S", "send_lost_per_s", false}, {"WAKEUPS/S", "wakeups_per_s", false}}}
	old := map[string]control.PortView{}
	for _, p := range before.Stats.Ports {
		old[p.Name] = p
	}
	for _, p := range now.Stats.Ports {
		b := old[p.Name]
		t.Rows = append(t.Rows, []Cell{word(p.Name), word(p.Interface), word(p.Mode), word(fmt.Sprint(p.Up)), number(c.rate(b.Received, p.Received)),
			number(c.rate(b.Sent, p.Sent)), number(c.rate(b.RxLost, p.RxLost)), number(c.rate(b.SendLost, p.SendLost)), number(c.rate(b.Wakeups, p.Wakeups))})
	}
	return t
}
