package afxdp

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

// setupMu is held while a socket is made: the library's bind flags are a variable of the process, and telling its mappings from others
// must not meet ours half made.
var setupMu sync.Mutex

// asavieSocket makes the first socket of the worker's memory by asavie/xdp and takes everything over from it: the descriptor, the memory,
// which replaces the pages of the pool without moving the pool, and the rings, mapped again. It is errRemap if the kernel
// cannot map them; then nothing is left of the attempt.
func (q *Queue) asavieSocket(flags uint16) (*socket, error) {
	setupMu.Lock()
	defer setupMu.Unlock()
	n := q.options.RingSize
	before, err := ringMappings()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRemap, err)
	}
	fd, mem, err := newAsavie(q.dev.index, q.number, n, &q.umem.options, flags)
	s := &socket{fd: fd, setup: setupAsavie}
	if fd < 0 {
		// The rings of a failed attempt stay mapped and its socket with them, but their layout is that of any other's.
		if probe, perr := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); perr == nil {
			_ = mmapOffsets(probe, &s.offsets)
			unix.Close(probe)
		}
		releaseMappings(before, &s.offsets, n)
		return nil, err
	}
	if err := mmapOffsets(fd, &s.offsets); err != nil {
		syscall.Munmap(mem)
		unix.Close(fd)
		return nil, fmt.Errorf("%w: %w", errRemap, err)
	}
	releaseMappings(before, &s.offsets, n)
	err = s.mapRings(n)
	if err == nil {
		if err = movePages(q.umem.mem, mem); err == nil {
			q.umem.fresh = false
		}
	}
	syscall.Munmap(mem)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%w: %w", errRemap, err)
	}
	q.refill(s)
	s.tune(n)
	return s, nil
}

// suitAsavie reports whether the library can make the memory that is asked for: it knows neither huge pages nor headroom, and shows its memory
// by a length of 32 bits; and that is this process' alone.
func (o *UmemOptions) suitAsavie() bool {
	return !o.OwnSetup && !o.Shared && !o.HugePages && o.Headroom == 0 && int64(o.Chunks)*int64(o.ChunkSize) < 1<<32
}

// newAsavie has asavie/xdp make a socket and keeps of it what we drive ourselves. The library's object is garbage on return: its pointers
// into the rings must not outlive their mappings.
func newAsavie(ifindex, queue, ring int, o *UmemOptions, flags uint16) (fd int, mem []byte, err error) {
	saved := xdp.DefaultSocketFlags
	xdp.DefaultSocketFlags = flags
	defer func() { xdp.DefaultSocketFlags = saved }()
	xsk, err := xdp.NewSocket(ifindex, queue, &xdp.SocketOptions{
		NumFrames:              o.Chunks,
		FrameSize:              o.ChunkSize,
		FillRingNumDescs:       ring,
		CompletionRingNumDescs: ring,
		RxRingNumDescs:         ring,
		TxRingNumDescs:         ring,
	})
	if err != nil {
		return -1, nil, &asavieError{err}
	}
	unix.CloseOnExec(xsk.FD())
	return xsk.FD(), xsk.GetFrame(xdp.Desc{Len: uint32(o.Chunks * o.ChunkSize)}), nil
}

// asavieError gives an error of the library's its number back, which it keeps only as text.
type asavieError struct{ err error }

func (e *asavieError) Error() string {
	if e.Is(unix.EBUSY) {
		return "asavie/xdp: " + e.err.Error() + " (another program on this queue?)"
	}
	return "asavie/xdp: " + e.err.Error()
}

func (e *asavieError) Is(target error) bool {
	errno, ok := target.(unix.Errno)
	return ok && strings.HasSuffix(e.err.Error(), ": "+errno.Error())
}

// mapping is one ring of an AF_XDP socket in our address space.
type mapping struct {
	start  uintptr
	offset uint64 // says which ring
	inode  uint64 // of the socket
}

// ringMappings are the rings that are mapped now. Only AF_XDP sockets are mapped at the fill ring's offset, which tells their
// other rings from those of packet sockets.
func ringMappings() ([]mapping, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mapping
	xsk := map[uint64]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 7f0e8c000000-7f0e8c005000 rw-s 100000000 00:08 31415    socket:[31415]
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || !strings.HasPrefix(fields[5], "socket:") {
			continue
		}
		from, _, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		offset, err2 := strconv.ParseUint(fields[2], 16, 64)
		inode, err3 := strconv.ParseUint(fields[4], 10, 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("/proc/self/maps: %w", err)
		}
		all = append(all, mapping{uintptr(start), offset, inode})
		xsk[inode] = xsk[inode] || offset == unix.XDP_UMEM_PGOFF_FILL_RING
	}
	rings := all[:0]
	for _, m := range all {
		if xsk[m.inode] {
			rings = append(rings, m)
		}
	}
	return rings, lines.Err()
}

// releaseMappings unmaps the rings, of n entries each, of sockets that had none in before. The library never does, and a
// mapped ring keeps its socket bound after close. They are unmapped the way they were mapped, by package syscall, which keeps a list.
func releaseMappings(before []mapping, off *unix.XDPMmapOffsets, n int) {
	known := map[uint64]bool{}
	for _, m := range before {
		known[m.inode] = true
	}
	now, err := ringMappings()
	if err != nil {
		return
	}
	for _, m := range now {
		if known[m.inode] {
			continue
		}
		length := 0
		switch m.offset {
		case unix.XDP_UMEM_PGOFF_FILL_RING:
			length = ringLength(off.Fr, n, addrSize)
		case unix.XDP_UMEM_PGOFF_COMPLETION_RING:
			length = ringLength(off.Cr, n, addrSize)
		case unix.XDP_PGOFF_RX_RING:
			length = ringLength(off.Rx, n, descSize)
		case unix.XDP_PGOFF_TX_RING:
			length = ringLength(off.Tx, n, descSize)
		}
		_ = syscall.Munmap(mappingAt(m.start, length)) // EINVAL if it is not in the list: then it is not the library's
	}
}

// canRemap reports whether the kernel is likely to map the rings of a bound socket. It is asked first because an attempt that fails
// leaves the queue busy for a while.
func canRemap() bool {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return false
	}
	return releaseAtLeast(unix.ByteSliceToString(uts.Release[:]), 6, 4)
}

// releaseAtLeast compares a kernel release such as 6.18.44-generic.
func releaseAtLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
