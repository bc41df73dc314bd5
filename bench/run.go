package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// Progress is what a run has done so far, and in the second before.
type Progress struct {
	Elapsed               time.Duration
	Sent, Received        uint64
	SentRate, ReceiveRate float64 // frames a second
	Established           uint64  // TCP connections
}

// run is the endpoints of one measurement.
type run struct {
	o     Options
	clock clock

	sender    *station // nil: none, or source sends
	receiver  *station // nil: none, or sink receives; may be the sender
	source    *source
	sink      *sink
	cable     *cable
	stop      atomic.Bool
	ended     []chan error
	closers   []func() error
	began     time.Time
	sentUntil time.Duration
}

// Run sends, receives and reports. It returns early, without an error, when ctx ends. It must be called in the network namespace of the
// ports, which its threads need not be in.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &run{o: o, clock: newClock()}
	runtime.LockOSThread() // opening must stay in one namespace
	err := r.open()
	runtime.UnlockOSThread()
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	report, err := r.measure(ctx)
	return report, errors.Join(err, r.close())
}

func (r *run) open() (err error) {
	o := &r.o
	if o.Driver == Mem {
		if r.sender, r.receiver, r.cable, err = openMem(o.Burst); err != nil {
			return err
		}
		r.closers = append(r.closers, r.sender.close, r.receiver.close)
	} else {
		if o.Rx != "" && (o.Rx != o.Tx || o.RxDriver != o.Driver || o.Driver == XDP) { // before the sender, so that no frame arrives too early
			if err := r.openReceiver(); err != nil {
				return err
			}
		}
		if o.Tx != "" {
			if err := r.openSender(); err != nil {
				return err
			}
		}
		if o.Rx == o.Tx && r.receiver == nil && r.sink == nil {
			r.receiver = r.sender
		}
	}
	if s := r.sender; s != nil {
		t := o.Traffic
		if t.SrcMAC == [6]byte{} {
			t.SrcMAC = s.mac
		}
		if t.DstMAC == [6]byte{} {
			if r.cable == nil {
				return errors.New("the destination's MAC address is needed")
			}
			t.DstMAC = r.receiver.mac
		}
		for i := range s.queues {
			c := newCrafter(t, uint8(i))
			c.lane, c.lanes = uint64(i), uint64(len(s.queues))
			s.lanes = append(s.lanes, c)
		}
		s.pace = pacer{rate: o.Rate, limit: o.Count}
		s.role.opener = t.Kind == Connect
		s.role.own = append(s.role.own, t.Src)
	}
	if s := r.receiver; s != nil {
		s.role.echo, s.role.respond = o.Echo, o.Respond
		s.role.own = append(s.role.own, o.Own...)
		if o.Traffic.Dst.First.IsValid() {
			s.role.own = append(s.role.own, o.Traffic.Dst)
		}
	}
	return nil
}

func (r *run) openReceiver() (err error) {
	o := &r.o
	if o.RxDriver == XDP {
		if r.sink, err = openSink(o.Rx, o.Mode); err == nil {
			r.closers = append(r.closers, r.sink.close)
		}
		return err
	}
	if r.receiver, err = openStation(o.Rx, o.RxDriver, o.Mode, o.Queues, o.Burst); err == nil {
		r.closers = append(r.closers, r.receiver.close)
	}
	return err
}

func (r *run) openSender() (err error) {
	o := &r.o
	if o.Driver == XDP {
		dev, err := device(o.Tx)
		if err != nil {
			return err
		}
		t := o.Traffic
		if t.SrcMAC == [6]byte{} && len(dev.HardwareAddr) == 6 {
			t.SrcMAC = [6]byte(dev.HardwareAddr)
		}
		if t.DstMAC == [6]byte{} {
			return errors.New("the destination's MAC address is needed")
		}
		if o.Rx != o.Tx {
			// veth has receive queues, which a live frame must come from, only behind a program.
			idle, err := openSink(o.Tx, o.Mode)
			if err != nil {
				return err
			}
			r.closers = append(r.closers, idle.close)
		}
		if r.source, err = openSource(o.Tx, &t); err != nil {
			return err
		}
		r.closers = append(r.closers, r.source.close)
		r.source.pace(o.Rate, o.Count, o.Duration)
		if len(o.CPUs) > 0 {
			r.source.cpu = o.CPUs[len(o.CPUs)-1]
		}
		return nil
	}
	dev, err := device(o.Tx)
	if err != nil {
		return err
	}
	if err := fits(dev, &o.Traffic); err != nil {
		return err
	}
	if r.sender, err = openStation(o.Tx, o.Driver, o.Mode, o.Queues, o.Burst); err == nil {
		r.closers = append(r.closers, r.sender.close)
	}
	return err
}

