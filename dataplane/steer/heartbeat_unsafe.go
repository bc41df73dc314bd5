package steer

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The value of the heartbeat map: offsets of 64-bit numbers of nanoseconds.
const (
	heartbeatBeat    = 0  // CLOCK_MONOTONIC at the last beat, 0: none yet; written by workers
	heartbeatGrace   = 8  // written by control
	heartbeatUnusual = 16 // that an unusual frame takes up, 0: there is no limit; written by control

	heartbeatSize = 24
)

// heartbeat is the map's memory. The program reads it at the same time, so each number is one atomic word.
type heartbeat struct {
	mem                  []byte
	beat, grace, unusual *atomic.Uint64
}

// mapHeartbeat maps the one value of an array made with BPF_F_MMAPABLE.
func mapHeartbeat(m *ebpf.Map) (heartbeat, error) {
	mem, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return heartbeat{}, fmt.Errorf("mmap heartbeat map: %w", err)
	}
	return heartbeat{
		mem:   mem,
		beat:  (*atomic.Uint64)(unsafe.Pointer(&mem[heartbeatBeat])),
		grace: (*atomic.Uint64)(unsafe.Pointer(&mem[heartbeatGrace])),

		unusual: (*atomic.Uint64)(unsafe.Pointer(&mem[heartbeatUnusual])),
	}, nil
}

func (h *heartbeat) unmap() error {
	if h.mem == nil {
		return nil
	}
	err := unix.Munmap(h.mem)
	*h = heartbeat{}
	return err
}
