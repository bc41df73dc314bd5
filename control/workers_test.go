package control

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Threads of the process leave the workers' cores, those that Go makes later too, and come back in the end.
func TestControlKeepsOffTheWorkersCores(t *testing.T) {
	all := allowedCPUs()
	if len(all) < 2 {
		t.Skip("needs two cores")
	}
	worker := all[len(all)-1]
	on := func() (n int) { // of those that are not a worker's, now or in a test before
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Skip(err)
		}
		for _, thread := range threads {
			id, _ := strconv.Atoi(thread.Name())
			var set unix.CPUSet
			if unix.SchedGetaffinity(id, &set) == nil && set.IsSet(worker) && set.Count() > 1 {
				n++
			}
		}
		return n
	}
	undo, err := confine([]int{-1, worker})
	if err != nil {
		t.Fatal(err)
	}
	if n := on(); n != 0 {
		t.Errorf("%d threads may run on the worker's core", n)
	}
	// New threads: goroutines that are locked to theirs, one of them made by a worker's.
	ready, end := make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(worker)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			t.Errorf("the worker: %v", err)
		}
		for range 8 {
			go func() {
				runtime.LockOSThread()
				ready <- true
				<-end
			}()
		}
		ready <- true
		<-end
	}()
	for range 9 {
		<-ready
	}
	if n := on(); n != 0 {
		t.Errorf("%d threads may run on the worker's core beside the worker's", n)
	}
	close(end)
	undo()
	if n := on(); n < 2 {
		t.Errorf("%d threads may run on the core afterwards", n)
	}
	if none, err := confine(all); err != nil {
		t.Errorf("workers on all cores: %v", err)
	} else {
		none()
	}
	if n := on(); n < 2 {
		t.Errorf("workers on all cores: control was left no core: %d threads", n)
	}
}

// TestASuccessorHasAllCores: what a confined process begins may run on all the cores that it was begun with itself.
func TestASuccessorHasAllCores(t *testing.T) {
	all := allowedCPUs()
	if len(all) < 2 {
		t.Skip("needs two cores")
	}
	var cores unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cores); err != nil {
		t.Fatal(err)
	}
	allowed := func() string {
		t.Helper()
		b, err := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status").Output()
		if err != nil {
			t.Skip(err)
		}
		return string(b)
	}
	before := allowed()
	undo, err := confine(all[len(all)-1:])
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	if allowed() == before {
		t.Fatal("control is not confined")
	}
	if err := spread(&cores, func() error {
		if now := allowed(); now != before {
			t.Errorf("%s, before %s", now, before)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if allowed() == before {
		t.Error("control is not confined any more")
	}
}
