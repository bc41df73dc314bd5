package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// abandon leaves t as a process does that is killed: nothing is put in order, the lock of the file goes.
func abandon(tb testing.TB, t *Table) {
	tb.Helper()
	if err := t.Close(); err != nil {
		tb.Fatal(err)
	}
}

func all(*Ended) bool { return true }

// contents are the connections of t as Range has them, by their forward tuples.
func contents(t *Table, now Tick) map[Tuple]Info {
	m := map[Tuple]Info{}
	t.Range(now, func(i *Info) bool {
		m[i.Forward] = *i
		return true
	})
	return m
}

// reachable wants every connection of t to be found by packets of its directions, and as many to be counted as there are.
func reachable(tb testing.TB, t *Table, now Tick) {
	tb.Helper()
	live, half := 0, 0
	children := map[Ref]uint32{}
	templates := map[Ref]bool{}
	for f := range families {
		for n := uint32(1); n < t.families[f].fresh.Load(); n++ {
			r := f.ref(n)
			if t.families[f].deadlines[n] == 0 {
				continue
			}
			live++
			if t.State(r).HalfOpen() {
				half++
			}
			forward, _ := t.tuples(r)
			if got := t.lookup(forward); got != r {
				tb.Fatalf("forward of %#x is found as %#x", r, got)
			}
			if !word(*t.life(r)).live() {
				tb.Fatalf("%#x is not alive", r)
			}
			if t.State(r) == Template {
				templates[r] = true
				continue
			}
			if word(*t.life(r))&wordOneWay == 0 {
				reply, _ := t.tuples(r | refReply)
				if got := t.lookup(reply); got != r|refReply {
					tb.Fatalf("reply of %#x is found as %#x", r, got)
				}
			}
			if own := *t.control(r); own != 0 {
				children[Ref(own)]++
			}
		}
	}
	if live != t.Len() || half != t.HalfOpen() {
		tb.Fatalf("%d connections, %d half-open; counted are %d and %d", live, half, t.Len(), t.HalfOpen())
	}
	for r := range templates {
		if got := t.children(r); got != children[r] {
			tb.Fatalf("template %#x counts %d children, %d name it", r, got, children[r])
		}
		delete(children, r)
	}
	if len(children) != 0 {
		tb.Fatalf("children of no template: %v", children)
	}
	slots := 0
	for _, s := range t.index {
		if s != slotEmpty && s != slotTombstone {
			slots++
		}
	}
	if want := 2 * live; slots > want {
		tb.Fatalf("%d slots for %d connections", slots, live)
	}
}

// lively fills t with connections of all kinds and families, some of which have ended, and returns those that are there.
func lively(tb testing.TB, t *Table, n int, now Tick) map[Tuple]Info {
	tb.Helper()
	to := DefaultTimeouts()
	insert := func(c Conn, event uint8) Ref {
		r, _, o := t.Insert(0, &c, event, &to, now)
		if o != Inserted {
			tb.Fatalf("insert: %v", o)
		}
		return r
	}
	for i := range n {
		c := nat(i, i%3 == 0, []uint8{tcp, udp, sctp}[i%3%2+i%2])
		c.OneWay = i%5 == 0
		if i%4 == 0 {
			k := c.Forward
			k.Space, k.Ports = TemplateSpace(k.Space), 80<<16|80
			c.Control = insert(Conn{Forward: k, ForwardTo: k, Reply: k, ReplyTo: k, Backend: c.Backend, OneWay: true, Template: true}, 0)
		}
		r := insert(c, syn)
		if c.Forward.Proto() == tcp && !c.OneWay {
			t.Track(r|refReply, syn|ack, &to, now)
			if i%2 == 0 {
				t.Track(r, ack, &to, now)
			}
		}
		t.SetNote(r, uint32(i))
		if i%7 == 0 {
			t.Unlink(0, r)
		}
		t.Quiesce(0)
	}
	return contents(t, now)
}

func same(tb testing.TB, got, want map[Tuple]Info) {
	tb.Helper()
	if maps.Equal(got, want) {
		return
	}
	for k, w := range want {
		if g, ok := got[k]; !ok {
			tb.Errorf("%+v is gone", w)
		} else if g != w {
			tb.Errorf("got  %+v\nwant %+v", g, w)
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			tb.Errorf("%+v came from nowhere", g)
		}
	}
	tb.FailNow()
}

