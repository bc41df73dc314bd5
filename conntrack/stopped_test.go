//go:build linux && (amd64 || arm64) && !race

// Not under the race detector, whose own instructions are ten times as many and whose memory is not the table's.

package conntrack

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// step is one call of a worker and the time that it is made at.
type step struct {
	name string
	now  Tick
	do   func(t *Table, now Tick)
}

// steps are a worker's life in short: each kind of store that it makes into the table.
func stepsOfALife() []step {
	to := DefaultTimeouts()
	insert := func(c Conn, event uint8) func(*Table, Tick) {
		return func(t *Table, now Tick) { t.Insert(0, &c, event, &to, now) }
	}
	track := func(k Tuple, event uint8) func(*Table, Tick) {
		return func(t *Table, now Tick) { t.Track(t.lookup(k), event, &to, now) }
	}
	unlink := func(k Tuple) func(*Table, Tick) {
		return func(t *Table, now Tick) { t.Unlink(0, t.lookup(k)) }
	}
	a, b, c, d := nat(1, false, tcp), nat(2, true, udp), nat(3, false, tcp), nat(4, false, udp)
	again := d
	again.Backend += 100
	again.ForwardTo.Dst.Lo++
	k := Tuple{Src: c.Forward.Src, Dst: c.Forward.Dst, Ports: 80<<16 | 80, Space: TemplateSpace(tcp)}
	template := Conn{Forward: k, ForwardTo: k, Reply: k, ReplyTo: k, Backend: c.Backend, OneWay: true, Template: true}
	direct := nat(5, true, tcp)
	direct.OneWay = true
	all := []step{
		{"insert", 0, insert(a, syn)},
		{"answer", 10, track(a.Reply, syn|ack)},
		{"establish", 20, track(a.Forward, ack)},
		{"keep", 5000, track(a.Forward, ack)},
		{"insert IPv6", 5000, insert(b, 0)},
		{"insert one way", 5000, insert(direct, syn)},
		{"insert template", 5000, insert(template, 0)},
		{"insert child", 5000, func(t *Table, now Tick) {
			child := c
			child.Control = t.lookup(k)
			t.Insert(0, &child, syn, &to, now)
		}},
		{"insert again", 5000, insert(a, syn)},
		{"note", 5000, func(t *Table, now Tick) { t.SetNote(t.lookup(a.Forward), 7) }},
		{"close", 5010, track(a.Forward, rst|ack)},
		{"unlink", 5010, unlink(a.Forward)},
		{"rest", 5010, func(t *Table, now Tick) { t.Quiesce(0); t.Quiesce(0); t.Quiesce(0) }},
		{"insert into memory used before", 5010, insert(d, 0)},
		{"once", 5010, func(t *Table, now Tick) { c := nat(9, false, udp); t.Once(0, &c) }},
		{"insert in place of one that is over", 5010 + ticks(301*time.Second), insert(again, 0)},
		{"expire", 5010 + ticks(302*time.Second), func(t *Table, now Tick) { t.expireAll(0, now) }},
		{"rest again", 5010 + ticks(302*time.Second), func(t *Table, now Tick) { t.Quiesce(0); t.Quiesce(0) }},
	}
	for i := range 4 {
		all = append(all, step{fmt.Sprintf("SYN %d of a flood", i), 5010 + ticks(302*time.Second) + Tick(i), insert(nat(20+i, i%2 == 0, tcp), syn)})
	}
	return append(all,
		step{"purge", 5020 + ticks(302*time.Second), func(t *Table, now Tick) {
			t.Purge(func(id uint32) bool { return id == again.Backend }, func(Ended) {})
		}})
}

func lifeOptions(file *os.File) Options {
	return Options{Capacity: 8, HalfOpen: 2, Workers: 1, File: file, Secret: [2]uint64{3, 4}}
}

const stoppedEnv = "WEIR_CONNTRACK_STOPPED"

