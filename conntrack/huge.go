package conntrack

import (
	"golang.org/x/sys/unix"
)

// With pages of 4 KiB each look-up in a large table misses the TLB twice besides the cache: at four million connections a look-up takes half as
// long again as with pages of 2 MiB. There are three ways to these, tried in this order:
//
//   - hugetlb: the operator has reserved them (vm.nr_hugepages) and the file was made of them. All are taken in New.
//   - transparent: heap memory, by advice. The kernel gives them as pages are touched.
//   - collapsed: a file in ordinary memory, for which the kernel's default is to give none. It makes one of what is there when it is asked to
//     (MADV_COLLAPSE, Linux 6.1). That takes a fraction of a millisecond in which nobody can touch the page, so it is done before anybody
//     does: for the index in New, for entries and deadlines by Enlarge, a way ahead of those in use.
//
// Otherwise pages are small, and nothing else is different. Which NUMA node memory comes from is not looked at: it is the node of the
// thread that touches a page first.

// HugePages says how a Table came by huge pages.
type HugePages string

// The ways to huge pages.
const (
	HugeNone        HugePages = "none"
	HugeReserved    HugePages = "hugetlb"
	HugeTransparent HugePages = "transparent"
	HugeCollapsed   HugePages = "collapsed"
)

const (
	hugePage = 2 << 20
	// ahead is how much of an arena's memory Enlarge has ready beyond what is in use, in bytes; more if it was used up faster.
	ahead = 16 << 20
)

// huge is what a memory has of huge pages. Control alone touches it after New.
type huge struct {
	kind  HugePages
	done  []bool // by huge page of the mapping, with HugeCollapsed
	bytes int
	used  [families]uint32 // connections at the last Enlarge
}

// enlarge gets what huge pages a file's mapping can have at the start.
func (m *memory) enlarge() {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(m.file.Fd()), &fs) == nil && fs.Type == unix.HUGETLBFS_MAGIC {
		m.huge.kind, m.huge.bytes = HugeReserved, len(m.base)
		_ = unix.Madvise(m.base, unix.MADV_POPULATE_WRITE) // Linux 5.14; else they are cleared when they are touched, a tenth of a millisecond each
		return
	}
	_ = unix.Madvise(m.base, unix.MADV_HUGEPAGE) // of use where shmem_enabled says advise
	m.huge.done = make([]bool, len(m.base)/hugePage)
	at, end, _, _, _, _ := m.offsets()
	m.collapse(at, end)
}

// collapse makes huge pages of those that lie between two offsets, in part or whole, and are not yet. It stops at the first that the kernel has none
// for.
func (m *memory) collapse(from, to int) {
	for i := from / hugePage; i*hugePage < to && i < len(m.huge.done); i++ {
		if m.huge.done[i] {
			continue
		}
		page := m.base[i*hugePage : (i+1)*hugePage]
		_ = unix.Madvise(page[:pageSize], unix.MADV_POPULATE_WRITE) // one that has nothing is not made of nothing
		if unix.Madvise(page, unix.MADV_COLLAPSE) != nil {
			return
		}
		m.huge.done[i], m.huge.kind = true, HugeCollapsed
		m.huge.bytes += hugePage
	}
}

// Enlarge makes huge pages of memory that connections will soon lie in, where that is not done by itself. Control calls it about twice a second; it
// takes a fraction of a millisecond for each page, and nothing when there is nothing to do.
func (t *Table) Enlarge() {
	m := t.memory
	if m.huge.kind != HugeCollapsed {
		return
	}
	_, deadlines4, deadlines6, entries4, entries6, size := m.offsets()
	for f, x := range [families]struct{ deadlines, entries, end, bytes int }{
		ip4: {deadlines4, entries4, entries6, 128},
		ip6: {deadlines6, entries6, size, 256},
	} {
		used := t.families[f].fresh.Load()
		if f == int(ip6) && used == 1 {
			continue // no IPv6 so far, and perhaps never
		}
		n := int(used) + max(ahead/x.bytes, 2*int(used-m.huge.used[f]))
		m.huge.used[f] = used
		m.collapse(x.deadlines+4*int(used), min(x.deadlines+4*n, x.deadlines+4*m.conns))
		m.collapse(x.entries+x.bytes*int(used), min(x.entries+x.bytes*n, x.end))
	}
}

// Memory is what a Table's memory is made of.
type Memory struct {
	Bytes int       // mapped; what was never touched is not there
	Huge  int       // of them in huge pages, where that is known
	Pages HugePages // how it came by these
}

// Memory says what t's memory is made of. Control alone calls it, as Enlarge.
func (t *Table) Memory() Memory {
	m := t.memory
	return Memory{Bytes: len(m.base), Huge: m.huge.bytes, Pages: m.huge.kind}
}
