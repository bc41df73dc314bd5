package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weir/control"
)

// population is who is connected while one weir takes the place of another, so many times.
type population struct{ times, idle, busy, datagrams, persistent int }

// few is what a test run has. A number in a variable of the environment, such as WEIR_RESTARTS=20, asks for as many times among many clients.
func few(variable string) population {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return population{times: n, idle: 1000, busy: 200, datagrams: 100, persistent: 50}
	}
	return population{times: 3, idle: 20, busy: 20, datagrams: 10, persistent: 6}
}

// stamped is a conversation of numbered messages: what comes back must be the answer to the one sent, byte by byte.
type stamped struct {
	name   string
	conn   net.Conn
	seq    uint64
	answer string // what stands before each answer of a server, once known
	halt   atomic.Bool
	ended  chan struct{}
	err    error
	rounds atomic.Int64
	worst  atomic.Int64 // longest time from one answer to the next since it was asked for last
}

const stampedLen = 64

// message is number seq of them: all its bytes depend on it.
func (s *stamped) message(seq uint64) []byte {
	b := make([]byte, stampedLen)
	r := rand.New(rand.NewPCG(seq, 1))
	for i := 8; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], r.Uint64())
	}
	binary.BigEndian.PutUint64(b, seq)
	return b
}

// round sends the next message of a TCP connection and wants it back.
func (s *stamped) round(limit time.Duration) error {
	s.seq++
	m := s.message(s.seq)
	if err := s.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := s.conn.Write(m); err != nil {
		return err
	}
	got := make([]byte, len(m))
	if _, err := io.ReadFull(s.conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, m) {
		return fmt.Errorf("message %d came back as %x", s.seq, got)
	}
	s.rounds.Add(1)
	return nil
}

// run talks until it is halted or something is wrong.
func (s *stamped) run(talk func() error) {
	defer close(s.ended)
	last := time.Now()
	for s.err == nil && !s.halt.Load() {
		was := s.rounds.Load()
		s.err = talk()
		if s.rounds.Load() != was {
			now := time.Now()
			if gap := int64(now.Sub(last)); gap > s.worst.Load() {
				s.worst.Store(gap)
			}
			last = now
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ask sends the next datagram and takes the answers that come within a moment. A datagram may be lost, but whoever answers is the one who
// answered first: it is one flow.
func (s *stamped) ask() error {
	s.seq++
	if _, err := s.conn.Write(s.message(s.seq)); err != nil {
		return nil // an ICMP error of the way: nobody is there for a moment
	}
	buf := make([]byte, 512)
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			return err
		}
		n, err := s.conn.Read(buf)
		if err != nil {
			return nil
		}
		name, m, ok := bytes.Cut(buf[:n], []byte(" "))
		if !ok || len(m) != stampedLen || !bytes.Equal(m, s.message(binary.BigEndian.Uint64(m))) {
			return fmt.Errorf("answer %q", buf[:n])
		}
		if s.answer == "" {
			s.answer = string(name)
		}
		if s.answer != string(name) {
			return fmt.Errorf("%s answers, the flow is %s's", name, s.answer)
		}
		s.rounds.Add(1)
		if binary.BigEndian.Uint64(m) == s.seq {
			return nil
		}
	}
}

// restartServices are ways to forward, each with a service at a port of its own; servers 0 and 1 stand behind all.
var restartServices = []struct {
	name, vip string
	port      int
	head      string // with the backends' forward and ports
	backends  string
}{
	{"nat", vip4, 80, "port: 80, scheduler: rr", "{address: %s, port: 8000}"},
	{"nat6", vip6, 80, "port: 80, scheduler: rr", "{address: \"%s\", port: 8000}"},
	{"fullnat", vip4, 81, "port: 81, scheduler: rr, forward: fullnat, fullnat: {addresses: [" + local4 + "], ports: 20000-29999}", "{address: %s, port: 8000}"},
	{"dr", vip4, 82, "port: 82, scheduler: rr, forward: dr", "{address: %s}"},
	{"datagrams", vip4, 53, "port: 53, protocol: udp, scheduler: rr", "{address: %s}"},
	{"datagrams6", vip6, 53, "port: 53, protocol: udp, scheduler: rr", "{address: \"%s\"}"},
	{"persistent", vip4, 83, "port: 83, scheduler: rr, persistence: {timeout: 300s}", "{address: %s, port: 8083}"},
}

func restartConfig(f *forwardBed) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, s := range restartServices {
		server := server4
		if s.vip == vip6 {
			server = server6
		}
		fmt.Fprintf(&b, "  - {name: %s, vip: %q, %s, backends: ["+s.backends+", "+s.backends+"]}\n", s.name, s.vip, s.head, server(0), server(1))
	}
	return f.config(b.String())
}

// TestConnectionsOutliveKills kills weir again and again.
func TestConnectionsOutliveKills(t *testing.T) {
	outlive(t, few("WEIR_RESTARTS"), "kill", func(f *forwardBed, d *daemon) *daemon {
		d.kill()
		return f.start(restartConfig(f))
	})
}

