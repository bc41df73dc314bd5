package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// source sends by an XDP program that the kernel runs again and again on pages of its own (BPF_PROG_TEST_RUN with live frames, Linux
// 5.18): each run is a frame that leaves by the device as if it had been received there and bounced. No socket buffer is made on the way.
//
//	run(repeat n) -> program writes the frame, XDP_TX -> device's ndo_xdp_xmit -> veth: the peer's ring
//
// A page comes back as the receiver left it, so the program writes all of the headers and the stamp each time. What a veth's peer has no room for
// is lost like in a receive ring, and counts as sent.
type source struct {
	name    string
	index   int
	ns      int // network namespace that the device is in
	program *ebpf.Program
	state   *ebpf.Map
	size    int // of the longest frame
	average float64
	pace    pacer

	sending, stopped, settled atomic.Bool // settled: sending has ended, and all that was sent is in sent

	clock clock
	sent  atomic.Uint64
}

// sourceState is what the program and we share: the one value of a map.
type sourceState struct {
	Number   uint64 // of the next frame
	Schedule [maxSchedule]uint16
}

const (
	liveFrames = 2 // BPF_F_TEST_XDP_LIVE_FRAMES

	// A run has a cost of its own, of some ten microseconds: page pool, queue, program. It is also deaf to us.
	sourceTick  = 2 * time.Millisecond
	sourceChunk = 1 << 14 // frames of a run at most
)

func openSource(name string, t *Traffic) (*source, error) {
	dev, err := device(name)
	if err != nil {
		return nil, err
	}
	if err := fits(dev, t); err != nil {
		return nil, err
	}
	if t.Kind != UDP {
		return nil, fmt.Errorf("driver xdp sends udp only, not %s", t.Kind)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	s := &source{name: name, index: dev.Index, ns: -1, size: t.Mix.largest(), average: t.Mix.Average()}
	if s.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	if s.state, err = ebpf.NewMap(sourceMap()); err != nil {
		s.close()
		return nil, fmt.Errorf("%s: map: %w", name, err)
	}
	if err := s.state.Put(uint32(0), sourceStart(t, 0)); err != nil {
		s.close()
		return nil, fmt.Errorf("%s: map: %w", name, err)
	}
	if s.program, err = sourceProgram(t, s.state.FD(), len(t.Mix.schedule())); err != nil {
		s.close()
		return nil, fmt.Errorf("%s: XDP program that sends: %w", name, err)
	}
	return s, nil
}

func sourceMap() *ebpf.MapSpec {
	return &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(binary.Size(sourceState{})), MaxEntries: 1}
}

// sourceStart is the state from which the program goes on with the frame of that number.
func sourceStart(t *Traffic, number uint64) *sourceState {
	state := &sourceState{Number: number}
	for i, size := range t.Mix.schedule() {
		state.Schedule[i] = uint16(t.Mix[size].Bytes - fcs)
	}
	return state
}

// run sends until it is stopped. The kernel looks for the device in the thread's namespace, so the thread moves there, and ends with it.
func (s *source) run() (err error) {
	runtime.LockOSThread()
	if err := unix.Setns(s.ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%s: setns: %w", s.name, err)
	}
	ctx := xdpContext{DataEnd: uint32(s.size), Ingress: uint32(s.index)}
	data := make([]byte, s.size)
	began := false
	for !s.stopped.Load() {
		if !s.sending.Load() {
			s.settled.Store(began)
			time.Sleep(100 * time.Microsecond)
			continue
		}
		now := s.clock.now()
		if !began {
			began, s.pace.start = true, now
		}
		n := min(s.pace.due(now), sourceChunk)
		if n == 0 || s.pace.rate > 0 && n < sourceChunk && float64(n) < s.pace.rate*sourceTick.Seconds() && s.pace.sent+n < s.pace.limit {
			time.Sleep(sourceTick / 4)
			continue
		}
		_, err := s.program.Run(&ebpf.RunOptions{Data: data, Context: ctx, Repeat: uint32(n), Flags: liveFrames})
		if err != nil {
			if errors.Is(err, unix.EINVAL) {
				err = fmt.Errorf("%w (needs Linux 5.18, and an XDP program on the device or GRO on, for it to have receive queues)", err)
			}
			return fmt.Errorf("%s: run XDP program with live frames: %w", s.name, err)
		}
		var state sourceState
		if err := s.state.Lookup(uint32(0), &state); err != nil {
			return fmt.Errorf("%s: map: %w", s.name, err)
		}
		s.pace.sent = state.Number // an interrupted run is begun again, so that it may be more than n
		s.sent.Store(state.Number)
	}
	return nil
}

// xdpContext is struct xdp_md as BPF_PROG_TEST_RUN takes it.
type xdpContext struct{ Data, DataEnd, Meta, Ingress, Queue, Egress uint32 }

func (s *source) close() error {
	if s.ns >= 0 {
		unix.Close(s.ns)
	}
	return errors.Join(closeAll(s.program, s.state)...)
}

func closeAll(p *ebpf.Program, maps ...*ebpf.Map) (errs []error) {
	errs = append(errs, p.Close()) // nil is fine
	for _, m := range maps {
		errs = append(errs, m.Close())
	}
	return errs
}
