package afpacket

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/driver/drivertest"
	"weir/dataplane/packet"
)

// near carries the queue under test, far is the other end of the pair. Both live in a namespace without a name, which goes when the
// test's thread does.
const near, far = "wxap0", "wxap1"

// namespace puts the test's goroutine, locked to its thread, into a fresh network namespace. A subtest is another goroutine and gets
// there by the function that is returned.
func namespace(t testing.TB) (subtest func(t *testing.T, name string, run func(*testing.T))) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and the namespace with it
	ns, err := netns.New()
	if errors.Is(err, unix.EPERM) {
		t.Skip("a network namespace of our own needs CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	for _, conf := range []string{"all", "default"} { // no router solicitations between the test's frames
		os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/disable_ipv6", []byte("1"), 0)
	}
	return func(t *testing.T, name string, run func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			if err := netns.Set(ns); err != nil {
				t.Fatal(err)
			}
			run(t)
		})
	}
}

func addVeth(t testing.TB, mtu int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = near, mtu
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far}); err != nil {
		t.Skipf("veth: %v", err)
	}
	for _, name := range []string{near, far} {
		if err := netlink.LinkSetMTU(link(t, name), mtu); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel's link watch gives a device its queue when it has seen both ends up; until then what is sent is lost.
	for _, name := range []string{near, far} {
		for deadline := time.Now().Add(10 * time.Second); link(t, name).Attrs().OperState != netlink.OperUp; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not up after 10 s", name)
			}
		}
	}
}

func link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newPool(t testing.TB, chunks int) *packet.Pool {
	t.Helper()
	p, err := packet.NewPool(make([]byte, chunks*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens the queue of near, and sees that it is closed.
func open(t testing.TB, pool *packet.Pool, o Options) *Queue {
	t.Helper()
	q, err := Open(near, pool, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// peer is a plain packet socket on far, the oracle of what is on the wire.
type peer struct {
	testing.TB
	fd int
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link(t, far).Attrs().Index, Protocol: htons(unix.ETH_P_ALL)}); err != nil {
		t.Fatal(err)
	}
	return &peer{TB: t, fd: fd}
}

func (p *peer) inject(b []byte) bool {
	_, err := unix.Write(p.fd, b)
	switch err {
	case nil:
		return true
	case unix.EAGAIN, unix.ENOBUFS:
		return false
	}
	p.Fatalf("far end: send %d bytes: %v", len(b), err)
	return false
}

func (p *peer) take(b []byte) (int, bool) {
	n, err := unix.Read(p.fd, b)
	if err != nil && err != unix.EAGAIN && err != unix.ENETDOWN {
		p.Fatalf("far end: receive: %v", err)
	}
	return n, err == nil
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Link {
		namespace(t)
		addVeth(t, 1500)
		pool := newPool(t, 1024)
		q, err := Open(near, pool, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t)
		return drivertest.Link{Queue: q, Pool: pool, Inject: p.inject, Take: p.take, MinFrame: 18}
	})
}

func TestEveryFrameWakesTheWorker(t *testing.T) {
	drivertest.Wakeups(t, func(t *testing.T) (drivertest.Link, func(bool)) {
		namespace(t)
		addVeth(t, 1500)
		pool := newPool(t, 1024)
		q, err := Open(near, pool, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return drivertest.Link{Queue: q, Pool: pool, Inject: newPeer(t).inject}, func(up bool) {
			set := netlink.LinkSetDown
			if up {
				set = netlink.LinkSetUp
			}
			if err := set(link(t, near)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// round receives what is there within a moment and returns copies of the frames that keep says yes to.
func gather(q *Queue, want int, keep func([]byte) bool) (frames [][]byte) {
	var d [packet.VectorSize]packet.Desc
	for end := time.Now().Add(2 * time.Second); len(frames) < want && time.Now().Before(end); q.Flush() {
		for _, desc := range d[:q.Receive(d[:])] {
			if b := q.pool.Bytes(desc); keep(b) {
				frames = append(frames, append([]byte(nil), b...))
			}
			q.pool.Put(desc.Addr)
		}
	}
	return frames
}

// until drives the queue until ok says so, for two seconds at most.
func until(t *testing.T, q *Queue, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within two seconds; stats %+v %+v", what, q.Stats(), q.Counters())
		}
		q.Flush()
	}
}