func (r *run) close() (err error) {
	for i := len(r.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, r.closers[i]())
	}
	return err
}

// start runs f on a goroutine of its own; end hears how it went.
func (r *run) start(f func() error) {
	c := make(chan error, 1)
	r.ended = append(r.ended, c)
	go func() { c <- f() }()
}

// measure starts the threads, lets them send for as long as is asked, waits for the last frames and stops them.
func (r *run) measure(ctx context.Context) (*Report, error) {
	var threads [2][]*station
	if r.receiver != nil {
		threads[0] = append(threads[0], r.receiver)
	}
	if r.sender != nil && r.sender != r.receiver {
		threads[r.o.Threads-1] = append(threads[r.o.Threads-1], r.sender)
	}
	for i, stations := range threads {
		if len(stations) > 0 {
			cpu := -1
			if n := len(r.o.CPUs); n > 0 {
				cpu = r.o.CPUs[i%n]
			}
			d := thread{stations: stations, clock: r.clock, cpu: cpu, stop: &r.stop}
			if i == 0 {
				d.cable = r.cable
			}
			r.start(d.run)
		}
	}
	if r.source != nil {
		r.start(r.source.run)
	}
	r.send(true)
	if r.source != nil {
		r.source.begun()
	}
	r.began = time.Now()
	err := r.watch(ctx)
	r.sentUntil = time.Since(r.began)
	r.send(false)
	if err == nil && r.o.Tx != "" && r.o.Rx != "" {
		r.drain()
	}
	if e := r.end(); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	return r.report()
}

func (r *run) send(on bool) {
	if r.sender != nil {
		r.sender.sending.Store(on)
	}
	if r.source != nil {
		if on {
			r.source.sending.Store(true)
		} else {
			r.source.halt()
		}
	}
}

// watch waits for the end of the time or of the frames, or for ctx, and tells of progress.
func (r *run) watch(ctx context.Context) error {
	over := make(<-chan time.Time)
	if r.o.Duration > 0 {
		timer := time.NewTimer(r.o.Duration)
		defer timer.Stop()
		over = timer.C
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	limited := r.o.Tx != "" && r.o.Count != math.MaxUint64
	told, at := r.progress(), r.began
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			return nil
		case now := <-look.C:
			for _, c := range r.ended {
				select {
				case err := <-c:
					c <- err // for end
					if err == nil {
						err = errors.New("a thread ended before its time")
					}
					return err
				default:
				}
			}
			passed := now.Sub(at)
			tell := r.o.Progress != nil && passed >= time.Second
			if !limited && !tell {
				continue // reading the counts costs a tenth of a millisecond of some CPU, which may be that of what is measured
			}
			p := r.progress()
			if limited && p.Sent >= r.o.Count {
				return nil
			}
			if tell {
				p.SentRate = float64(p.Sent-told.Sent) / passed.Seconds()
				p.ReceiveRate = float64(p.Received-told.Received) / passed.Seconds()
				r.o.Progress(p)
				told, at = p, now
			}
		}
	}
}

func (r *run) progress() Progress {
	p := Progress{Elapsed: time.Since(r.began)}
	if s := r.sender; s != nil {
		p.Sent, p.Established = s.shown.sent.Load(), s.shown.established.Load()
	}
	if r.source != nil {
		p.Sent = r.source.sent()
	}
	if s := r.counted(); s != nil {
		p.Received = s.shown.received.Load()
	}
	if r.sink != nil {
		p.Received, _, _ = r.sink.read(nil)
	}
	return p
}

// counted is the station where a frame's way ends.
func (r *run) counted() *station {
	if r.o.Echo && r.sender != nil {
		return r.sender
	}
	return r.receiver
}

// drain waits until all has arrived, or nothing has for a fifth of the time it may take.
func (r *run) drain() {
	end := time.Now().Add(r.o.Drain)
	settled := func() bool {
		return (r.sender == nil || r.sender.settled.Load()) && (r.source == nil || r.source.settled.Load())
	}
	for !settled() && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	last, at := r.progress(), time.Now()
	for now := at; now.Before(end) && now.Sub(at) < r.o.Drain/5; now = time.Now() {
		time.Sleep(time.Millisecond)
		p := r.progress()
		if p.Received != last.Received || p.Sent != last.Sent {
			last, at = p, now
		}
		if r.o.Traffic.Kind == Connect {
			p.Received = r.sender.shown.closed.Load()
		}
		if p.Received >= p.Sent {
			return
		}
	}
}

// end stops the threads.
func (r *run) end() (err error) {
	r.stop.Store(true)
	if r.source != nil {
		r.source.stopped.Store(true)
		r.source.halt()
	}
	for _, c := range r.ended {
		err = errors.Join(err, <-c)
	}
	if err != nil {
		return fmt.Errorf("pktgen: %w", err)
	}
	return nil
}
