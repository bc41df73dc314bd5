package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Add makes the program know the rules beside those it already knows, so that what both take is taken at every moment. It is called
// before the snapshot that goes with the rules is published; Remove, after it, takes away what is no longer meant.
//
// On an error, as when a map is full, the program goes on with what it knew before; what was added in the attempt is taken back.
func (p *Program) Add(r *Rules) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	want, err := imageOf(r, &p.numbers)
	if err != nil {
		return err
	}
	for id := range tables {
		n := len(want[id])
		for k := range p.held[id] {
			if _, both := want[id][k]; !both {
				n++
			}
		}
		if size := int(p.maps.tables[id].MaxEntries()); n > size {
			return fmt.Errorf("steer: %s: %d entries are needed while old and new rules hold together, the map has room for %d (restart to enlarge it, max_entries is %d)",
				tables[id].name, n, size, p.opts.MaxEntries)
		}
	}
	before := p.wanted
	for id := range tables {
		for k, v := range want[id] {
			// Bits of both; the number of a device or prefix above them is the same as long as an entry names it.
			if err := p.put(tableID(id), k, p.held[id][k]|v); err != nil {
				p.wanted = before
				p.trim() // best effort: what is too much is taken in vain at worst
				return err
			}
		}
	}
	p.wanted = want
	p.heart.grace.Store(uint64(max(r.Grace, 0)))
	return nil
}

// Remove takes away what the rules last added do not say. It also ends a start: programs that a predecessor left on devices that have
// not been attached again are detached, and its maps, if they could not be adopted, are removed. What it removed so is returned.
func (p *Program) Remove() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.trim(); err != nil {
		return nil, err
	}
	return p.settle()
}

// trim makes the tables hold exactly what is wanted, from the last table to the first.
func (p *Program) trim() error {
	for id := numTables - 1; id >= 0; id-- {
		for k := range p.held[id] {
			v, ok := p.wanted[id][k]
			if ok {
				if err := p.put(id, k, v); err != nil {
					return err
				}
				continue
			}
			if err := p.maps.tables[id].Delete([]byte(k)); err != nil {
				return fmt.Errorf("remove from map %s: %w", tables[id].name, err)
			}
			delete(p.held[id], k)
		}
	}
	return nil
}

// put writes an entry unless it is there.
func (p *Program) put(id tableID, k string, v uint32) error {
	if old, ok := p.held[id][k]; ok && old == v {
		return nil
	}
	if err := p.maps.tables[id].Update([]byte(k), v, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("add to map %s: %w", tables[id].name, err)
	}
	p.held[id][k] = v
	return nil
}
