package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
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
//	run -> is a frame due? no: XDP_DROP, the page is the next run's
//	            yes: write it, XDP_TX -> 16 at a time to the device -> veth: the peer's ring
//
// One system call lasts as long as the traffic, for entering and leaving it costs up to 30 ms, of waiting for RCU; so it is the program that
// keeps the pace, by spinning, from its first run on, and a signal that ends the call.
//
// A page comes back as the receiver left it, so the program writes all of the headers and the stamp each time. What a veth's peer has no room for
// is lost like in a receive ring, and counts as sent.
type source struct {
	name    string
	index   int
	ns      int // network namespace that the device is in
	cpu     int // to run on; -1: any
	program *ebpf.Program
	state   *ebpf.Map
	start   sourceState
	size    int // of the longest frame
	average float64

	sending, stopped, settled atomic.Bool // settled: sending has ended
	thread                    atomic.Int32
}

// sourceState is what the program and we share: the one value of a map. It is written before the first run.
type sourceState struct {
	Number   uint64 // of the next frame; the program's
	Limit    uint64 // frames in all
	Start    uint64 // when the first frame is due, ns; 0: at the first run
	Gap      uint64 // between two frames, in 1/65536 ns; 0: none
	Until    uint64 // no frame is sent from then on, ns; as long as Start is 0, from Start
	Schedule [maxSchedule]uint16
}

// gapShift is how many bits of a gap are fractions: 2^48 frames at 10 Mpps do not overflow their product.
const gapShift = 16

func openSource(name string, t *Traffic) (*source, error) {
	dev, err := device(name)
	if err != nil {
		return nil, err
	}
	if err := fits(dev, t); err != nil {
		return nil, err
	}
	if t.Kind == Connect {
		return nil, errors.New("driver xdp sends udp and syn: connections need an answer to each step")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	s := &source{name: name, index: dev.Index, ns: -1, cpu: -1, size: t.Mix.largest(), average: t.Mix.Average(), start: sourceStart(t, 0)}
	if s.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	if s.state, err = ebpf.NewMap(sourceMap()); err != nil {
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

// sourceStart is the state from which the program goes on with the frame of that number, without end.
func sourceStart(t *Traffic, number uint64) sourceState {
	state := sourceState{Number: number, Limit: math.MaxInt64, Until: math.MaxInt64}
	for i, size := range t.Mix.schedule() {
		state.Schedule[i] = uint16(t.Mix[size].Bytes - fcs)
	}
	return state
}

// pace sets how many frames are sent how fast for how long, before run.
func (s *source) pace(rate float64, limit uint64, duration time.Duration) {
	s.start.Limit = min(limit, math.MaxInt64)
	if rate > 0 {
		s.start.Gap = uint64(1e9 / rate * (1 << gapShift))
	}
	s.start.Until = uint64(duration)
}

// run sends until it is stopped. The kernel looks for the device in the thread's namespace, so the thread moves there, and ends with it.
func (s *source) run() error {
	defer s.settled.Store(true)
	runtime.LockOSThread()
	if err := unix.Setns(s.ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%s: setns: %w", s.name, err)
	}
	if s.cpu >= 0 {
		if err := pin(s.cpu); err != nil {
			return err
		}
	}
	for !s.sending.Load() {
		if s.stopped.Load() {
			return nil
		}
		time.Sleep(100 * time.Microsecond)
	}
	if err := s.state.Put(uint32(0), &s.start); err != nil {
		return fmt.Errorf("%s: map: %w", s.name, err)
	}
	s.thread.Store(int32(unix.Gettid()))
	for s.sending.Load() && !s.stopped.Load() {
		err := runLive(s.program.FD(), s.size, s.index)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w (needs Linux 5.18, and an XDP program on the device or GRO on, for it to have receive queues)", err)
		}
		if err != nil {
			return fmt.Errorf("%s: run XDP program with live frames: %w", s.name, err)
		}
	}
	return nil
}

// halt ends the system call that sends. A signal that comes just before the call is without effect, so it is sent until it is not needed any more.
func (s *source) halt() {
	s.sending.Store(false)
	for !s.settled.Load() && s.thread.Load() != 0 {
		_ = unix.Tgkill(os.Getpid(), int(s.thread.Load()), unix.SIGURG) // one that Go itself makes use of, and ignores from others
		time.Sleep(time.Millisecond)
	}
}

// begun waits until the first frame is due, or it is clear that none will be.
func (s *source) begun() {
	for s.look().Start == 0 && !s.settled.Load() {
		time.Sleep(100 * time.Microsecond)
	}
}

// sent is the number of frames sent so far.
func (s *source) sent() uint64 { return s.look().Number }

func (s *source) look() (state sourceState) {
	_ = s.state.Lookup(uint32(0), &state) // the map is ours and has this entry
	return state
}

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
