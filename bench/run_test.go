package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

// patience is how long the last frames of a test may take; a busy machine stalls for long.
const patience = 20 * time.Second

func runs(t *testing.T, o Options) *Report {
	t.Helper()
	if o.Duration == 0 {
		o.Duration = patience
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRunOnMemory(t *testing.T) {
	for _, x := range []struct {
		name  string
		o     Options
		check func(*testing.T, *Report)
	}{
		{"one way", Options{Count: 5000, Traffic: traffic(t, func(x *Traffic) { x.Flows, x.Mix = 100, IMIX })}, func(t *testing.T, r *Report) {
			if r.Traffic.Average < 361 || r.SentMbps <= 0 || r.ReceivedMbps != r.SentMbps || r.Traffic.Flows != 100 {
				t.Errorf("%+v", r)
			}
		}},
		{"two threads", Options{Count: 5000, Threads: 2, Traffic: traffic(t, nil)}, nil},
		{"IPv6", Options{Count: 500, Traffic: traffic(t, func(x *Traffic) {
			x.Src, _ = ParseRange("2001:db8::/64")
			x.Dst, _ = ParseRange("2001:db8:9::9")
			x.Mix = Mix{{128, 1}}
		})}, nil},
		{"paced", Options{Count: 50, Rate: 1000, Traffic: traffic(t, nil)}, func(t *testing.T, r *Report) {
			if r.DurationS < 0.049 || r.Lag == nil {
				t.Errorf("50 frames at 1000 a second were sent in %v s, lag %v", r.DurationS, r.Lag)
			}
		}},
		{"there and back", Options{Count: 2000, Echo: true, Traffic: traffic(t, nil)}, func(t *testing.T, r *Report) {
			if r.Ports[0].Received != 2000 || r.Ports[1].Received != 2000 || r.Ports[1].Replied != 2000 {
				t.Errorf("ports %+v", r.Ports)
			}
		}},
		{"SYNs", Options{Count: 2000, Traffic: traffic(t, func(x *Traffic) { x.Kind = SYN })}, func(t *testing.T, r *Report) {
			if r.TCP.Accepted != 2000 || r.TCP.Established != 0 {
				t.Errorf("tcp %+v", r.TCP)
			}
		}},
		{"connections", Options{Count: 500, Respond: true, Traffic: traffic(t, func(x *Traffic) { x.Kind = Connect })}, func(t *testing.T, r *Report) {
			if (*r.TCP != TCPReport{Accepted: 500, Established: 500, Closed: 500, EstablishedPerS: r.TCP.EstablishedPerS}) {
				t.Errorf("tcp %+v", r.TCP)
			}
			if r.Latency.Samples != 500 {
				t.Errorf("%d handshakes have a latency", r.Latency.Samples)
			}
		}},
		{"connections that nobody accepts", Options{Count: 100, Drain: time.Millisecond, Traffic: traffic(t, func(x *Traffic) { x.Kind = Connect })}, func(t *testing.T, r *Report) {
			if r.TCP.HandshakeTimeout != 100 || r.Loss != 1 {
				t.Errorf("loss %v, tcp %+v", r.Loss, r.TCP)
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.o.Driver = Mem
			if x.o.Drain == 0 {
				x.o.Drain = patience
			}
			r := runs(t, x.o)
			if x.check != nil {
				x.check(t, r)
			}
			if x.o.Drain != patience { // the case in which all is lost
				return
			}
			if x.o.Traffic.Kind != Connect && r.Received != x.o.Count || r.Sent != x.o.Count || r.Lost != 0 || r.Loss != 0 || r.Reordered != 0 {
				t.Errorf("sent %d, received %d, lost %d (%v), out of order %d; want %d", r.Sent, r.Received, r.Lost, r.Loss, r.Reordered, x.o.Count)
			}
		})
	}
}

func TestRunEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := Run(ctx, Options{Driver: Mem, Duration: time.Hour, Rate: 1000, Drain: patience, Traffic: traffic(t, nil), Progress: func(p Progress) {
		if p.Received > 0 && strings.Contains(p.Line(), "received") {
			cancel()
		}
	}})
	if err != nil || r.Sent == 0 || r.Received != r.Sent {
		t.Errorf("%+v, %v", r, err)
	}
	var b bytes.Buffer
	r.Print(&b)
	for _, want := range []string{"mem0", "sent", "received", "latency", "lost       0"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, x := range []struct {
		o    Options
		want string
	}{
		{Options{Tx: "a", Driver: "dpdk"}, "must be af_xdp"},
		{Options{}, "a port is needed"},
		{Options{Driver: Mem, RxDriver: XDP}, "two ends"},
		{Options{Tx: "a", Mode: "fast"}, "xdp mode"},
		{Options{Tx: "a", Queues: 65}, "65 queues"},
		{Options{Tx: "a", Burst: 257}, "burst of 257"},
		{Options{Tx: "a", Threads: 3}, "3 threads"},
		{Options{Tx: "a", Rate: -1}, "rate of -1"},
		{Options{Tx: "a", Duration: -1}, "must be positive"},
		{Options{Tx: "a", Driver: XDP, Echo: true}, "only counts"},
		{Options{Tx: "a"}, "addresses are needed"},
	} {
		if err := x.o.Check(); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: error %v, want one with %q", x.o, err, x.want)
		}
	}
}

// veths makes namespaces with veth pairs between them, or skips. pairs are of "space/device".
func veths(t *testing.T, queues int, pairs ...[2]string) map[string]*testnet.Space {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	n, err := testnet.New("wpktgen")
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	spaces := map[string]*testnet.Space{}
	end := func(name string) testnet.End {
		space, device, _ := strings.Cut(name, "/")
		if spaces[space] == nil {
			s, err := n.Space(space)
			if err == nil {
				err = s.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
			}
			if err != nil {
				t.Fatal(err)
			}
			spaces[space] = s
		}
		return testnet.End{Space: spaces[space], Name: device, Queues: queues}
	}
	for _, p := range pairs {
		if err := n.Veth(end(p[0]), end(p[1])); err != nil {
			t.Skipf("needs veth: %v", err)
		}
	}
	return spaces
}

func macIn(t *testing.T, s *testnet.Space, device string) [6]byte {
	t.Helper()
	l, err := s.Host().Link(device)
	if err != nil {
		t.Fatal(err)
	}
	return l.MAC
}

// cannot skips a test for what the kernel lacks.
func cannot(t *testing.T, err error) {
	t.Helper()
	for _, e := range []error{unix.EPERM, unix.EAFNOSUPPORT, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			t.Skipf("this kernel cannot: %v", err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The bare forwarder loses nothing on either way.
func TestForwarder(t *testing.T) {
	spaces := veths(t, 1, [2]string{"gen/g0", "dut/d0"}, [2]string{"gen/g1", "dut/d1"})
	gen, dut := spaces["gen"], spaces["dut"]
	var f *Forwarder
	err := dut.Exec(func() (err error) {
		f, err = NewForwarder([2]string{"d0", "d1"}, [2][6]byte{macIn(t, gen, "g0"), macIn(t, gen, "g1")})
		return err
	})
	cannot(t, err)
	var stop atomic.Bool
	ended := make(chan error, 1)
	go func() { ended <- f.Run(-1, &stop) }()
	var r *Report
	err = gen.Exec(func() (err error) {
		r, err = Run(t.Context(), Options{Driver: AFXDP, Tx: "g0", Rx: "g1", Count: 250, Echo: true, Burst: 32, Duration: patience, Drain: patience,
			Traffic: traffic(t, func(x *Traffic) { x.SrcMAC, x.DstMAC, x.Mix = [6]byte{}, macIn(t, dut, "d0"), IMIX })})
		return err
	})
	stop.Store(true)
	if e := <-ended; e != nil {
		t.Error(e)
	}
	cannot(t, err)
	if r.Lost != 0 || r.Ports[0].Received != 250 || r.Ports[1].Received != 250 { // there and back
		t.Errorf("lost %d of %d: %+v", r.Lost, r.Sent, r.Ports)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestRunOnVeth sends over a real device by each driver. No more frames go one way than the smallest ring on it holds, veth's of 256, so that a
// machine which stalls loses nothing.
func TestRunOnVeth(t *testing.T) {
	s := veths(t, 2, [2]string{"gen/g0", "gen/g1"})["gen"]
	mac := macIn(t, s, "g1")
	for _, x := range []struct {
		name string
		o    Options
	}{
		{"af_xdp", Options{Driver: AFXDP, Count: 250}},
		{"af_xdp, one queue of two", Options{Driver: AFXDP, Count: 250, Queues: 1}},
		{"af_xdp, generic", Options{Driver: AFXDP, Count: 250, Mode: "generic"}},
		{"af_packet", Options{Driver: AFPacket, Count: 250}},
		{"live frames", Options{Driver: XDP, Count: 250}},
		{"live frames to af_xdp", Options{Driver: XDP, RxDriver: AFXDP, Count: 250}},
		{"af_xdp to a program that counts", Options{Driver: AFXDP, RxDriver: XDP, Count: 250}},
		{"there and back", Options{Driver: AFXDP, Count: 250, Echo: true}},
		{"connections", Options{Driver: AFXDP, Count: 50, Respond: true, Traffic: Traffic{Kind: Connect}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			kind := x.o.Traffic.Kind
			x.o.Traffic = traffic(t, func(y *Traffic) {
				y.Kind, y.DstMAC, y.SrcMAC, y.Flows, y.Mix = kind, mac, [6]byte{}, 100, IMIX
				if kind == Connect {
					y.Flows = 50
				}
			})
			x.o.Tx, x.o.Rx, x.o.Duration, x.o.Drain, x.o.Burst = "g0", "g1", patience, patience, 32
			var r *Report
			err := s.Exec(func() (err error) {
				r, err = Run(t.Context(), x.o)
				return err
			})
			cannot(t, err)
			if r.Sent != x.o.Count || r.Lost != 0 {
				t.Errorf("sent %d, lost %d, want %d and none: %+v", r.Sent, r.Lost, x.o.Count, r.Ports)
			}
			if r.Latency == nil || r.Latency.Samples != int64(x.o.Count) || r.Latency.Min <= 0 {
				t.Errorf("latency %+v", r.Latency)
			}
			if kind == Connect && (r.TCP.Closed != x.o.Count || r.TCP.Accepted != x.o.Count) {
				t.Errorf("tcp %+v", r.TCP)
			}
			if kind != Connect && !x.o.Echo {
				var bytes uint64
				order := IMIX.schedule()
				for i := range x.o.Count {
					bytes += uint64(IMIX[order[i%uint64(len(order))]].Bytes)
				}
				got := r.ReceivedMbps * r.DurationS * 1e6 / 8
				if (x.o.Driver == XDP || x.o.Queues == 1) && (got < float64(bytes)-0.5 || got > float64(bytes)+0.5) { // each queue's mix begins anew
					t.Errorf("%.1f bytes arrived, want %d", got, bytes)
				}
			}
		})
	}
	t.Run("errors", func(t *testing.T) {
		for _, x := range []struct {
			o    Options
			want string
		}{
			{Options{Tx: "nosuch", Rx: "g1"}, "nosuch"},
			{Options{Tx: "g0", Rx: "g1", Traffic: Traffic{DstMAC: [6]byte{1}, Mix: Mix{{3000, 1}}}}, "need an MTU of 2982"},
			{Options{Tx: "g0", Rx: "g1"}, "MAC address is needed"},
		} {
			x.o.Traffic = traffic(t, func(y *Traffic) { y.DstMAC, y.Mix = x.o.Traffic.DstMAC, x.o.Traffic.Mix })
			err := s.Exec(func() error { _, err := Run(t.Context(), x.o); return err })
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("error %v, want one with %q", err, x.want)
			}
		}
	})
}
