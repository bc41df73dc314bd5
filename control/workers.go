package control

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"weir/control/config"
	"weir/control/host"
)

// workerCPUs are the cores of the workers, -1 for one that is pinned to none. Automatic is one worker for each receive queue that the first
// AF_XDP port has in use, or is given; ports that have others are refused later, with the command that sets them.
func workerCPUs(cfg *config.Config) ([]int, error) {
	w := &cfg.Engine.Workers
	if len(w.CPUs) > 0 {
		return w.CPUs, nil
	}
	n := w.Count
	if n == 0 {
		var err error
		if n, err = receiveQueues(cfg); err != nil {
			return nil, err
		}
	}
	cpus := make([]int, n)
	all := allowedCPUs()
	for i := range cpus {
		cpus[i] = -1
		if n < len(all) {
			cpus[i] = all[len(all)-n+i] // the last cores: the first ones have the most interrupts, and control needs one for itself
		}
	}
	return cpus, nil
}

// allowedCPUs are those that the process may run on, in ascending order; none if that cannot be known.
func allowedCPUs() (all []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all
}

// confine keeps all threads of the process that are there, and so those that Go makes of them, off the workers' cores: a reload, or the
// collector, would otherwise take a worker's core from it for milliseconds. Workers go to their own cores themselves, and Go makes no thread out
// of one that is locked. It does nothing where that would leave control no core. undo lets the threads go again.
func confine(workers []int) (undo func(), err error) {
	var was, rest unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return func() {}, fmt.Errorf("sched_getaffinity: %w", err)
	}
	rest = was
	for _, cpu := range workers {
		if cpu >= 0 {
			rest.Clear(cpu)
		}
	}
	if rest.Count() == 0 || rest == was {
		return func() {}, nil
	}
	if err := setAffinity(&was, &rest); err != nil {
		return func() {}, err
	}
	return func() { _ = setAffinity(&rest, &was) }, nil
}

// spread calls f, which begins another program, on a thread that may run on all of those cores that the process was begun with. A program inherits the cores of the
// thread that begins it: those of a confined one are none of the workers', and a successor would put its own on what is left, and its successor
// on what that leaves.
func spread(all *unix.CPUSet, f func() error) error {
	runtime.LockOSThread() // Go makes no thread out of one that is locked
	defer runtime.UnlockOSThread()
	var now unix.CPUSet
	if all.Count() > 0 && unix.SchedGetaffinity(0, &now) == nil && unix.SchedSetaffinity(0, all) == nil {
		defer func() { _ = unix.SchedSetaffinity(0, &now) }()
	}
	return f()
}

// setAffinity moves the process's threads that may run on one set of cores to another. One that is made meanwhile has its maker's set, which may
// still be the old one, so it looks until two looks in a row have found nothing to do.
func setAffinity(from, to *unix.CPUSet) error {
	for quiet := 0; quiet < 2; quiet++ {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			var now unix.CPUSet
			if unix.SchedGetaffinity(id, &now) != nil || now != *from {
				continue // it has ended, or somebody put it where it is
			}
			quiet = -1
			if err := unix.SchedSetaffinity(id, to); err != nil && err != unix.ESRCH {
				return fmt.Errorf("sched_setaffinity: %w", err)
			}
		}
	}
	return nil
}

// receiveQueues is the number of receive queues that the first AF_XDP port has in use, or is given, 1 if there is no such port.
func receiveQueues(cfg *config.Config) (int, error) {
	h, err := host.Open()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	for i := range cfg.Ports {
		if cfg.Ports[i].Driver != "af_xdp" {
			continue
		}
		if q := cfg.Ports[i].Queues; !q.All {
			return len(q.List), nil
		}
		l, err := h.Link(cfg.Ports[i].Interface)
		if err != nil {
			return 0, fmt.Errorf("ports[%d] %s: %w", i, cfg.Ports[i].Name, err)
		}
		return max(l.Channels.Rx, 1), nil
	}
	return 1, nil
}