// outlive has one weir take another's place again and again, by what next does, under clients that talk, that are silent, and that come back, through
// every kind of forwarding. Nobody is reset, each byte that comes is right, each flow stays with its server.
func outlive(t *testing.T, p population, act string, next func(*forwardBed, *daemon) *daemon) {
	needsPins(t)
	f := newForwardBed(t, options{})
	for i := range 2 {
		f.listen(i, 8000, echo)
		f.listen(i, 82, echo)
		name := f.servers[i].Name
		f.listen(i, 8083, func(c net.Conn) { _, _ = c.Write([]byte(name)) })
	}
	var clients []string
	for i := range p.persistent {
		clients = append(clients, fmt.Sprintf("198.18.128.%d", 1+i))
		must(t, f.client.Address("lo", clients[i]+"/32"))
	}
	must(t, f.lb.Route("198.18.128.0/24", client4))
	resets := f.resets()
	d := f.start(restartConfig(f))
	if !strings.Contains(view[control.Status](d, "status").TableFile, "/table") {
		t.Skip("there is no place to keep a table in: neither /run/weir nor /dev/shm/weir is in memory with room for it")
	}

	var talking, silent []*stamped
	open := func(n int, network string, services ...int) (all []*stamped) {
		for i := range n {
			s := restartServices[services[i%len(services)]]
			c, err := dial(f.client, network, hostPort(s.vip, s.port))
			must(t, err)
			t.Cleanup(func() { c.Close() })
			all = append(all, &stamped{name: fmt.Sprintf("%s %d", s.name, i), conn: c, ended: make(chan struct{})})
		}
		return all
	}
	const patience = 20 * time.Second
	for _, s := range open(p.idle, "tcp", 0, 1, 2, 3) {
		must(t, s.round(patience))
		silent = append(silent, s)
	}
	for _, s := range open(p.busy, "tcp", 0, 1, 2, 3) {
		talking = append(talking, s)
		go s.run(func() error { return s.round(patience) })
	}
	tcp := len(talking)
	for _, s := range open(p.datagrams, "udp", 4, 5) {
		talking = append(talking, s)
		go s.run(s.ask)
	}
	come := func(from string) string {
		t.Helper()
		c, err := dialFrom(f.client, "tcp", hostPort(from, 0), hostPort(vip4, 83))
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(patience)))
		name, err := io.ReadAll(c)
		must(t, err)
		return string(name)
	}
	servers := map[string]string{}
	for _, from := range clients {
		servers[from] = come(from)
	}
	answered := func() {
		t.Helper()
		was := make([]int64, len(talking))
		for i, s := range talking {
			was[i] = s.rounds.Load()
		}
		for i, s := range talking {
			eventually(t, patience, s.name+" goes on", func() bool {
				select {
				case <-s.ended:
					t.Fatalf("%s ended after %d rounds: %v", s.name, s.rounds.Load(), s.err)
				default:
				}
				return s.rounds.Load() >= was[i]+2
			})
		}
	}
	answered()

	var pauses, dark []time.Duration
	for round := range p.times {
		for _, s := range talking {
			s.worst.Store(0)
		}
		want := d.stats()
		d = next(f, d)
		answered()
		for i, s := range talking {
			if i < tcp {
				pauses = append(pauses, time.Duration(s.worst.Load()))
			} else {
				dark = append(dark, time.Duration(s.worst.Load()))
			}
		}
		for _, s := range silent {
			if err := s.round(patience); err != nil {
				t.Fatalf("%s %d: silent %s: %v", act, round, s.name, err)
			}
		}
		for i, from := range clients {
			if i%2 == round%2 {
				continue // comes next time
			}
			if got := come(from); got != servers[from] {
				t.Fatalf("%s %d: %s came to %s, before to %s", act, round, from, got, servers[from])
			}
		}
		for i, s := range d.stats().Services {
			if strings.HasPrefix(s.Name, "persistent") {
				if got := s.Backends[0].Persistent + s.Backends[1].Persistent; got != len(clients) {
					t.Fatalf("%s %d: %d clients are remembered of %d", act, round, got, len(clients))
				}
				continue // its connections come and go
			}
			for j, b := range s.Backends {
				if was := want.Services[i].Backends[j]; b.Active != was.Active || b.Inactive != was.Inactive {
					t.Fatalf("%s %d: %s %s has %d active and %d inactive connections, before it was %d and %d", act, round, s.Name, b.Address, b.Active, b.Inactive, was.Active, was.Inactive)
				}
			}
		}
		if n := resets.Load(); n != 0 {
			t.Fatalf("%s %d: %d RSTs reached the client", act, round, n)
		}
	}
	for _, s := range talking {
		s.halt.Store(true)
		<-s.ended
		if s.err != nil {
			t.Errorf("%s: %v", s.name, s.err)
		}
	}
	tell := func(what string, all []time.Duration) {
		slices.Sort(all)
		t.Logf("%s: median %v, worst %v", what, all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
	}
	t.Logf("%d times a %s under %d silent and %d talking connections, %d flows of datagrams, %d persistent clients", p.times, act, p.idle, p.busy, p.datagrams, p.persistent)
	tell("pause of a TCP connection", pauses)
	tell("pause of a flow of datagrams, one each 5 ms", dark)
}
