package conntrack

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped is what the kernel says of the mapping that t's memory lies in: the KiB of a line of smaps.
func (t *Table) mapped(tb testing.TB, line string) (kb int) {
	tb.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		tb.Skip(err)
	}
	defer f.Close()
	at, found := t.memory.address(), false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			found = from <= at && at < to
		}
		if rest, ok := strings.CutPrefix(s.Text(), line+":"); ok && found {
			fmt.Sscan(rest, &kb)
			return kb
		}
	}
	tb.Skipf("/proc/self/smaps has no %s for the table", line)
	return 0
}

// A file in ordinary memory gets huge pages for its index at the start, and for entries before they are used, but none for a family that nobody
// speaks.
func TestCollapsedPages(t *testing.T) {
	const conns = 1 << 18
	tab, err := New(Options{Capacity: conns, Workers: 1, File: memfd(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	if m := tab.Memory(); m.Pages != HugeCollapsed {
		t.Skipf("huge pages: %s (MADV_COLLAPSE is of Linux 6.1, and may find no free ones)", m.Pages)
	}
	at, end, _, entries4, entries6, _ := tab.memory.offsets()
	check := func(when string, from, to int) {
		t.Helper()
		for i := from / hugePage; i < to/hugePage; i++ {
			if !tab.memory.huge.done[i] {
				t.Skipf("%s: page %d of %d to %d is not huge: memory is scarce, or in pieces", when, i, from/hugePage, to/hugePage)
			}
		}
		m := tab.Memory()
		if kb := tab.mapped(t, "ShmemPmdMapped"); kb<<10 > m.Huge || kb<<10 < m.Huge/2 { // under pressure the kernel takes some back
			t.Errorf("%s: %d KiB are mapped as huge pages, Memory says %d", when, kb, m.Huge>>10)
		}
	}
	check("new", at, end)
	used := int(tab.families[ip4].fresh.Load())
	check("new", entries4, entries4+128*used+ahead)
	for i := range conns {
		mustInsert(t, tab, nat(i, false, udp), 0, 0)
		if i%(1<<14) == 0 {
			tab.Enlarge()
		}
	}
	check("full", entries4, entries6)
	for i := entries6/hugePage + 1; i < len(tab.memory.huge.done); i++ {
		if tab.memory.huge.done[i] {
			t.Fatalf("page %d is there for IPv6, which nobody speaks", i)
		}
	}
	for i := range conns {
		if c := nat(i, false, udp); tab.lookup(c.Forward) == 0 {
			t.Fatalf("connection %d is gone", i)
		}
	}
	tab.Unlink(0, tab.lookup(nat(0, false, udp).Forward))
	mustInsert(t, tab, nat(0, true, udp), 0, 0)
	before := tab.Memory().Huge
	tab.Enlarge()
	if got := tab.Memory().Huge - before; got < ahead {
		t.Errorf("%d bytes more after the first IPv6 connection, want %d", got, ahead)
	}
}

func TestReservedPages(t *testing.T) {
	fd, err := unix.MemfdCreate("conntrack-test", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	if err != nil {
		t.Skipf("memfd_create: %v", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:conntrack-test")
	defer f.Close()
	tab, err := New(Options{Capacity: 1024, Workers: 1, File: f})
	if err != nil {
		t.Skipf("no huge pages are reserved (vm.nr_hugepages): %v", err)
	}
	defer tab.Close()
	if m := tab.Memory(); m.Pages != HugeReserved || m.Huge != m.Bytes || m.Bytes%hugePage != 0 {
		t.Errorf("memory is %+v", m)
	}
	if kb := tab.mapped(t, "Private_Hugetlb") + tab.mapped(t, "Shared_Hugetlb"); kb<<10 != tab.Memory().Bytes {
		t.Errorf("%d KiB are of reserved pages, of %d", kb, tab.Memory().Bytes>>10)
	}
	for i := range 1024 {
		mustInsert(t, tab, nat(i, i%2 == 0, udp), 0, 0)
	}
	if n := len(tab.expireAll(0, ticks(1<<40))); n != 1024 {
		t.Errorf("%d of 1024 expired", n)
	}
}

func TestHeapPages(t *testing.T) {
	tab := newTable(t, 1000, 1)
	if m := tab.Memory(); m.Pages != HugeTransparent && m.Pages != HugeNone || m.Huge != 0 || m.Bytes < 1000*128 {
		t.Errorf("memory is %+v", m)
	}
	tab.Enlarge() // has nothing to do
	if m := tab.Memory(); m.Huge != 0 {
		t.Errorf("memory is %+v", m)
	}
}
