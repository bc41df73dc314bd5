package dataplane

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/driver/wait"
	"weir/dataplane/steer"
)

// Runner is one worker on one thread: it turns rounds until it is told to stop, and waits as its mode says when there is nothing to do.
type Runner struct {
	Worker  *Worker
	Waiter  *wait.Waiter
	CPU     int             // the core its thread is pinned to, -1: any
	Beat    func(now int64) // called about every beatEvery with the monotonic clock's nanoseconds: the sign of life
	fds     []int           // that the waiter has
	longest time.Duration   // of a sleep; 0: longestSleep
	stop    atomic.Bool
	thread  atomic.Int32 // its thread's ID; 0: it was not started
	done    chan struct{}
}

const (
	// beatEvery is how often a worker that works writes its heartbeat, in nanoseconds.
	beatEvery = 10_000_000
	// longestSleep bounds a sleep, so that the heartbeat stays young and connections expire while nothing arrives.
	longestSleep = 100 * time.Millisecond
	// shortestSleep is the pause of a worker whose queues have something unfinished that no descriptor announces.
	shortestSleep = time.Millisecond
)

// Start runs the worker on a goroutine of its own, also again after Stop.
func (r *Runner) Start() {
	r.stop.Store(false)
	r.done = make(chan struct{})
	go r.run()
}

// Stop ends the worker's rounds and waits for the last one. It does nothing if the worker was never started.
func (r *Runner) Stop() {
	if r.done == nil {
		return
	}
	r.stop.Store(true)
	r.Waiter.Notify()
	<-r.done
}

// CPUTime is the processor time that the worker's thread has used: of a worker that sleeps when it has nothing to do, how busy it is. It is zero before
// the start and after the end.
func (r *Runner) CPUTime() time.Duration {
	thread := r.thread.Load()
	if thread == 0 {
		return 0
	}
	const perThread, scheduled = 4, 2 // CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_SCHED of the kernel's posix-timers
	var ts unix.Timespec
	if unix.ClockGettime(^thread<<3|perThread|scheduled, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (r *Runner) run() {
	defer close(r.done)
	runtime.LockOSThread()
	r.thread.Store(int32(unix.Gettid()))
	if r.CPU >= 0 {
		var set unix.CPUSet
		set.Set(r.CPU)
		_ = unix.SchedSetaffinity(0, &set) // the core went offline: run anywhere
	}
	_ = r.Waiter.Bind() // only the signal mode can fail, and it is then busy instead
	if r.longest == 0 {
		r.longest = longestSleep
	}
	w := r.Worker
	w.table.Wake(w.id)
	clock := newClock()
	var beaten int64
	r.fds = r.fds[:0] // of a former run
	for !r.stop.Load() {
		now := clock.now()
		if now-beaten >= beatEvery {
			beaten = now
			if r.Beat != nil {
				r.Beat(now)
			}
			r.refreshFDs()
		}
		if w.Round(now) > 0 {
			r.Waiter.Worked()
			continue
		}
		if w.Behind() {
			continue // slept through much of the expiry scan: the sooner it is done, the longer the next sleep
		}
		if !r.Waiter.Arm() {
			continue
		}
		if w.Round(clock.now()) > 0 { // look once more: what came before Arm makes no descriptor ready after it
			r.Waiter.Worked()
		} else {
			timeout := r.longest
			if w.Pending() {
				timeout = shortestSleep
			} else if w.Holding() > 0 {
				timeout = longestSleep / 10
			}
			w.Counters.Sleeps.add(1)
			w.table.Sleep(w.id)
			r.Waiter.Sleep(timeout)
			w.table.Wake(w.id)
		}
		r.Waiter.Disarm()
	}
	w.table.Sleep(w.id)
	r.Waiter.Unbind()
}

// refreshFDs tells the waiter when a queue's descriptor has changed: its device was lost and came back.
func (r *Runner) refreshFDs() {
	same := len(r.fds) == len(r.Worker.queues)
	for i, q := range r.Worker.queues {
		fd := -1
		if q != nil {
			fd = q.FD()
		}
		if !same || r.fds[i] != fd {
			same = false
			break
		}
	}
	if same {
		return
	}
	r.fds = r.fds[:0]
	for _, q := range r.Worker.queues {
		fd := -1
		if q != nil {
			fd = q.FD()
		}
		r.fds = append(r.fds, fd)
	}
	_ = r.Waiter.SetFDs(r.fds) // a descriptor that cannot be waited for is left out and tried again
}

// clock reads CLOCK_MONOTONIC through the vDSO: time.Since a fixed moment is one call without a system call, and the offset makes it the
// kernel's own count ([steer.Now]), which the steering program compares heartbeats with.
type clock struct {
	start  time.Time
	offset int64
}

func newClock() clock {
	return clock{start: time.Now(), offset: steer.Now()}
}

func (c *clock) now() int64 { return c.offset + int64(time.Since(c.start)) }

// Monotonic is the nanoseconds of the clock that runners hand to their workers.
func Monotonic() int64 { return steer.Now() }