func TestAnotherProcessTakesTheTableOver(t *testing.T) {
	const now = Tick(1000)
	for _, c := range []struct {
		name              string
		capacity, workers int
		elsewhere         bool
	}{
		{"as large", 400, 2, false},
		{"as large, elsewhere", 400, 2, true},
		{"larger", 4000, 2, true},
		{"more workers", 400, 5, true},
		{"just large enough", 0, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := memfd(t)
			old, err := New(Options{Capacity: 400, HalfOpen: 400, Workers: 2, File: file, Secret: [2]uint64{1, 2}})
			if err != nil {
				t.Fatal(err)
			}
			want := lively(t, old, 250, now)
			id := old.ID()
			if c.capacity == 0 {
				c.capacity = old.Len()
			}
			abandon(t, old)
			o := Options{Capacity: c.capacity, HalfOpen: c.capacity, Workers: c.workers, File: file, Old: file, Keep: all, Now: now}
			kept := map[State]int{}
			o.Kept = func(e *Ended) { kept[e.State]++ }
			if c.elsewhere {
				o.File = memfd(t)
			}
			tab, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Close()
			same(t, contents(tab, now), want)
			reachable(t, tab, now)
			if got, want := tab.Adopted(), (Adopted{Kept: len(want)}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if tab.ID() != id {
				t.Errorf("the table is called %#x now, not %#x", tab.ID(), id)
			}
			wantKept := map[State]int{}
			for _, i := range want {
				wantKept[i.State]++
			}
			if !maps.Equal(kept, wantKept) {
				t.Errorf("told of %v, want %v", kept, wantKept)
			}
			// It goes on as every table: room is found, notes are there, all ends.
			for _, i := range want {
				if tab.Note(tab.lookup(i.Forward)) == 0 && i.State != Template && i.Flags != 0 {
					t.Fatalf("the note of %v is gone", i.Forward)
				}
			}
			for i := range c.capacity - tab.Len() {
				mustInsert(t, tab, nat(10000+i, i%2 == 0, udp), 0, now)
			}
			reachable(t, tab, now)
			for w := range c.workers {
				tab.Sleep(w)
			}
			later := now + ticks(24*time.Hour)
			tab.Wake(0)
			tab.expireAll(0, later)
			tab.expireAll(0, later+ticks(time.Hour))
			if tab.Len() != 0 {
				t.Errorf("%d connections do not end", tab.Len())
			}
		})
	}
}

func TestWhatIsNotTakenOver(t *testing.T) {
	const now = Tick(1 << 20)
	insert := func(tab *Table, i int, flags uint8) Ref { return mustInsert(t, tab, nat(i, i%2 == 0, tcp), flags, now) }
	for _, c := range []struct {
		name string
		do   func(t *Table)
		keep func(*Ended) bool
		at   Tick // 0: now
		cap  int
		want Adopted
	}{
		{name: "what expired while nobody ran", do: func(t *Table) { insert(t, 1, syn) }, at: now + ticks(time.Minute), want: Adopted{Expired: 1}},
		{name: "a backend that is unknown", do: func(t *Table) { insert(t, 1, syn); insert(t, 2, syn) },
			keep: func(e *Ended) bool { return e.Backend == 2 }, want: Adopted{Kept: 1, Refused: 1}},
		{name: "what has ended but stands in the index", do: func(t *Table) { r := insert(t, 1, syn); *t.life(r) &^= uint64(wordLive) }, want: Adopted{Broken: 1}},
		{name: "what was not inserted yet", do: func(t *Table) { r := insert(t, 1, syn); t.families[ip4].deadlines[r.number()] = 0 }},
		{name: "a torn key", do: func(t *Table) { r := insert(t, 1, syn); t.v4[r].pair++ }, want: Adopted{Broken: 1}},
		{name: "a torn translation", do: func(t *Table) { r := insert(t, 2, syn); t.v6[(r|refReply)&^refV6].NewPorts++ }, want: Adopted{Broken: 1}},
		{name: "a state that there is not", do: func(t *Table) { r := insert(t, 1, syn); *t.life(r) |= 0xff }, want: Adopted{Broken: 1}},
		{name: "the state of another protocol", do: func(t *Table) { r := insert(t, 1, syn); *t.life(r) = *t.life(r)&^0xff | uint64(SCTPCookie) }, want: Adopted{Broken: 1}},
		{name: "two of one tuple", do: func(t *Table) {
			r, s := insert(t, 1, syn), insert(t, 3, syn)
			t.v4[s], t.v4[s|refReply] = t.v4[r], t.v4[r|refReply]
		}, want: Adopted{Kept: 1, Broken: 1}},
		{name: "what a smaller table has no room for", do: func(t *Table) {
			for i := range 10 {
				insert(t, i, syn)
			}
		}, cap: 4, want: Adopted{Kept: 4, Crowded: 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := memfd(t)
			old, err := New(Options{Capacity: 16, HalfOpen: 16, Workers: 1, File: file})
			if err != nil {
				t.Fatal(err)
			}
			c.do(old)
			abandon(t, old)
			o := Options{Capacity: 16, HalfOpen: 16, Workers: 1, File: file, Old: file, Keep: c.keep, Now: max(c.at, now)}
			if c.keep == nil {
				o.Keep = all
			}
			for range 2 { // what is thrown away stays so, and is not counted again
				if c.cap != 0 {
					o.Capacity, o.HalfOpen, o.File = c.cap, c.cap, memfd(t)
				}
				tab, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				if got := tab.Adopted(); got != c.want {
					t.Errorf("%+v, want %+v", got, c.want)
				}
				reachable(t, tab, o.Now)
				if tab.Len() != c.want.Kept {
					t.Errorf("%d connections, want %d", tab.Len(), c.want.Kept)
				}
				abandon(t, tab)
				c.want = Adopted{Kept: c.want.Kept}
				o.Old = o.File
			}
		})
	}
}

