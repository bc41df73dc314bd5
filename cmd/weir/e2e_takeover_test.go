package main_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control"
)

// takeover starts another weir that takes over from d with a configuration, and wants d to end well.
func (b *bed) takeover(d *daemon, config string, args ...string) *daemon {
	b.t.Helper()
	next := launch(b.t, b.lb, b.dir, config, append(args, "--takeover")...)
	next.ready()
	if code := d.wait(10 * time.Second); code != 0 {
		b.t.Fatalf("the weir that was taken over from ended with %d", code)
	}
	return next
}

// TestConnectionsOutliveTakeovers upgrades weir again and again. Beyond what a kill may cost nobody, no frame is lost from the memory that
// goes from one to the next.
func TestConnectionsOutliveTakeovers(t *testing.T) {
	var dark []time.Duration
	outlive(t, few("WEIR_TAKEOVERS"), "takeover", func(f *forwardBed, d *daemon) *daemon {
		pid := d.pid()
		d = f.takeover(d, restartConfig(f))
		s := view[control.Status](d, "status")
		if s.Takeover == nil || s.Takeover.PID != pid {
			t.Fatalf("taken over from %+v, want pid %d", s.Takeover, pid)
		}
		dark = append(dark, time.Duration(s.Takeover.DarkUS*1e3))
		whole(t, d)
		return d
	})
	slices.Sort(dark)
	t.Logf("no worker at work: median %v, worst %v", dark[len(dark)/2], dark[len(dark)-1])
}

// whole wants every chunk of frame memory to be in one place.
func whole(t *testing.T, d *daemon) {
	t.Helper()
	var frames []control.FramesView
	must(t, control.NewClient(d.socket).Get("/frames", &frames))
	if len(frames) == 0 {
		t.Fatal("no worker tells where its frames are")
	}
	for _, w := range frames {
		if w.Missing != 0 {
			t.Fatalf("worker %d misses %d of %d frames: %+v", w.Worker, w.Missing, w.Chunks, w)
		}
	}
}

// TestTakeoversWithPortsInAnotherOrder: a successor whose file names its ports in another order goes on, and so does the successor of that one, which is offered
// its sockets by the numbers that frame memory knows them by, whatever the order of its former's ports.
func TestTakeoversWithPortsInAnotherOrder(t *testing.T) {
	needsPins(t)
	b := newBed(t, options{})
	b.echoes(8000)
	d := b.start(b.tcp())
	works(t, b.client, hostPort(vip4, 80), 3)
	turned := b.tcp("ports:\n  - {name: lan, interface: lan, driver: af_xdp}\n  - {name: wan, interface: wan, driver: af_xdp}")
	for i, config := range []string{turned, turned, b.tcp(), b.tcp()} {
		d = b.takeover(d, config)
		works(t, b.client, hostPort(vip4, 80), 3)
		works(t, b.client, hostPort(vip6, 80), 3)
		whole(t, d)
		if t.Failed() {
			t.Fatalf("after takeover %d", i+1)
		}
	}
}

// TestTakeoverLosesNoPacket numbers a steady flow of datagrams from one server to a client's, through weirs that follow one another. Each arrives, once, as
// long as a takeover takes no longer than the rings last.
func TestTakeoverLosesNoPacket(t *testing.T) {
	needsPins(t)
	times, rate := 3, 5000
	if p := few("WEIR_TAKEOVERS"); p.idle > 100 {
		times, rate = p.times, 20_000
	}
	b := newBed(t, options{})
	const port = 9000
	var sink *net.UDPConn
	must(t, b.servers[0].Exec(func() (err error) {
		sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(hostPort(server4(0), port))))
		return err
	}))
	defer sink.Close()
	raw, err := sink.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) }))
	config := b.config(fmt.Sprintf("services:\n  - {name: numbers, vip: %s, port: %d, protocol: udp, backends: [{address: %s}]}\n", vip4, port, server4(0)))
	d := b.start(config)
	from, err := dial(b.client, "udp", hostPort(vip4, port))
	must(t, err)
	defer from.Close()

	buf := make([]byte, 8)
	eventually(t, 10*time.Second, "the way to the server is known", func() bool {
		_, _ = from.Write(buf)
		must(t, sink.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err := sink.Read(buf)
		return err == nil
	})
	must(t, sink.SetReadDeadline(time.Time{}))
	got, done := map[uint64]int{}, make(chan struct{})
	go func() {
		defer close(done)
		for {
			n, err := sink.Read(buf)
			if err != nil || n != len(buf) {
				return
			}
			got[binary.BigEndian.Uint64(buf[:n])]++
		}
	}()
	stop, sent := make(chan struct{}), make(chan uint64)
	go func() {
		n := uint64(1)
		begun := time.Now()
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if due := uint64(time.Since(begun).Seconds() * float64(rate)); n < due {
				if _, err := from.Write(binary.BigEndian.AppendUint64(nil, n)); err == nil {
					n++
				}
				continue
			}
			time.Sleep(200 * time.Microsecond)
		}
	}()
	time.Sleep(200 * time.Millisecond)
	var longest time.Duration
	for range times {
		d = b.takeover(d, config)
		longest = max(longest, time.Duration(view[control.Status](d, "status").Takeover.DarkUS*1e3))
		whole(t, d)
		time.Sleep(100 * time.Millisecond)
	}
	close(stop)
	n := <-sent
	eventually(t, 5*time.Second, "what was sent arrives", func() bool { return d.stats().Verdicts.Held == 0 })
	time.Sleep(200 * time.Millisecond)
	must(t, sink.SetReadDeadline(time.Now()))
	<-done
	lost, twice := 0, 0
	var gaps []uint64
	for i := uint64(1); i < n; i++ {
		switch {
		case got[i] == 0:
			if lost++; i == 1 || got[i-1] > 0 {
				gaps = append(gaps, i)
			}
		case got[i] > 1:
			twice++
		}
	}
	t.Logf("%d takeovers under %d datagrams a second: of %d %d lost, from %v on, %d twice; no worker for %v at most", times, rate, n, lost, gaps, twice, longest)
	// The rings of a port hold 2048 frames. A machine that is so busy that the switch takes longer than these last is no fault of weir's.
	if lasts := time.Duration(float64(time.Second) * 1500 / float64(rate)); longest > lasts {
		t.Skipf("a switch took %v, the rings last for %v", longest, lasts)
	}
	if lost != 0 || twice != 0 {
		t.Errorf("%d datagrams were lost, %d arrived twice; drops %v", lost, twice, d.stats().Drops)
	}
}
