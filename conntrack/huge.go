package conntrack

import (
	"fmt"

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
	// ahead is how much of an arena's memory Enlarge has ready beyond what is in use, in bytes; more if it was used up faster. What is set aside is as
	// much for each worker: 131,072 connections of IPv4, which take one that does nothing else a tenth of a second and more.
	ahead = 16 << 20
)

// huge is what a memory has of huge pages. Table.enlarging guards it after New.
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

// Enlarge makes huge pages of memory that connections will soon lie in, where that is not done by itself, and sets it aside in a file system that
// has an end. Somebody calls it some twenty times a second, while workers run; it takes a fraction of a millisecond for each page, and nothing when there
// is nothing to do. The error says that no more room is to be had: connections beyond it are refused.
func (t *Table) Enlarge() error {
	m := t.memory
	if m.huge.kind != HugeCollapsed && !m.bounded {
		return nil
	}
	t.enlarging.Lock()
	defer t.enlarging.Unlock()
	var failed error
	for f := range t.families {
		used := t.families[f].fresh.Load()
		grown := 2 * int(used-m.huge.used[f])
		m.huge.used[f] = used
		n := int(used) + max(ahead/m.pairBytes(family(f)), grown)
		some := f != int(ip6) || used > 1 // no IPv6 so far, and perhaps never
		if m.huge.kind == HugeCollapsed && some {
			for _, x := range m.parts(family(f), used, n)[:hot] {
				m.collapse(x.from, x.to)
			}
		}
		if more := int(used) + max(ahead/m.pairBytes(family(f))*(len(t.workers)-1), grown); some && m.has(family(f), more) {
			n = more
		}
		if err := m.reserve(family(f), n); err != nil {
			failed = err
		}
		t.families[f].ready.Store(m.ready(family(f)))
	}
	return failed
}

// pairBytes is what the two entries of a connection take.
func (m *memory) pairBytes(f family) int {
	if f == ip6 {
		return 256
	}
	return 128
}

// span is a part of the memory, by offsets.
type span struct{ from, to int }

// parts are where the deadlines, entries and splices of the connections from one number up to another lie. Of these the first are hot.
func (m *memory) parts(f family, from uint32, to int) []span {
	_, deadlines, deadlines6, entries, entries6, _ := m.offsets()
	splices, splices6, _ := m.splicesAt()
	if f == ip6 {
		deadlines, entries, splices = deadlines6, entries6, splices6
	}
	to = min(to, m.conns)
	return []span{{deadlines + 4*int(from), deadlines + 4*to}, {entries + m.pairBytes(f)*int(from), entries + m.pairBytes(f)*to},
		{splices + spliceSize*int(from), splices + spliceSize*to}}
}

// hot is how many of the parts all connections have a use for.
const hot = 2

// A tmpfs is as large as it was mounted. A page that it has no room for is not refused when the file is made that long, but is a SIGBUS when a worker
// touches it. So pages are set aside ahead of use, which can fail without harm, and no connection is given out that has none (arena.ready).

// provide finds out if there is such an end, and sets aside what every Table needs.
func (m *memory) provide() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(m.file.Fd()), &fs); err != nil {
		return fmt.Errorf("conntrack: statfs %s: %w", m.file.Name(), err)
	}
	m.bounded = fs.Type == unix.TMPFS_MAGIC && fs.Blocks != 0
	_, deadlines4, _, _, _, _ := m.offsets()
	if err := m.setAside(span{0, deadlines4}); err != nil {
		return err
	}
	for f := range families {
		if err := m.reserve(f, ahead/m.pairBytes(f)); err != nil {
			return err
		}
	}
	return nil
}

// reserve sets aside what the connections with numbers below n lie in.
func (m *memory) reserve(f family, n int) error {
	from := m.reserved[f]
	if n = min(n, m.conns); int(from) >= n {
		return nil
	}
	for _, x := range m.parts(f, from, n) {
		if err := m.setAside(x); err != nil {
			return err
		}
	}
	m.reserved[f] = uint32(n)
	return nil
}

func (m *memory) setAside(x span) error {
	if !m.bounded || x.from == x.to {
		return nil
	}
	if err := unix.Fallocate(int(m.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, int64(x.from), int64(x.to-x.from)); err != nil {
		return fmt.Errorf("conntrack: set aside %d bytes of %s: %w", x.to-x.from, m.file.Name(), err)
	}
	return nil
}

// has reports whether the file system has what setting aside up to number n takes. Where it has not, less is asked for: what cannot be had is taken
// page by page, and given back.
func (m *memory) has(f family, n int) bool {
	if !m.bounded {
		return true
	}
	var fs unix.Statfs_t
	bytes := 0
	for _, x := range m.parts(f, m.reserved[f], max(n, int(m.reserved[f]))) {
		bytes += max(x.to-x.from, 0)
	}
	return unix.Fstatfs(int(m.file.Fd()), &fs) == nil && int64(fs.Bavail)*fs.Bsize > int64(bytes)
}

// ready is the number from which on connections must not be given out, for want of memory.
func (m *memory) ready(f family) uint32 {
	if m.bounded {
		return m.reserved[f]
	}
	return uint32(m.conns)
}

// Memory is what a Table's memory is made of.
type Memory struct {
	Bytes int       // mapped; what was never touched is not there
	Huge  int       // of them in huge pages, where that is known
	Pages HugePages // how it came by these
}

// Memory says what t's memory is made of.
func (t *Table) Memory() Memory {
	t.enlarging.Lock()
	defer t.enlarging.Unlock()
	m := t.memory
	return Memory{Bytes: len(m.base), Huge: m.huge.bytes, Pages: m.huge.kind}
}