// A template lives on as long as those that were opened under it, whatever its own time.
func TestTemplatesAreTakenOver(t *testing.T) {
	to := DefaultTimeouts()
	to[Template] = Ticks(time.Second)
	for _, elsewhere := range []bool{false, true} {
		file := memfd(t)
		old, err := New(Options{Capacity: 16, Workers: 1, File: file})
		if err != nil {
			t.Fatal(err)
		}
		k := Tuple{Src: Addr{Lo: client4}, Dst: Addr{Lo: vip4}, Ports: 80<<16 | 80, Space: TemplateSpace(tcp)}
		template := Conn{Forward: k, ForwardTo: k, Reply: k, ReplyTo: k, OneWay: true, Template: true}
		idle := template
		idle.Forward.Src.Lo++
		child := nat(1, false, tcp)
		mustInsert(t, old, nat(5, false, udp), 0, 0) // so that numbers change where it moves
		old.Unlink(0, old.lookup(nat(5, false, udp).Forward))
		child.Control, _, _ = old.Insert(0, &template, 0, &to, 0)
		if _, _, o := old.Insert(0, &idle, 0, &to, 0); o != Inserted {
			t.Fatal(o)
		}
		r := mustInsert(t, old, child, syn, 0)
		old.Track(r|refReply, syn|ack, &to, 0)
		old.Track(r, ack, &to, 0)
		abandon(t, old)
		o := Options{Capacity: 16, Workers: 1, File: file, Old: file, Keep: all, Now: ticks(time.Minute)}
		if elsewhere {
			o.File = memfd(t)
		}
		tab, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tab.Adopted(), (Adopted{Kept: 2, Expired: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		reachable(t, tab, o.Now)
		found := tab.lookup(k)
		if found == 0 || tab.children(found) != 1 || !tab.Controlled(tab.lookup(child.Forward)) {
			t.Errorf("template %#x has %d children", found, tab.children(found))
		}
		tab.Unlink(0, tab.lookup(child.Forward))
		if tab.children(found) != 0 {
			t.Errorf("the template has %d children after the last one's end", tab.children(found))
		}
		next := template
		next.Forward.Src.Lo += 2
		if s, _, _ := tab.Insert(0, &next, 0, &to, o.Now); *tab.control(s)>>32 == *tab.control(found)>>32 {
			t.Error("two templates have one serial number")
		}
		tab.Close()
	}
}

func TestHeadersThatAreRefused(t *testing.T) {
	boot := [16]byte{1}
	for _, c := range []struct {
		name  string
		spoil func(h *header)
		cut   bool
		want  error
	}{
		{name: "as it was"},
		{name: "a later version", spoil: func(h *header) { h.version++ }, want: ErrLayout},
		{name: "another shape", spoil: func(h *header) { h.shape++; h.sum = h.checksum() }, want: ErrLayout},
		{name: "a bit of the sizes", spoil: func(h *header) { h.conns ^= 1 << 20 }, want: ErrDamaged},
		{name: "sizes that contradict each other", spoil: func(h *header) { h.conns = 1 << 40; h.sum = h.checksum() }, want: ErrDamaged},
		{name: "an earlier boot", spoil: func(h *header) { h.boot[0]++; h.sum = h.checksum() }, want: ErrBoot},
		{name: "no table", spoil: func(h *header) { h.magic++ }, want: ErrForeign},
		{name: "half a file", cut: true, want: ErrDamaged},
	} {
		file := memfd(t)
		tab, err := New(Options{Capacity: 1000, Workers: 1, File: file, Boot: boot})
		if err != nil {
			t.Fatal(err)
		}
		if c.spoil != nil {
			c.spoil(tab.memory.header())
		}
		abandon(t, tab)
		if c.cut {
			file.Truncate(100_000)
		}
		before := contentsOf(t, file)
		_, err = ReadHeader(file, boot)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.want == nil {
			continue
		}
		if _, err := New(Options{Capacity: 1000, Workers: 1, File: file, Old: file, Keep: all, Boot: boot}); !errors.Is(err, c.want) {
			t.Errorf("%s: New: %v, want %v", c.name, err, c.want)
		}
		if !bytes.Equal(before, contentsOf(t, file)) {
			t.Errorf("%s: the file was changed", c.name)
		}
	}
	empty := memfd(t)
	if _, err := ReadHeader(empty, boot); !errors.Is(err, ErrNoTable) {
		t.Errorf("an empty file: %v", err)
	}
}

func contentsOf(t *testing.T, f *os.File) []byte {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, min(info.Size(), 1<<20))
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestATableThatLivesIsNotTakenOver(t *testing.T) {
	file := memfd(t)
	tab, err := New(Options{Capacity: 16, Workers: 1, File: file})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	again := reopened(t, file)
	for _, o := range []Options{{Capacity: 16, File: again}, {Capacity: 32, File: memfd(t)}} {
		o.Workers, o.Old, o.Keep = 1, again, all
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "another table lives in this file") {
			t.Errorf("capacity %d: %v", o.Capacity, err)
		}
	}
}

// A tmpfs that is full does not kill whoever writes to the table: connections that there is no memory for are refused.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file, err := os.Create(dir + "/conns")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := New(Options{Capacity: 1 << 21, Workers: 1, File: file}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("an index of 64 MiB in a file system of as much: %v", err)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("a table that was not made leaves %d bytes, %v", info.Size(), err)
	}
	const capacity = 100_000 // 65,536 have memory from the beginning
	tab, err := New(Options{Capacity: capacity, HalfOpen: capacity, Workers: 1, File: file})
	if err != nil {
		t.Skipf("where huge pages are given by themselves it is full at once: %v", err)
	}
	defer tab.Close()
	var fs unix.Statfs_t
	unix.Statfs(dir, &fs)
	if err := os.WriteFile(dir+"/other", make([]byte, int(fs.Bfree)*int(fs.Bsize)), 0o600); err != nil {
		t.Fatal(err)
	}
	to := DefaultTimeouts()
	n := 0
	for ; n < capacity; n++ {
		c := nat(n, true, udp)
		if _, _, o := tab.Insert(0, &c, 0, &to, 0); o == Full {
			break
		} else if o != Inserted {
			t.Fatal(o)
		}
		if n%1000 == 0 {
			if e := tab.Enlarge(); e != nil {
				err = e
			}
		}
	}
	t.Logf("%d of %d connections had room; Enlarge: %v", n, capacity, err)
	if n == capacity || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("connection %d was refused, Enlarge says %v; want one before the last, and why", n, err)
	}
}

