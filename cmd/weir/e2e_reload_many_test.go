package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/control"
)

// throng is who talks while weir reloads.
type throng struct {
	reloads, tcp, datagrams int
	pause                   time.Duration // of a conversation after each answer
}

// reloadThrong is what a test run has. WEIR_RELOADS=1000 asks for that many reloads among a thousand connections.
func reloadThrong() throng {
	if n, err := strconv.Atoi(os.Getenv("WEIR_RELOADS")); err == nil {
		return throng{reloads: n, tcp: 1000, datagrams: 100, pause: 300 * time.Millisecond}
	}
	return throng{reloads: 50, tcp: 100, datagrams: 20, pause: 30 * time.Millisecond}
}

// exchange sends the next datagram and wants the answer to it, from whoever answered first. No other is under way, so one that does not come was
// lost by somebody.
func (s *stamped) exchange(limit time.Duration) error {
	s.seq++
	want := s.message(s.seq)
	if err := s.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := s.conn.Write(want); err != nil {
		return err
	}
	buf := make([]byte, 512)
	n, err := s.conn.Read(buf)
	if err != nil {
		return fmt.Errorf("datagram %d: %w", s.seq, err)
	}
	name, got, _ := bytes.Cut(buf[:n], []byte(" "))
	if !bytes.Equal(got, want) {
		return fmt.Errorf("datagram %d came back as %x", s.seq, got)
	}
	if s.answer == "" {
		s.answer = string(name)
	}
	if s.answer != string(name) {
		return fmt.Errorf("%s answers datagram %d, the flow is %s's", name, s.seq, s.answer)
	}
	s.rounds.Add(1)
	return nil
}

// changing is configuration number i for the services of restartConfig: three in a row have weights of their own, the second adds services that nobody
// uses, the third is the second once more.
func changing(f *forwardBed, i int) string {
	round := i / 3
	text := strings.ReplaceAll(restartConfig(f), ", backends: [{", fmt.Sprintf(", backends: [{weight: %d, ", 1+round%5))
	if i%3 == 0 {
		return text
	}
	for n := range spareServices {
		text += fmt.Sprintf("  - {vip: %s, port: %d, protocol: udp, backends: [{address: %s, port: 53}]}\n", vip4, 1000+round%7+n, server4(n%2))
	}
	return text
}

const spareServices = 3

// TestReloadsLoseNothing reloads as fast as weir takes it under clients of every kind of forwarding. Every message must come back byte by byte, also
// those over UDP, which nobody sends again, and weir must not drop a single packet.
func TestReloadsLoseNothing(t *testing.T) {
	p := reloadThrong()
	f := newForwardBed(t, options{})
	for i := range 2 {
		f.listen(i, 8000, echo)
		f.listen(i, 82, echo)
	}
	const first = 2 // has everything that the next one takes away
	d := f.start(changing(f, first))

	const patience = 20 * time.Second // for an answer, on a machine that is busy
	var talking []*stamped
	open := func(n int, network string, talk func(*stamped) error, services ...int) {
		for i := range n {
			s := restartServices[services[i%len(services)]]
			c, err := dial(f.client, network, hostPort(s.vip, s.port))
			must(t, err)
			t.Cleanup(func() { c.Close() })
			x := &stamped{name: fmt.Sprintf("%s %d", s.name, i), conn: c, ended: make(chan struct{})}
			talking = append(talking, x)
			go x.run(func() error {
				if err := talk(x); err != nil {
					return err
				}
				time.Sleep(p.pause)
				return nil
			})
		}
	}
	open(p.tcp, "tcp", func(s *stamped) error { return s.round(patience) }, 0, 1, 2, 3)
	open(p.datagrams, "udp", func(s *stamped) error { return s.exchange(patience) }, 4, 5)
	goOn := func() {
		t.Helper()
		was := make([]int64, len(talking))
		for i, s := range talking {
			was[i] = s.rounds.Load()
		}
		for i, s := range talking {
			eventually(t, patience, s.name+" goes on", func() bool {
				select {
				case <-s.ended:
					t.Fatalf("%s ended after %d messages: %v", s.name, s.rounds.Load(), s.err)
				default:
				}
				return s.rounds.Load() >= was[i]+2
			})
		}
	}
	goOn()

	client := control.NewClient(d.socket)
	var took []time.Duration
	begun := time.Now()
	for i := first + 1; i <= first+p.reloads; i++ {
		d.write(changing(f, i))
		asked := time.Now()
		o, err := client.Reload()
		took = append(took, time.Since(asked))
		must(t, err)
		want := [3]string{
			fmt.Sprintf("services +0 -%d ~%d,", spareServices, len(restartServices)), // other weights
			fmt.Sprintf("services +%d -0 ~0,", spareServices),
			"services +0 -0 ~0,",
		}[i%3]
		if !o.OK || !strings.HasPrefix(o.Message, want) || o.Generation != uint64(i-first+1) {
			t.Fatalf("reload %d: want %q and generation %d, got %+v", i-first, want, i-first+1, o)
		}
	}
	all := time.Since(begun)
	goOn()
	rounds, sent := int64(0), map[string]uint64{}
	var silent []time.Duration
	for _, s := range talking {
		s.halt.Store(true)
	}
	for _, s := range talking {
		<-s.ended
		if s.err != nil {
			t.Errorf("%s, message %d: %v", s.name, s.seq, s.err)
		}
		rounds += s.rounds.Load()
		sent[strings.Fields(s.name)[0]] += s.seq
		silent = append(silent, time.Duration(s.worst.Load()))
	}
	s := d.settled()
	if s.Verdicts.Dropped != 0 {
		t.Errorf("weir dropped %d packets of %d: %s", s.Verdicts.Dropped, s.Verdicts.Received, d.cli("drops"))
	}
	for _, port := range s.Ports {
		if port.RxLost != 0 {
			t.Errorf("port %s lost %d frames before weir saw them", port.Name, port.RxLost)
		}
	}
	for _, x := range s.Services {
		if n := sent[x.Name]; strings.HasPrefix(x.Name, "datagrams") && (x.InPackets != n || x.OutPackets != n) {
			t.Errorf("%s: clients sent %d datagrams and had as many answers, weir counts %d and %d", x.Name, n, x.InPackets, x.OutPackets)
		}
	}
	again := uint32(0)
	for _, x := range talking {
		if c, ok := x.conn.(*net.TCPConn); ok {
			onSocket(t, c, func(fd int) error {
				info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err == nil {
					again += info.Total_retrans
				}
				return err
			})
		}
	}
	slices.Sort(took)
	slices.Sort(silent)
	t.Logf("%d reloads in %v (median %v, worst %v) under %d TCP connections and %d flows of datagrams: %d messages, each answered; %d packets, none dropped; "+
		"longest silence: median %v, worst %v, with a pause of %v; clients' TCP sent %d segments again",
		p.reloads, all.Round(time.Millisecond), took[len(took)/2].Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Microsecond), p.tcp, p.datagrams,
		rounds, s.Verdicts.Received, silent[len(silent)/2].Round(time.Millisecond), silent[len(silent)-1].Round(time.Millisecond), p.pause, again)
}