// TestStoppedWorker is no test, but the worker of TestStoppedAtEveryStore.
func TestStoppedWorker(t *testing.T) {
	if os.Getenv(stoppedEnv) == "" {
		t.Skip("is run by TestStoppedAtEveryStore")
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	file, journal := os.NewFile(3, "table"), os.NewFile(4, "journal")
	at, err := unix.Mmap(4, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := New(lifeOptions(file))
	if err != nil {
		t.Fatal(err)
	}
	life := stepsOfALife()
	at[0] = 255
	if _, err := fmt.Fprintln(os.NewFile(5, "hello"), unix.Gettid()); err != nil {
		t.Fatal(err)
	}
	unix.Read(6, make([]byte, 1)) // until it is watched
	for i, s := range life {
		at[0] = byte(i)
		s.do(tab, s.now)
	}
	at[0] = byte(len(life))
	runtime.KeepAlive(journal)
	unix.Exit(0)
}

// before and after are what a table has around one step, at its time.
type around struct{ before, after map[Tuple]Info }

// settled is i without what a packet changes.
func settled(i Info) Info {
	i.Expires, i.InPackets, i.OutPackets, i.State = 0, 0, 0, 0
	return i
}

// check wants found to be a table between two: each connection as it was before the step or after it, and none missing that is in both.
func (x *around) check(found map[Tuple]Info) error {
	for k, f := range found {
		b, before := x.before[k]
		a, after := x.after[k]
		switch {
		case !before && !after:
			return fmt.Errorf("%+v came from nowhere", f)
		case before && settled(f) == settled(b) && f.State == b.State, after && settled(f) == settled(a) && f.State == a.State:
		default:
			return fmt.Errorf("%+v is neither\n%+v nor\n%+v", f, b, a)
		}
	}
	for k, b := range x.before {
		if b.Expires <= 0 {
			continue // a template, which only its children keep, and their time is over
		}
		if a, stays := x.after[k]; stays && settled(a) == settled(b) {
			if _, there := found[k]; !there {
				return fmt.Errorf("%+v is gone", b)
			}
		}
	}
	return nil
}

// TestStoppedAtEveryStore has a process do one thing after another with a table, one instruction at a time. Whenever the table's memory has changed, it
// is taken over as if the process had been killed there. What is found is what was there before the step under way or after it, for
// each connection by itself, and a sound table.
func TestStoppedAtEveryStore(t *testing.T) {
	life := stepsOfALife()
	twin, err := New(lifeOptions(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	arounds := make([]around, len(life))
	for i, s := range life {
		arounds[i].before = contents(twin, s.now)
		s.do(twin, s.now)
		arounds[i].after = contents(twin, s.now)
	}

	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	file, journal := memfd(t), memfd(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(journal.Truncate(pageSize))
	at, err := unix.Mmap(int(journal.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(err)
	defer unix.Munmap(at)
	hello, tell, err := os.Pipe()
	must(err)
	wait, release, err := os.Pipe()
	must(err)
	child := exec.Command(os.Args[0], "-test.run=^TestStoppedWorker$")
	child.Env = append(os.Environ(), stoppedEnv+"=1", "GODEBUG=asyncpreemptoff=1")
	child.ExtraFiles = []*os.File{file, journal, tell, wait}
	var said bytes.Buffer
	child.Stdout, child.Stderr = &said, &said
	must(child.Start())
	tell.Close()
	traced := 0
	defer func() {
		child.Process.Kill()
		if traced != 0 && traced != child.Process.Pid {
			// A traced thread is its tracer's to reap, and until it is, there is no end of the process to wait for.
			var status unix.WaitStatus
			for !status.Exited() && !status.Signaled() {
				if _, err := unix.Wait4(traced, &status, unix.WALL, nil); err != nil && err != unix.EINTR {
					break
				}
			}
		}
		child.Wait()
	}()
	line := make([]byte, 32)
	n, err := hello.Read(line)
	if err != nil {
		child.Wait()
		t.Fatalf("the worker said nothing: %v, %s", err, said.String())
	}
	tid, err := strconv.Atoi(string(bytes.TrimSpace(line[:n])))
	must(err)
	if err := unix.PtraceSeize(tid); err != nil {
		t.Skipf("ptrace: %v", err)
	}
	traced = tid
	var status unix.WaitStatus
	stopped := func() bool {
		t.Helper()
		for {
			_, err := unix.Wait4(tid, &status, unix.WALL, nil)
			if err == unix.EINTR {
				continue
			}
			must(err)
			return status.Stopped()
		}
	}
	must(unix.PtraceInterrupt(tid))
	if !stopped() {
		t.Fatalf("the worker ended: %v, %s", status, said.String())
	}
	_, err = release.Write([]byte{1})
	must(err)

	l := layoutOf(8, 1)
	size := mappedSize(l)
	now, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	must(err)
	defer unix.Munmap(now)
	index, deadlines4, _, _, _, _ := l.offsets()
	m := memory{layout: l}
	spans := []span{{0, 256}, {index, deadlines4}}
	for f := range families {
		spans = append(spans, m.parts(f, 0, 2*refill)...)
	}
	last := make([]byte, size)
	changed := func() (any bool) {
		for _, s := range spans {
			if !bytes.Equal(now[s.from:s.to], last[s.from:s.to]) {
				copy(last[s.from:s.to], now[s.from:s.to])
				any = true
			}
		}
		return any
	}
	changed()
	stores, instructions := make([]int, len(life)), 0
	for at[0] != byte(len(life)) {
		must(unix.PtraceSingleStep(tid))
		if !stopped() {
			t.Fatalf("the worker ended in the midst: %v, %s", status, said.String())
		}
		instructions++
		if !changed() {
			continue
		}
		i := at[0]
		stores[i]++
		copied := memfd(t)
		must(copied.Truncate(int64(size)))
		for _, s := range spans {
			_, err := copied.WriteAt(last[s.from:s.to], int64(s.from))
			must(err)
		}
		o := lifeOptions(copied)
		o.HalfOpen = 8
		o.Old, o.Keep, o.Now = copied, all, life[i].now
		tab, err := New(o)
		if err != nil {
			t.Fatalf("%s, store %d: %v", life[i].name, stores[i], err)
		}
		if err := arounds[i].check(contents(tab, o.Now)); err != nil {
			t.Fatalf("%s, store %d: %v", life[i].name, stores[i], err)
		}
		reachable(t, tab, o.Now)
		tab.Close()
		copied.Close()
	}
	total := 0
	for i, n := range stores {
		if n == 0 && life[i].name != "insert again" && life[i].name != "rest" && life[i].name != "rest again" {
			t.Errorf("%s: no store was seen", life[i].name)
		}
		total += n
	}
	t.Logf("%d stores in %d instructions: %v", total, instructions, stores)
}