// A table goes on where others have filled the file system since: its own memory is there, and who is refused is a new connection.
func TestTakeOverInFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file, err := os.Create(dir + "/conns")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const capacity, old = 100_000, 20_000 // 65,536 have memory from the beginning
	o := Options{Capacity: capacity, HalfOpen: capacity, Workers: 1, File: file}
	tab, err := New(o)
	if err != nil {
		t.Skipf("where huge pages are given by themselves it is full at once: %v", err)
	}
	to := DefaultTimeouts()
	for n := range old {
		c := nat(n, true, udp)
		if _, _, o := tab.Insert(0, &c, 0, &to, 0); o != Inserted {
			t.Fatal(o)
		}
	}
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	unix.Statfs(dir, &fs)
	if err := os.WriteFile(dir+"/other", make([]byte, int(fs.Bfree)*int(fs.Bsize)), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Old, o.Keep = file, func(*Ended) bool { return true }
	if tab, err = New(o); err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	if a := tab.Adopted(); a.Kept != old {
		t.Errorf("%+v, want %d kept", a, old)
	}
	n := old
	for outcome := Inserted; outcome == Inserted; n++ {
		c := nat(n, true, udp)
		_, _, outcome = tab.Insert(0, &c, 0, &to, 0)
		if outcome != Inserted && outcome != Full {
			t.Fatal(outcome)
		}
	}
	t.Logf("%d of %d connections had room", n-1, capacity)
	if err := tab.Enlarge(); n < capacity && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("connection %d was refused, but nobody is told why: %v", n, err)
	}
}

