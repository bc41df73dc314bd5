package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/driver/wait"
)

const (
	// spinBelow is the gap to the next frame that is not worth sleeping for: a sleep takes about that long to end.
	spinBelow = 60 * time.Microsecond
	// longestSleep bounds how late a thread hears that it is to stop.
	longestSleep = 5 * time.Millisecond
	timerSlack   = 1000 // ns; 50000 is the kernel's default
)

// thread drives stations until stop is set. On a machine with few cores one thread for both ports is best: the receiver then never waits
// for a core that the sender spins on.
type thread struct {
	stations []*station
	cable    *cable // carried by this thread, if not nil
	clock    clock
	cpu      int // to run on; -1: any
	stop     *atomic.Bool
}

func (t *thread) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if t.cpu >= 0 {
		var before unix.CPUSet
		if err := unix.SchedGetaffinity(0, &before); err != nil {
			return fmt.Errorf("sched_getaffinity: %w", err)
		}
		if err := pin(t.cpu); err != nil {
			return err
		}
		defer unix.SchedSetaffinity(0, &before)
	}
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) // only a matter of accuracy
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)        // the default
	w, err := wait.New(wait.Poll)
	if err != nil {
		return err
	}
	defer w.Close()
	var fds []int
	for _, s := range t.stations {
		for _, q := range s.queues {
			fds = append(fds, q.FD())
		}
	}
	if err := w.SetFDs(fds); err != nil {
		return err
	}
	for !t.stop.Load() {
		moved, gap := t.round()
		if moved || gap < spinBelow {
			continue
		}
		if !w.Arm() {
			continue
		}
		if moved, gap = t.round(); !moved && gap >= spinBelow {
			w.Sleep(gap - spinBelow/2)
		}
		w.Disarm()
	}
	for _, s := range t.stations {
		s.show()
	}
	return nil
}

// round lets each station do what there is to do. It reports whether that was something or is unfinished, and else how long it is until
// there will be.
func (t *thread) round() (moved bool, gap time.Duration) {
	gap = longestSleep
	now := t.clock.now()
	for _, s := range t.stations {
		n, pending := s.round(now, t.clock)
		moved = moved || n > 0 || pending
		gap = min(gap, time.Duration(s.gap(now)))
	}
	if t.cable != nil && t.cable.carry(256) > 0 {
		moved = true
	}
	return moved, gap
}

// Confine binds all threads of the process, and those to come, to CPUs: those of Go's runtime and of the status line would otherwise take
// time of the CPU that does what is measured.
func Confine(cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	bound := map[string]bool{}
	for more := true; more; { // a thread not yet bound may have begun one
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		more = false
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || bound[t.Name()] {
				continue
			}
			if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) { // it has just ended
				return fmt.Errorf("sched_setaffinity to CPUs %v: %w (are they online?)", cpus, err)
			}
			bound[t.Name()], more = true, true
		}
	}
	return nil
}

// pin binds the calling thread to a CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("sched_setaffinity to CPU %d: %w (is it online?)", cpu, err)
	}
	return nil
}
