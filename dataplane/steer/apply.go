package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Add makes the program know the rules beside those it already knows, so that what both take is taken at every moment. It is called
// before the snapshot that goes with the rules is published; Remove, after it, takes away what is no longer meant. Rules that were added must not be
// changed afterwards: the same ones are known by their address.
//
// On an error, as when a map is full, the program goes on with what it knew before; what was added in the attempt is taken back.
func (p *Program) Add(r *Rules) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r == p.added { // as after most reloads: they are never changed
		return nil
	}
	p.added, p.trimmed = nil, false
	want, err := imageOf(r, &p.numbers)
	if err != nil {
		return err
	}
	puts, err := p.beside(want)
	if err != nil {
		return fmt.Errorf("%w (restart to enlarge it, max_entries is %d)", err, p.opts.MaxEntries)
	}
	before := p.wanted
	for id := range tables {
		if err := p.put(tableID(id), puts[id]); err != nil {
			p.wanted = before
			p.trim() // best effort: what is too much is taken in vain at worst
			return err
		}
	}
	p.wanted, p.added = want, r
	p.heart.grace.Store(uint64(max(r.Grace, 0)))
	p.heart.unusual.Store(uint64(max(r.Unusual, 0)))
	return nil
}

// beside is what must be put so that the tables hold what is wanted besides what they hold. The error says that there is no room for both.
func (p *Program) beside(want image) (puts image, err error) {
	for id := range tables {
		n := len(p.held[id])
		pairs(p.held[id], want[id], func(held, want *entry) {
			switch {
			case held == nil:
				n++
				puts[id] = append(puts[id], *want)
			case want != nil && held.value|want.value != held.value:
				// Bits of both; the number of a device or prefix above them is the same as long as an entry names it.
				puts[id] = append(puts[id], entry{held.key, held.value | want.value})
			}
		})
		if size := int(p.maps.tables[id].MaxEntries()); n > size {
			return puts, fmt.Errorf("steer: %s: %d entries are needed while old and new rules hold together, the map has room for %d", tables[id].name, n, size)
		}
	}
	return puts, nil
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
	if p.trimmed {
		return nil
	}
	for id := numTables - 1; id >= 0; id-- {
		var puts, gone listing
		pairs(p.held[id], p.wanted[id], func(held, want *entry) {
			switch {
			case held == nil: // it was never added
			case want == nil:
				gone = append(gone, *held)
			case want.value != held.value:
				puts = append(puts, *want)
			}
		})
		if err := p.put(id, puts); err != nil {
			return err
		}
		if err := p.remove(id, gone); err != nil {
			return err
		}
	}
	p.trimmed = true
	return nil
}

// put writes entries. Those that it wrote before an error are held.
func (p *Program) put(id tableID, puts listing) (err error) {
	m, done := p.maps.tables[id], 0
	if done = batched(id, puts, func(keys [][20]byte, values []uint32) (int, error) { return m.BatchUpdate(keys, values, nil) }); done < len(puts) {
		for _, e := range puts[done:] {
			if err = m.Update(e.key[:tables[id].keySize], e.value, ebpf.UpdateAny); err != nil {
				err = fmt.Errorf("add to map %s: %w", tables[id].name, err)
				break
			}
			done++
		}
	}
	if done > 0 {
		p.held[id] = p.held[id].with(puts[:done])
	}
	return err
}

// remove deletes entries. Those that it deleted before an error are not held any more.
func (p *Program) remove(id tableID, gone listing) (err error) {
	m, done := p.maps.tables[id], 0
	if done = batched(id, gone, func(keys [][20]byte, _ []uint32) (int, error) { return m.BatchDelete(keys, nil) }); done < len(gone) {
		for _, e := range gone[done:] {
			if err = m.Delete(e.key[:tables[id].keySize]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				err = fmt.Errorf("remove from map %s: %w", tables[id].name, err)
				break
			}
			err = nil
			done++
		}
	}
	if done > 0 {
		p.held[id] = p.held[id].without(gone[:done])
	}
	return err
}

const (
	// fewEntries are written one by one.
	fewEntries = 16
	// batchEntries is how many are given to the kernel at once.
	batchEntries = 8192
)

// batched gives many entries of a table that knows it to the kernel by few system calls (Linux 5.6), and returns how many it took. On any
// doubt that is fewer than there are; the rest is for single calls, which are right also for entries that the kernel took already.
func batched(id tableID, all listing, call func(keys [][20]byte, values []uint32) (int, error)) (done int) {
	if len(all) <= fewEntries || tables[id].kind != ebpf.Hash || tables[id].keySize != 20 {
		return 0
	}
	keys, values := make([][20]byte, 0, batchEntries), make([]uint32, 0, batchEntries)
	for done < len(all) {
		keys, values = keys[:0], values[:0]
		for _, e := range all[done:min(done+batchEntries, len(all))] {
			keys, values = append(keys, [20]byte(e.key[:20])), append(values, e.value)
		}
		if n, err := call(keys, values); err != nil || n != len(keys) {
			break
		}
		done += len(keys)
	}
	return done
}
