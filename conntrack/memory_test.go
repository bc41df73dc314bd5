package conntrack

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func memfd(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("conntrack-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Skipf("memfd_create: %v", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:conntrack-test")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestTableInAFile(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "conns"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, f := range []*os.File{memfd(t), file} {
		tab, err := New(Options{Capacity: 1000, Workers: 2, File: f})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			c := nat(i, i%2 == 0, tcp)
			r := mustInsert(t, tab, c, syn, 0)
			if tab.lookup(c.Reply) != r.Peer() {
				t.Fatalf("%s: connection %d is not found", f.Name(), i)
			}
		}
		if n := len(tab.expireAll(0, ticks(time.Minute))); n != 1000 {
			t.Errorf("%s: %d connections expired", f.Name(), n)
		}
		_, err = New(Options{Capacity: 1, Workers: 1, File: reopened(t, f)})
		if err == nil || !strings.Contains(err.Error(), "another table lives in this file") {
			t.Errorf("%s: a second table in the same file: %v", f.Name(), err)
		}
		if err := tab.Close(); err != nil {
			t.Error(err)
		}
		again, err := New(Options{Capacity: 10, Workers: 1, File: f})
		if err != nil {
			t.Fatalf("%s: after Close: %v", f.Name(), err)
		}
		if c := nat(1, false, tcp); again.Len() != 0 || again.lookup(c.Forward) != 0 {
			t.Errorf("%s: a new table is not empty", f.Name())
		}
		again.Close()
	}
}

// reopened is f through a descriptor of its own, as another process has it.
func reopened(t *testing.T, f *os.File) *os.File {
	t.Helper()
	g, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("reopen %s: %v", f.Name(), err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func TestForeignFilesAreRefused(t *testing.T) {
	header := func(version uint64) []byte {
		b := make([]byte, pageSize)
		binary.NativeEndian.PutUint64(b, magic)
		binary.NativeEndian.PutUint64(b[8:], version)
		return b
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		want  []string
	}{
		{"a later layout", header(7), []string{"another layout: version 7", "knows version 3"}},
		{"an earlier layout", header(0), []string{"another layout: version 0", "knows version 3"}},
		{"another kind of file", []byte(strings.Repeat("precious", 100)), []string{"not a connection table"}},
		{"a short file", []byte("precious"), []string{"not a connection table"}},
	} {
		f := memfd(t)
		f.Write(c.bytes)
		_, err := New(Options{Capacity: 1, Workers: 1, File: f})
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not say %q", c.name, err, want)
			}
		}
		got := make([]byte, len(c.bytes))
		if f.ReadAt(got, 0); string(got) != string(c.bytes) {
			t.Errorf("%s: was changed", c.name)
		}
		if err := unix.Flock(int(reopened(t, f).Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Errorf("%s: is still locked: %v", c.name, err)
		}
	}
}

// Pages of a table that nothing was put into are not there. A file shows it: it counts the blocks that it has.
func TestUntouchedMemoryIsFree(t *testing.T) {
	f := memfd(t)
	tab, err := New(Options{Capacity: 1 << 20, Workers: 1, File: f})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	mustInsert(t, tab, nat(1, false, tcp), syn, 0)
	tab.expireAll(0, ticks(time.Hour))
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	// A handful of pages, of 2 MiB each if the kernel gives huge ones: then the whole index is made of them, for all of it is soon touched, and
	// entries some way ahead.
	limit := int64(16 << 20)
	if m := tab.Memory(); m.Pages == HugeCollapsed {
		limit += 8*4<<20 + 2*ahead
	}
	if used := st.Blocks * 512; used > limit {
		t.Errorf("a table of %d MiB for one connection uses %d KiB", st.Size>>20, used>>10)
	}
}
