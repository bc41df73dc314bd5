package afxdp

import (
	"golang.org/x/sys/unix"

	"weir/dataplane/driver"
)

// KernelStats is what the kernel counted for all sockets that a queue has had (XDP_STATISTICS), in frames and descriptors.
type KernelStats struct {
	Dropped       uint64 // for any reason but a full rx ring: no chunk to put it in, or longer than a chunk's room
	RxRingFull    uint64
	FillRingEmpty uint64 // in zero copy these are attempts of the driver, not frames
	RxInvalid     uint64 // fill entries refused
	TxInvalid     uint64 // tx entries refused
	TxRingEmpty   uint64 // calls to send that found nothing
}

// add adds what the kernel counted for the socket fd.
func (k *KernelStats) add(fd int) {
	var st unix.XDPStatistics
	if fd < 0 || kernelStatistics(fd, &st) != nil {
		return
	}
	k.Dropped += st.Rx_dropped
	k.RxRingFull += st.Rx_ring_full
	k.FillRingEmpty += st.Rx_fill_ring_empty_descs
	k.RxInvalid += st.Rx_invalid_descs
	k.TxInvalid += st.Tx_invalid_descs
	k.TxRingEmpty += st.Tx_ring_empty_descs
}

// minus is k without what o has. It may be less than nothing: counters wrap.
func (k KernelStats) minus(o *KernelStats) KernelStats {
	return KernelStats{k.Dropped - o.Dropped, k.RxRingFull - o.RxRingFull, k.FillRingEmpty - o.FillRingEmpty, k.RxInvalid - o.RxInvalid, k.TxInvalid - o.TxInvalid, k.TxRingEmpty - o.TxRingEmpty}
}

// KernelStats may be called from any goroutine.
func (q *Queue) KernelStats() KernelStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.past
	k.add(q.fd)
	return k
}

// Stats implements [driver.Queue]. A frame counts as sent from Send on; if the device refuses it later it moves to SendLost.
func (q *Queue) Stats() driver.Stats {
	k := q.KernelStats()
	lost := q.lost.Load() // before taken, so that the difference is not negative
	other := k.Dropped
	if !q.isZero.Load() { // in copy mode a frame without a chunk is counted in both
		other -= min(other, k.FillRingEmpty)
	}
	return driver.Stats{
		Received:          q.received.Load(),
		Sent:              q.taken.Load() - lost,
		SendLost:          lost,
		RxRingFull:        k.RxRingFull,
		FillRingEmpty:     k.FillRingEmpty,
		RxDropped:         other,
		InvalidDescriptor: k.RxInvalid + k.TxInvalid + q.refused.Load(),
		Wakeups:           q.wakeups.Load(),
		Live:              q.lively.Load(),
		Up:                q.isUp.Load(),
		Mode:              q.Mode(),
	}
}

// Mode is what the queue got, zerocopy, native or generic. It may be called from any goroutine.
func (q *Queue) Mode() string {
	switch {
	case q.isZero.Load():
		return ModeZerocopy
	case q.attached.Load():
		return ModeGeneric
	}
	return ModeNative
}

// SetAttached notes in which mode the XDP program is attached now, native or generic. It may be called from any goroutine.
func (q *Queue) SetAttached(mode string) { q.attached.Store(mode == ModeGeneric) }

// SocketFD is the descriptor to enter into the XSKMAP, or -1 while there is no socket. It may be called from any goroutine; by the time
// the map is updated the descriptor can be of the past, then the update fails or is made good by the next generation's.
func (q *Queue) SocketFD() int { return int(int32(q.bound.Load())) }

// SocketOn is SocketFD if the socket is bound to the device of that index, else -1: where a device has just been made anew under its name, the
// kernel takes the socket of the former one for its place, and gives it nothing.
func (q *Queue) SocketOn(ifindex int) int {
	if s := q.bound.Load(); int(s>>32) == ifindex {
		return int(int32(s))
	}
	return -1
}

// bind says which socket there is, for SocketFD and SocketOn.
func (q *Queue) bind(fd, ifindex int) { q.bound.Store(int64(ifindex)<<32 | int64(uint32(fd))) }

// Generation changes whenever SocketFD changes. The XSKMAP entry of a socket vanishes with it, and so does a program with its device, so
// control must attach and register again. It may be called from any goroutine.
func (q *Queue) Generation() uint32 { return q.epoch.Load() }

// Err says why a device that is there again has no socket yet: an MTU that is too large, a queue in use. It is nil when there is one, and while there is
// no device. It may be called from any goroutine.
func (q *Queue) Err() error {
	if err := q.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Setup says how the socket was made: "asavie/xdp", "weir" for our own set-up, or "joined" when it shares another's memory. Called by the worker, or
// before it runs.
func (q *Queue) Setup() string { return q.setup }
