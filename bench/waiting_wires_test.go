package bench

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/driver"
	"weir/dataplane/driver/afpacket"
	"weir/dataplane/driver/afxdp"
	"weir/dataplane/driver/mem"
	"weir/dataplane/packet"
)

// memWire is rings in memory.
func memWire(t testing.TB) wire {
	t.Helper()
	pool, err := packet.NewPool(make([]byte, 4096*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	var ports [2]*mem.Port
	for i := range ports {
		if ports[i], err = mem.NewPort(pool, mem.Options{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ports[i].Close() })
	}
	return wire{pool: pool, queues: []driver.Queue{ports[0], ports[1]}, copies: "2, ours", take: ports[1].Take,
		send: func(frames [][]byte) (n int) {
			for n < len(frames) && ports[0].Inject(frames[n]) {
				n++
			}
			return n
		}}
}

// vethWire is two pairs of devices in a network namespace of the test's thread; packet sockets are at their far ends.
func vethWire(t testing.TB) wire {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces and devices")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() {
		ns.Close()
		netns.Set(home)
		home.Close()
		runtime.UnlockOSThread()
	})
	for _, f := range []string{"all", "default"} { // no router solicitations between the packets
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+f+"/disable_ipv6", []byte("1"), 0)
	}
	var far [2]int
	for i, name := range []string{"wan", "lan"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = name, 1, 1
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "far"}); err != nil {
			t.Skipf("needs veth: %v", err)
		}
		for _, n := range []string{name, name + "far"} {
			l, err := netlink.LinkByName(n)
			if err == nil {
				err = netlink.LinkSetUp(l)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		far[i] = farEnd(t, name+"far")
	}
	return wire{copies: "", send: func(frames [][]byte) (n int) {
		for n < len(frames) {
			if _, err := unix.Write(far[0], frames[n]); err != nil {
				break
			}
			n++
		}
		return n
	}, take: func(b []byte) (int, bool) {
		if len(b) == 0 {
			return 0, false // at full load nobody looks, and the socket drops what it has no room for
		}
		n, err := unix.Read(far[1], b)
		return n, err == nil
	}}
}

func farEnd(t testing.TB, name string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: l.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) { // what is sent before the kernel has seen the carrier is lost
		if l, err := netlink.LinkByName(name); err == nil && l.Attrs().OperState == netlink.OperUp || time.Now().After(end) {
			return fd
		}
	}
}

// xdpWire has AF_XDP sockets at the near ends.
func xdpWire(t testing.TB) wire {
	t.Helper()
	w := vethWire(t)
	u, err := afxdp.NewUmem(afxdp.UmemOptions{Chunks: 8192})
	if err != nil {
		t.Skipf("needs memory that is locked: %v", err)
	}
	t.Cleanup(func() { u.Close() })
	w.pool, w.copies = u.Pool(), "2, the kernel's"
	for _, name := range []string{"wan", "lan"} {
		sockets := redirect(t, name)
		q, err := afxdp.Open(u, name, 0, afxdp.Options{RingSize: 1024})
		if err != nil {
			t.Skipf("needs AF_XDP: %v", err)
		}
		t.Cleanup(func() { q.Close() })
		if err := sockets.Put(uint32(0), uint32(q.SocketFD())); err != nil {
			t.Fatal(err)
		}
		w.queues = append(w.queues, q)
	}
	return w
}

// redirect attaches a program that gives every frame to the socket of its queue.
func redirect(t testing.TB, name string) *ebpf.Map {
	t.Helper()
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Skipf("needs XSKMAP: %v", err)
	}
	t.Cleanup(func() { sockets.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), // xdp_md.rx_queue_index
		asm.LoadMapPtr(asm.R1, sockets.FD()),
		asm.Mov.Imm(asm.R3, 2), // XDP_PASS
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Skipf("needs XDP: %v", err)
	}
	defer prog.Close()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	at, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index, Flags: link.XDPDriverMode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	return sockets
}

// packetWire has packet sockets at the near ends.
func packetWire(t testing.TB) wire {
	t.Helper()
	w := vethWire(t)
	pool, err := packet.NewPool(make([]byte, 8192*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	w.pool, w.copies = pool, "2, the kernel's, and ours"
	for _, name := range []string{"wan", "lan"} {
		q, err := afpacket.Open(name, pool, afpacket.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { q.Close() })
		w.queues = append(w.queues, q)
	}
	return w
}
