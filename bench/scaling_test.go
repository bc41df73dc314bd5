package bench

import (
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane"
	"weir/dataplane/driver"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
)

// scaled is workers of one engine, each with queues of its own whose frames never leave memory.
type scaled struct {
	engine  *dataplane.Engine
	workers []*lone
	conns   int
}

// lone is one of them.
type lone struct {
	worker *dataplane.Worker
	ports  [2]*mem.Recycler
	now    int64
	random uint64
}

func newScaled(t testing.TB, conns, workers int) *scaled {
	t.Helper()
	x := &scaled{engine: newEngine(t, conns, workers), conns: conns}
	for i := range workers {
		pool, err := packet.NewPool(make([]byte, 1024*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		w := &lone{ports: [2]*mem.Recycler{mem.NewRecycler(pool), mem.NewRecycler(pool)}, now: 1e9, random: 88172645463325252 + uint64(i)}
		w.worker = x.engine.AddWorker(pool, []driver.Queue{w.ports[0], w.ports[1]})
		x.workers = append(x.workers, w)
	}
	for i := range conns {
		w := x.workers[i%workers]
		w.fill(0, 1, func() int { return i })
		w.round()
	}
	if got := x.engine.Table.Len(); got != conns {
		t.Fatalf("%d connections made of %d", got, conns)
	}
	return x
}

func (w *lone) fill(port, n int, conn func() int) {
	f, addr, at := requestFrame, 26, 34
	if port == 1 {
		f, addr, at = answerFrame, 30, 36
	}
	for i := range w.ports[port].Fill(f, n) {
		aim(w.ports[port].Frame(i), addr, at, conn())
	}
}

func (w *lone) round() {
	w.now += 1000
	w.worker.Round(w.now)
}

// run takes packets of worker number i's connections through it, half of them requests and half answers. crossed: the answers are of its neighbour's
// connections, as where a device spreads the two directions over its queues without regard to each other.
func (x *scaled) run(i, packets int, crossed bool) {
	w, n := x.workers[i], len(x.workers)
	next := func(of int) func() int {
		return func() int {
			w.random ^= w.random << 13
			w.random ^= w.random >> 7
			w.random ^= w.random << 17
			h, _ := bits.Mul64(w.random, uint64(x.conns/n))
			return int(h)*n + of
		}
	}
	theirs := i
	if crossed {
		theirs = (i + 1) % n
	}
	for done := 0; done < packets; done += 2 * vector {
		w.fill(0, vector, next(i))
		w.fill(1, vector, next(theirs))
		w.round()
	}
}

// control is the control loop: a random walk over memory of one's own, and a copy, about as much as a packet takes.
func control(mem []uint64, steps int) (sum uint64) {
	random := uint64(88172645463325252)
	for range steps {
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		at := random & uint64(len(mem)-8) &^ 7
		for i := range mem[at:][:8] {
			mem[at+uint64(i)] += random
		}
		sum += mem[at]
	}
	return sum
}

// together runs f on n threads at once and returns how much of the CPU the thread that took most has used: unlike the time that passes, that does
// not grow when another program has the core.
func together(n int, f func(i int)) time.Duration {
	used := make([]time.Duration, n)
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			ready.Wait()
			before := threadTime()
			f(i)
			used[i] = threadTime() - before
		}()
	}
	done.Wait()
	return slices.Max(used)
}

func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // cannot fail with a valid clock
	return time.Duration(ts.Nano())
}

// BenchmarkWorkers is packets of established connections through one worker and through two at once, ns of the slower one's CPU each.
func BenchmarkWorkers(b *testing.B) {
	for _, tt := range []struct {
		workers int
		crossed bool
	}{{1, false}, {2, false}, {2, true}} {
		name := fmt.Sprintf("workers=%d", tt.workers)
		if tt.crossed {
			name += "/crossed"
		}
		b.Run(name, func(b *testing.B) {
			x := newScaled(b, 10_000, tt.workers)
			b.ResetTimer()
			used := together(tt.workers, func(i int) { x.run(i, b.N, tt.crossed) })
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/packet")
		})
	}
}

// TestTwoWorkersScale: two workers take as many packets each as one alone, as nearly as two threads of a loop do that share nothing but the machine.
func TestTwoWorkersScale(t *testing.T) {
	if runtime.NumCPU() < 2 || raceEnabled {
		t.Skip("needs two cores, and no race detector, whose own memory is shared")
	}
	const packets, steps = 200_000, 1_000_000
	one, two := newScaled(t, 10_000, 1), newScaled(t, 10_000, 2)
	var memory [2][]uint64
	for i := range memory {
		memory[i] = make([]uint64, 1<<17)
	}
	measure := func() (workers, loop, spread float64) {
		var ratios, loops []float64
		for range 7 {
			alone := together(1, func(i int) { one.run(i, packets, false) })
			both := together(2, func(i int) { two.run(i, packets, false) })
			loopAlone := together(1, func(i int) { control(memory[i], steps) })
			loopBoth := together(2, func(i int) { control(memory[i], steps) })
			ratios = append(ratios, alone.Seconds()/both.Seconds())
			loops = append(loops, loopAlone.Seconds()/loopBoth.Seconds())
		}
		slices.Sort(ratios)
		slices.Sort(loops)
		return ratios[3], loops[3], loops[5] - loops[1]
	}
	for range 3 {
		workers, loop, spread := measure()
		t.Logf("two workers each do %.2f of what one does alone, two control loops %.2f (spread %.2f)", workers, loop, spread)
		switch {
		case workers >= 0.9*loop:
			v, _ := two.engine.Verdicts()
			if want := uint64(10_000); v.Received < want || v.Forwarded != v.Received {
				t.Errorf("counted %+v", v)
			}
			return
		case spread > 0.1:
			t.Skip("inconclusive: the control loops themselves do not agree")
		}
	}
	t.Error("want at least 0.9 of the control loop's in one of three measurements")
}
