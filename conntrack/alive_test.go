package conntrack

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memfile is a file in memory without a name, and opens it once more, as a file of its own, each time it is called.
func memfile(tb testing.TB) (file *os.File, again func() *os.File) {
	tb.Helper()
	fd, err := unix.MemfdCreate("table", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	file = os.NewFile(uintptr(fd), "table")
	tb.Cleanup(func() { file.Close() })
	return file, func() *os.File {
		f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		return f
	}
}

// given is f as another process gets it over a socket: the same open file, with its lock.
func given(tb testing.TB, f *os.File) *os.File {
	tb.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		tb.Fatal(err)
	}
	g := os.NewFile(uintptr(fd), f.Name())
	tb.Cleanup(func() { g.Close() })
	return g
}

// TestHandedOver: a table whose owner goes on until the last moment is the successor's in one step: each connection where it was, found both ways,
// counted, and all memory that is free given out again.
func TestHandedOver(t *testing.T) {
	const capacity = 300
	file, again := memfile(t)
	o := Options{Capacity: capacity, Workers: 2, HalfOpen: capacity, File: file}
	old, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	now := Ticks(time.Second)
	var refs []Ref
	insert := func(from, to int) {
		for i := from; i < to; i++ {
			refs = append(refs, mustInsert(t, old, nat(i, i%3 == 0, tcp), syn, Tick(now)))
		}
	}
	insert(0, 120)
	for i := 0; i < 120; i += 5 {
		if _, ok := old.Unlink(1, refs[i]); !ok {
			t.Fatal("Unlink")
		}
	}

	o.File = given(t, file)
	o.Old, o.Secret, o.Beside = o.File, old.Secret(), true
	next, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	insert(120, 200) // the successor is there, and waits
	for i := 122; i < 200; i += 7 {
		old.Unlink(0, refs[i])
	}
	want := contents(old, Tick(now))
	for w := range 2 {
		old.Sleep(w)
	}
	if err := next.Resume(old.Alive()); err != nil {
		t.Fatal(err)
	}
	reachable(t, next, Tick(now))
	if got := contents(next, Tick(now)); !maps.Equal(got, want) {
		t.Errorf("%d connections are there, want the %d that were", len(got), len(want))
	}
	if next.ID() != old.ID() || next.Adopted().Kept != len(want) || next.HalfOpen() != len(want) {
		t.Errorf("table %x with %d connections, %d half-open; want %x with %d", next.ID(), next.Adopted().Kept, next.HalfOpen(), old.ID(), len(want))
	}
	for i := 0; next.Len() < capacity; i++ {
		mustInsert(t, next, nat(1000+i, i%2 == 0, udp), 0, Tick(now))
	}
	reachable(t, next, Tick(now))
	if n := len(next.expireAll(0, Tick(now)+Tick(Ticks(24*time.Hour)))); n != capacity {
		t.Errorf("%d connections end, want %d", n, capacity)
	}
	// The lock came along.
	o = Options{Capacity: capacity, Workers: 2, File: again()}
	if _, err := New(o); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("another table in the file: %v, want it to be locked", err)
	}
}

// TestNotHandedOver: a successor that gives up leaves the table as it was, and locked.
func TestNotHandedOver(t *testing.T) {
	file, again := memfile(t)
	o := Options{Capacity: 100, Workers: 1, File: file}
	old, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	mustInsert(t, old, nat(1, false, tcp), syn, 1)
	o.File = given(t, file)
	o.Old, o.Beside = o.File, true
	if _, err := New(o); err == nil {
		t.Error("New without the secret succeeds")
	}
	o.Secret = old.Secret()
	o.Capacity = 101
	if _, err := New(o); err == nil {
		t.Error("New of another size succeeds")
	}
	o.Capacity = 100
	next, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	x := old.Alive()
	x.Secret[0]++
	if err := next.Resume(x); !errors.Is(err, ErrSecret) {
		t.Errorf("Resume with another secret: %v", err)
	}
	if err := errors.Join(next.Close(), o.File.Close()); err != nil {
		t.Fatal(err)
	}
	reachable(t, old, 1)
	if _, err := New(Options{Capacity: 100, Workers: 1, File: again()}); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("another table in the file: %v, want it to be locked", err)
	}
}

// BenchmarkResume is what of a hand-over of a table nobody's packets can be looked up in.
func BenchmarkResume(b *testing.B) {
	for _, conns := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			file, _ := memfile(b)
			o := Options{Capacity: conns, Workers: 1, HalfOpen: conns, File: file}
			old, err := New(o)
			if err != nil {
				b.Fatal(err)
			}
			defer old.Close()
			for i := range conns {
				mustInsert(b, old, nat(i, false, tcp), syn, 1)
			}
			for b.Loop() {
				b.StopTimer()
				o.File = given(b, file)
				o.Old, o.Secret, o.Beside = o.File, old.Secret(), true
				next, err := New(o)
				if err != nil {
					b.Fatal(err)
				}
				x := old.Alive()
				b.StartTimer()
				if err := next.Resume(x); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := errors.Join(next.Close(), o.File.Close()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