// TestBurst: a burst finds what is set aside for each worker, without anybody's help, and beyond that it is refused rather than given memory that
// somebody else may have taken meanwhile.
func TestBurst(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file, err := os.Create(dir + "/conns")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const capacity, workers, each = 400_000, 2, 131_072
	tab, err := New(Options{Capacity: capacity, HalfOpen: capacity, Workers: workers, File: file})
	if err != nil {
		t.Skipf("tmpfs: %v", err)
	}
	defer tab.Close()
	var fs unix.Statfs_t
	unix.Statfs(dir, &fs)
	if err := os.WriteFile(dir+"/other", make([]byte, int(fs.Bfree)*int(fs.Bsize)), 0o600); err != nil {
		t.Fatal(err)
	}
	to := DefaultTimeouts()
	n := 0
	burst := func() {
		for ; n < capacity; n++ {
			c := nat(n, false, udp)
			if _, _, o := tab.Insert(n%workers, &c, 0, &to, 0); o == Full {
				return
			} else if o != Inserted {
				t.Fatalf("connection %d: %v", n, o)
			}
		}
	}
	burst()
	if n < workers*each || n == capacity {
		t.Fatalf("%d connections had room, want %d and not all", n, workers*each)
	}
	if err := os.Remove(dir + "/other"); err != nil {
		t.Fatal(err)
	}
	before := n
	if err := tab.Enlarge(); err != nil {
		t.Fatal(err)
	}
	if burst(); n < min(before+workers*each, capacity) {
		t.Errorf("%d more had room once there was memory again", n-before)
	}
}

func BenchmarkTakeOver(b *testing.B) {
	for _, conns := range []int{1 << 16, 1 << 20} {
		for _, elsewhere := range []bool{false, true} {
			b.Run(fmt.Sprintf("conns=%d/elsewhere=%v", conns, elsewhere), func(b *testing.B) {
				fd, err := unix.MemfdCreate("conntrack-bench", unix.MFD_CLOEXEC)
				if err != nil {
					b.Skip(err)
				}
				file := os.NewFile(uintptr(fd), "memfd")
				defer file.Close()
				o := Options{Capacity: conns, HalfOpen: conns, Workers: 1, File: file, Keep: all}
				t, err := New(o)
				if err != nil {
					b.Fatal(err)
				}
				to := DefaultTimeouts()
				for i := range conns {
					c := nat(i, false, udp)
					if _, _, out := t.Insert(0, &c, 0, &to, 0); out != Inserted {
						b.Fatal(out)
					}
					if i%(1<<14) == 0 {
						t.Enlarge()
					}
				}
				abandon(b, t)
				o.Old = file
				for b.Loop() {
					if elsewhere {
						fd, _ := unix.MemfdCreate("conntrack-bench", unix.MFD_CLOEXEC)
						o.File = os.NewFile(uintptr(fd), "memfd")
					}
					t, err := New(o)
					if err != nil || t.Len() != conns {
						b.Fatal(err, t.Len())
					}
					t.Close()
					if elsewhere {
						o.File.Close()
					}
				}
			})
		}
	}
}
