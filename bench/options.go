package bench

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"weir/dataplane/driver/afxdp"
	"weir/dataplane/packet"
)

// Options of a run. Zero values stand for the defaults named.
type Options struct {
	Driver   string // of the sending port and, unless RxDriver says otherwise, of the receiving one: af_xdp
	RxDriver string
	Mode     string // AF_XDP: auto, zerocopy, native or generic; how an XDP program is attached: auto
	Tx, Rx   string // interfaces; one that is empty is left out, both the same is one port
	Queues   int    // of each port, from the first on, af_xdp only; 0: all that it has. Frames on others go to the kernel
	CPUs     []int  // that the threads run on; empty: anywhere
	Threads  int    // 1 or 2; default 2 where there are four CPUs or more

	Traffic  Traffic
	Rate     float64       // frames a second; 0: as many as go
	Count    uint64        // frames to send; 0: until Duration is over
	Duration time.Duration // 10 s; without a sending port, 0: until the context ends
	Drain    time.Duration // how long the last frames may take, 500 ms
	Burst    int           // frames sent together at most, 64

	Echo    bool    // the receiving port sends frames back; then what is measured is the way there and back
	Respond bool    // the receiving port accepts TCP connections
	Own     []Range // addresses that the receiving port answers ARP and ND for, besides Traffic.Dst

	Progress func(Progress) // called once a second
}

func (o *Options) complete() error {
	if o.Driver == "" {
		o.Driver = AFXDP
	}
	if o.RxDriver == "" {
		o.RxDriver = o.Driver
	}
	for _, d := range []string{o.Driver, o.RxDriver} {
		switch d {
		case AFXDP, AFPacket, Mem, XDP:
		default:
			return fmt.Errorf("driver %q: must be af_xdp, af_packet, mem or xdp", d)
		}
	}
	if (o.Driver == Mem) != (o.RxDriver == Mem) {
		return errors.New("driver mem: a cable in memory has two ends")
	}
	if o.Driver == Mem {
		o.Tx, o.Rx = "mem0", "mem1"
	}
	if o.Tx == "" && o.Rx == "" {
		return errors.New("a port is needed to send, to receive, or both")
	}
	switch o.Mode {
	case "":
		o.Mode = afxdp.ModeAuto
	case afxdp.ModeAuto, afxdp.ModeZerocopy, afxdp.ModeNative, afxdp.ModeGeneric:
	default:
		return fmt.Errorf("xdp mode %q: must be auto, zerocopy, native or generic", o.Mode)
	}
	if o.Queues < 0 || o.Queues > 64 {
		return fmt.Errorf("%d queues: must be 0 (all) to 64", o.Queues)
	}
	if o.Burst == 0 {
		o.Burst = 64
	}
	if o.Burst < 1 || o.Burst > packet.VectorSize {
		return fmt.Errorf("burst of %d frames: must be 1 to %d", o.Burst, packet.VectorSize)
	}
	if o.Threads == 0 {
		o.Threads = 1
		if runtime.NumCPU() >= 4 {
			o.Threads = 2
		}
	}
	if o.Threads < 1 || o.Threads > 2 {
		return fmt.Errorf("%d threads: must be 1 or 2", o.Threads)
	}
	if o.Rate < 0 || math.IsNaN(o.Rate) || math.IsInf(o.Rate, 0) {
		return fmt.Errorf("rate of %v frames a second: must be 0 (as many as go) or more", o.Rate)
	}
	if o.Drain == 0 {
		o.Drain = 500 * time.Millisecond
	}
	if o.RxDriver == XDP && (o.Echo || o.Respond || o.Rx != "" && o.Traffic.Kind == SYN || o.Traffic.Kind == Connect) {
		return errors.New("driver xdp only counts stamped frames: --rx-driver af_xdp answers and sees TCP")
	}
	if o.Tx == "" {
		return nil
	}
	if o.Duration == 0 {
		o.Duration = 10 * time.Second
	}
	if o.Duration < 0 {
		return fmt.Errorf("duration %s: must be positive", o.Duration)
	}
	if o.Count == 0 {
		o.Count = math.MaxUint64
	}
	return o.Traffic.complete()
}

// Check says what is wrong with o, without opening anything.
func (o Options) Check() error { return o.complete() }
