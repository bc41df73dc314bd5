package afxdp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// socket is an AF_XDP socket and its rings. Its zero value with fd -1 and plainRings is no socket.
type socket struct {
	rings
	fd       int
	zerocopy bool
	setup    string // how it was made
	offsets  unix.XDPMmapOffsets
	maps     [4][]byte // fill, completion, rx, tx
}

// errRemap says that the kernel does not map the rings of a bound socket.
var errRemap = errors.New("the rings of a bound socket cannot be mapped (needs Linux 6.4)")

// connect makes the socket of q, which has none.
func (q *Queue) connect() error {
	index, err := q.dev.lookup()
	if err != nil {
		return fmt.Errorf("%s queue %d: %w", q.dev.name, q.number, err)
	}
	q.dev.index = index
	s, err := q.makeSocket()
	if err != nil {
		return fmt.Errorf("%s queue %d: %w", q.dev.name, q.number, err)
	}
	q.adopt(s)
	return nil
}

// makeSocket joins the worker's memory if a socket of it is bound, else registers it.
func (q *Queue) makeSocket() (*socket, error) {
	u := q.umem
	if owner := u.bound(); owner >= 0 {
		s, err := q.ownSocket(owner, 0)
		if err == nil && q.options.Mode == ModeZerocopy && !s.zerocopy {
			q.discard(s)
			return nil, errors.New("bind: zerocopy is asked for, but the worker's other ports are in copy mode and all share one mode")
		}
		return s, err
	}
	if !u.copies && q.options.Attached == ModeNative && (q.options.Mode == ModeZerocopy || q.options.Mode == ModeAuto) {
		// Not through asavie/xdp: some drivers take a zero-copy socket badly whose fill ring is empty when it is bound.
		s, err := q.ownSocket(-1, unix.XDP_ZEROCOPY|unix.XDP_USE_NEED_WAKEUP)
		if err == nil || q.options.Mode == ModeZerocopy || !unsupported(err) {
			return s, err
		}
	}
	if u.fresh && u.options.suitAsavie() && canRemap() {
		s, err := q.asavieSocket(unix.XDP_COPY | unix.XDP_USE_NEED_WAKEUP)
		if err == nil || !errors.Is(err, errRemap) {
			return s, err
		}
	}
	return q.ownSocket(-1, unix.XDP_COPY|unix.XDP_USE_NEED_WAKEUP)
}

// ownSocket makes a socket by system calls of ours. owner is a bound socket whose memory is joined, or -1 to register it with the bind
// flags given; who joins inherits the flags and may give none (EINVAL). The fill ring is full before the socket is bound.
func (q *Queue) ownSocket(owner int, flags uint16) (_ *socket, err error) {
	setupMu.Lock()
	defer setupMu.Unlock()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket AF_XDP: %w (needs CAP_NET_RAW and a kernel with XDP_SOCKETS)", err)
	}
	s := &socket{fd: fd, setup: setupOwn}
	defer func() {
		if err != nil {
			q.discard(s)
		}
	}()
	if owner < 0 {
		if err := registerMemory(fd, q.umem.mem, q.umem.options.ChunkSize, q.umem.options.Headroom); err != nil {
			return nil, fmt.Errorf("XDP_UMEM_REG of %d bytes: %w (ulimit -l, or CAP_IPC_LOCK)", len(q.umem.mem), err)
		}
	}
	n := q.options.RingSize
	for _, o := range [...]struct {
		name int
		text string
	}{
		{unix.XDP_UMEM_FILL_RING, "XDP_UMEM_FILL_RING"},
		{unix.XDP_UMEM_COMPLETION_RING, "XDP_UMEM_COMPLETION_RING"},
		{unix.XDP_RX_RING, "XDP_RX_RING"},
		{unix.XDP_TX_RING, "XDP_TX_RING"},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, o.name, n); err != nil {
			return nil, fmt.Errorf("%s of %d: %w", o.text, n, err)
		}
	}
	if err := s.mapRings(n); err != nil {
		return nil, err
	}
	q.refill(s)
	sa := unix.SockaddrXDP{Flags: flags, Ifindex: uint32(q.dev.index), QueueID: uint32(q.number)}
	if owner >= 0 {
		s.setup = setupJoined
		sa.Flags, sa.SharedUmemFD = unix.XDP_SHARED_UMEM, uint32(owner)
	}
	if err := unix.Bind(fd, &sa); err != nil {
		return nil, bindError(err)
	}
	q.umem.fresh = false // the kernel uses these pages now
	s.tune(n)
	return s, nil
}

func bindError(err error) error {
	switch err {
	case unix.EBUSY:
		return fmt.Errorf("bind: %w (another program on this queue?)", err)
	case unix.EINVAL:
		return fmt.Errorf("bind: %w (no such queue? see ethtool -l)", err)
	}
	return fmt.Errorf("bind: %w", err)
}

// mapRings maps the rings, each of n entries.
func (s *socket) mapRings(n int) error {
	off := &s.offsets
	if err := mmapOffsets(s.fd, off); err != nil {
		return fmt.Errorf("XDP_MMAP_OFFSETS: %w", err)
	}
	for i, r := range [...]struct {
		offset int64
		length int
		text   string
	}{
		{unix.XDP_UMEM_PGOFF_FILL_RING, ringLength(off.Fr, n, addrSize), "fill"},
		{unix.XDP_UMEM_PGOFF_COMPLETION_RING, ringLength(off.Cr, n, addrSize), "completion"},
		{unix.XDP_PGOFF_RX_RING, ringLength(off.Rx, n, descSize), "rx"},
		{unix.XDP_PGOFF_TX_RING, ringLength(off.Tx, n, descSize), "tx"},
	} {
		m, err := unix.Mmap(s.fd, r.offset, r.length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Errorf("mmap of the %s ring: %w", r.text, err)
		}
		s.maps[i] = m
	}
	s.rewind(n)
	return nil
}

// rewind begins with the rings where their indices are.
func (s *socket) rewind(n int) {
	off := &s.offsets
	s.fill.producer, s.fill.addr = newProducer(sharedWords(s.maps[0], off.Fr), n), addrs(s.maps[0], off.Fr, n)
	s.completion.consumer, s.completion.addr = newConsumer(sharedWords(s.maps[1], off.Cr), n), addrs(s.maps[1], off.Cr, n)
	s.rx.consumer, s.rx.desc = newConsumer(sharedWords(s.maps[2], off.Rx), n), descs(s.maps[2], off.Rx, n)
	s.tx.producer, s.tx.desc = newProducer(sharedWords(s.maps[3], off.Tx), n), descs(s.maps[3], off.Tx, n)
}

// tune asks for what only newer kernels or more rights give; without it the socket works, with more system calls.
func (s *socket) tune(ring int) {
	_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, min(ring, sendBudget)) // ENOPROTOOPT before Linux 6.17
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // as much as wmem_max allows
	}
	if o, err := unix.GetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_OPTIONS); err == nil {
		s.zerocopy = o&unix.XDP_OPTIONS_ZEROCOPY != 0
	}
}

// close closes the descriptor and unmaps the rings, which would keep the socket and its queue otherwise.
func (s *socket) close() {
	if s.fd < 0 {
		return
	}
	s.unmap()
	unix.Close(s.fd)
	s.fd = -1
}

func (s *socket) unmap() {
	for i, m := range s.maps {
		if m != nil {
			unix.Munmap(m)
		}
		s.maps[i] = nil
	}
}
