package control

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weir/conntrack"
)

// nameless makes the connection table in a file without a name. Where the operator has reserved enough huge pages the file is made of them, else
// of ordinary memory.
func nameless(o conntrack.Options) (*conntrack.Table, error) {
	for _, flags := range []int{unix.MFD_HUGETLB | unix.MFD_HUGE_2MB, 0} {
		huge := flags != 0
		if huge && freeHugePages() == 0 {
			continue
		}
		fd, err := unix.MemfdCreate("weir-conntrack", unix.MFD_CLOEXEC|flags)
		if err != nil {
			if huge {
				continue // no such pages in this kernel
			}
			return nil, os.NewSyscallError("memfd_create", err)
		}
		o.File = os.NewFile(uintptr(fd), "weir-conntrack")
		t, err := conntrack.New(o)
		if err == nil {
			return t, nil
		}
		if err = errors.Join(err, o.File.Close()); !huge {
			return nil, err
		}
	}
	panic("unreachable: ordinary memory ends in a table or an error")
}

// freeHugePages is how many pages of 2 MiB are reserved and unused, 0 if that cannot be told.
func freeHugePages() int {
	b, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// hugePages reports whether the kernel may have pages of 2 MiB for the frame memory. The library that can make the first socket knows only
// small ones, which cost more misses of the TLB: it is for kernels that have no others.
func hugePages() bool {
	if freeHugePages() > 0 {
		return true
	}
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && !strings.Contains(string(b), "[never]")
}

// enlarging is how often it is seen to that new connections find memory.
const enlarging = 50 * time.Millisecond

// provide gets memory ready for connections to come, and tells when there is no more to be had, or is again. It has a goroutine of its own, for a reload
// of thousands of services keeps control's for longer than a burst of connections takes to use up what there is. What it returns ends it.
func (c *Control) provide() (end func()) {
	enough, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(enlarging)
		defer tick.Stop()
		var was error
		for {
			select {
			case <-enough:
				return
			case <-tick.C:
			}
			err := c.engine.Table.Enlarge()
			if (err == nil) == (was == nil) {
				continue
			}
			was = err
			c.mu.Lock()
			c.cramped = err
			c.mu.Unlock()
			if err != nil {
				c.log.Warn("no memory for more connections: new ones are refused as table_full when what was set aside is used up", "err", err)
			} else {
				c.log.Info("there is memory for connections again")
			}
		}
	}()
	return func() { close(enough); <-ended }
}
