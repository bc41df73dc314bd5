package steer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// minEntries is the least size of a table: room for a reload that adds much, at little cost.
const minEntries = 1024

// mapSet is all maps of a program.
type mapSet struct {
	tables    [numTables]*ebpf.Map
	sockets   *ebpf.Map // slot of the device * queues + queue -> AF_XDP socket
	budgets   *ebpf.Map // likewise -> when the next unusual frame of each kind is due
	heartbeat *ebpf.Map // one value, see heartbeat; nil: there are no maps
	counters  *ebpf.Map // Reason -> frames, per CPU
}

// named are the maps by the name they are pinned under, in a fixed order.
func (m *mapSet) named() []namedMap {
	out := []namedMap{{"sockets", &m.sockets}, {"budgets", &m.budgets}, {"heartbeat", &m.heartbeat}, {"counters", &m.counters}}
	for id := range m.tables {
		out = append(out, namedMap{tables[id].name, &m.tables[id]})
	}
	return out
}

type namedMap struct {
	name string
	m    **ebpf.Map
}

// specs are how the maps must be made; need sizes the tables.
func specs(o Options, need image) map[string]*ebpf.MapSpec {
	s := map[string]*ebpf.MapSpec{
		"sockets":   {Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(o.Devices * o.Queues)},
		"budgets":   {Type: ebpf.Array, KeySize: 4, ValueSize: budgetSize, MaxEntries: uint32(o.Devices * o.Queues)},
		"heartbeat": {Type: ebpf.Array, KeySize: 4, ValueSize: heartbeatSize, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE},
		"counters":  {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(NumReasons)},
	}
	for id, t := range tables {
		n := min(max(minEntries, 2*len(need[id])), o.MaxEntries)
		s[t.name] = &ebpf.MapSpec{Type: t.kind, KeySize: t.keySize, ValueSize: 4, MaxEntries: uint32(n), Flags: t.flags}
	}
	for name, spec := range s {
		spec.Name = "weir_" + name
	}
	return s
}

func makeMaps(o Options, need image) (mapSet, error) {
	var m mapSet
	s := specs(o, need)
	for _, n := range m.named() {
		made, err := ebpf.NewMap(s[n.name])
		if err != nil {
			m.close()
			return mapSet{}, fmt.Errorf("make map %s of %d entries: %w", n.name, s[n.name].MaxEntries, err)
		}
		*n.m = made
	}
	return m, nil
}

// fits reports whether an adopted map can serve: made as it must be, and tables large enough.
func fits(m *ebpf.Map, spec *ebpf.MapSpec, entries int) bool {
	if m.Type() != spec.Type || m.KeySize() != spec.KeySize || m.ValueSize() != spec.ValueSize {
		return false
	}
	if entries < 0 {
		return m.MaxEntries() == spec.MaxEntries
	}
	return int(m.MaxEntries()) >= entries
}

func (m *mapSet) close() error {
	var errs []error
	for _, n := range m.named() {
		if *n.m != nil {
			errs = append(errs, (*n.m).Close())
		}
	}
	return errors.Join(errs...)
}

func (m *mapSet) fds(queues int) fds {
	f := fds{sockets: m.sockets.FD(), budgets: m.budgets.FD(), heartbeat: m.heartbeat.FD(), counters: m.counters.FD(), queues: queues}
	for id, t := range m.tables {
		f.tables[id] = t.FD()
	}
	return f
}

// ifindex is the device that an entry of the macs table is about.
func (e *entry) ifindex() int { return int(binary.NativeEndian.Uint32(e.key[:])) }
