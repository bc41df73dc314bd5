package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/control/host/testnet"
)

// load is the clients.
type load struct {
	client  *testnet.Space
	checker *checker
	gate    sync.RWMutex // held by who has something under way; taken by who wants rest
	resumed atomic.Int64 // when the latest rest ended, as time.UnixNano
	stop    context.Context
	numbers atomic.Uint64
	wg      sync.WaitGroup
}

// way is a service in front of the servers, as clients know it.
type way struct {
	name string
	to   string
}

var ways = []way{
	{"nat4", at(vip4, portNAT)}, {"nat6", at(vip6, portNAT)}, {"fullnat", at(vip4, portFull)}, {"dr", at(vip4, portDR)}, {"vxlan", at(vip4, portVXLAN)},
}

func at(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

const (
	// patience is how long a client waits for anything at all. No event lasts as long, and retransmissions are 2 s apart.
	patience = 60 * time.Second
	// missedAfter is from when on a datagram without an answer is lost.
	missedAfter = 10 * time.Second
)

// begin starts so many of each kind of client for each way; they end with l.stop.
func (l *load) begin(seed uint64, streams, flows int) {
	run := func(n uint64, f func(r *rand.Rand)) {
		l.wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, n))
			for l.stop.Err() == nil {
				f(r)
			}
		})
	}
	n := uint64(1000) // the schedule has numbers of its own
	for _, w := range ways {
		for i := range streams {
			n++
			run(n, func(r *rand.Rand) {
				life := time.Duration(2+r.IntN(20)) * time.Second
				if i == 0 {
					life = time.Hour // one of each sees everything
				}
				l.stream(r, w, life)
			})
		}
		n++
		run(n, func(r *rand.Rand) { l.request(r, w, "", nil) })
	}
	for i := range sticks {
		n++
		s := &stuck{ports: map[uint16]int{}}
		run(n, func(r *rand.Rand) { l.request(r, way{"sticky", at(vip4, portStick)}, stick(i), s) })
	}
	for i := range flows {
		for _, vip := range []string{vip4, vip6} {
			n++
			run(n, func(r *rand.Rand) { l.flow(r, i, at(vip, udpPort)) })
		}
	}
}

// dial connects from the client's namespace, from an address and port of it or any.
func (l *load) dial(network string, from netip.AddrPort, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: patience}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	err = l.client.Exec(func() error {
		c, err = d.DialContext(l.stop, network, to)
		return err
	})
	return c, err
}

// pause waits, unless it is all over.
func (l *load) pause(d time.Duration) bool {
	select {
	case <-l.stop.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// sightOf names what an error on a connection is, and reports false if it is not to be had at any price.
func sightOf(err error) (s Sight, ok bool) {
	var ne net.Error
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return Reset, true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Closed, true
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused, true
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &ne) && ne.Timeout():
		return Unreachable, true
	}
	return 0, false
}

// failed judges an error.
func (l *load) failed(s *subject, began time.Time, err error) {
	if l.stop.Err() != nil {
		return
	}
	sight, ok := sightOf(err)
	if !ok {
		l.checker.violation(s, time.Now(), "%s: %v", s.name, err)
		return
	}
	l.checker.saw(s, sight, began, time.Now(), "%v", err)
}

// sortMoments puts moments into the order of time.
func sortMoments(m []moment) {
	slices.SortStableFunc(m, func(a, b moment) int { return a.at.Compare(b.at) })
}
