package bench

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"weir/dataplane/driver"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/driver/wait"
	"weir/dataplane/packet"
)

// Forwarder moves frames between two devices over our AF_XDP driver, in one memory, and writes MAC addresses, nothing else: the floor that
// a balancer is compared with. It waits as a worker does (adaptive).
type Forwarder struct {
	pool    *packet.Pool
	queues  [2]driver.Queue
	macs    [2]struct{ src, dst [6]byte } // of frames that leave by each device
	closers []func() error
	d       [packet.VectorSize]packet.Desc
}

// NewForwarder opens queue 0 of both devices. next are the stations behind each, to which what leaves by it goes.
func NewForwarder(devices [2]string, next [2][6]byte) (f *Forwarder, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	f = &Forwarder{}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	u, err := afxdp.NewUmem(afxdp.UmemOptions{HugePages: true})
	if err != nil {
		return nil, err
	}
	f.pool = u.Pool()
	f.closers = append(f.closers, u.Close)
	for i, name := range devices {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(dev.HardwareAddr) != 6 {
			return nil, fmt.Errorf("%s: is no Ethernet device", name)
		}
		f.macs[i].src, f.macs[i].dst = [6]byte(dev.HardwareAddr), next[i]
		t, err := takeAll(name, dev.Index, afxdp.ModeNative, 1)
		if err != nil {
			return nil, err
		}
		f.closers = append(f.closers, t.close)
		q, err := afxdp.Open(u, name, 0, afxdp.Options{Attached: t.mode})
		if err != nil {
			return nil, err
		}
		f.closers = append(f.closers, q.Close)
		f.queues[i] = q
		if err := t.register(0, q.SocketFD()); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// round moves what there is, and reports whether there was something.
func (f *Forwarder) round() (moved, pending bool) {
	for i, in := range f.queues {
		n := in.Receive(f.d[:])
		if n == 0 {
			continue
		}
		moved = true
		out, macs := f.queues[1-i], &f.macs[1-i]
		for _, d := range f.d[:n] {
			if b := f.pool.Bytes(d); len(b) >= 14 {
				copy(b, macs.dst[:])
				copy(b[6:], macs.src[:])
			}
		}
		sent := out.Send(f.d[:n])
		for _, d := range f.d[sent:n] {
			f.pool.Put(d.Addr)
		}
	}
	for _, q := range f.queues {
		pending = q.Flush() || pending
	}
	return moved, pending
}

// Run forwards on the calling goroutine's thread, on a CPU (-1: any), until stop is set.
func (f *Forwarder) Run(cpu int, stop *atomic.Bool) error {
	runtime.LockOSThread() // never unlocked: the thread ends with its affinity
	if cpu >= 0 {
		if err := pin(cpu); err != nil {
			return err
		}
	}
	w, err := wait.New(wait.Adaptive)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.SetFDs([]int{f.queues[0].FD(), f.queues[1].FD()}); err != nil {
		return err
	}
	for !stop.Load() {
		if moved, _ := f.round(); moved {
			w.Worked()
			continue
		}
		if !w.Arm() {
			continue
		}
		if moved, pending := f.round(); moved {
			w.Worked()
		} else if pending {
			w.Sleep(time.Millisecond)
		} else {
			w.Sleep(100 * time.Millisecond)
		}
		w.Disarm()
	}
	return nil
}

// Close releases the devices.
func (f *Forwarder) Close() (err error) {
	for i := len(f.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, f.closers[i]())
	}
	f.closers = nil
	return err
}
