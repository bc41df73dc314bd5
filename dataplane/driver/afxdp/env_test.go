package afxdp

import (
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// inNamespace moves the test, on a thread of its own, into a fresh network namespace, which vanishes with it. It skips what cannot run here.
func inNamespace(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces and AF_XDP")
	}
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	if err != nil {
		t.Skipf("needs AF_XDP: %v", err)
	}
	unix.Close(fd)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Skipf("needs to lock memory: %v", err)
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		runtime.UnlockOSThread()
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() {
		ns.Close()
		if err := netns.Set(home); err != nil {
			t.Errorf("leave the namespace: %v", err)
		}
		home.Close()
		runtime.UnlockOSThread()
	})
	for _, f := range []string{"all", "default"} { // no router solicitations among the frames
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+f+"/disable_ipv6", []byte("1"), 0)
	}
}

// addVeth makes a pair of devices and sets them up. Both ends are gone when one is deleted.
func addVeth(t testing.TB, name, peer string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = name, 1, 1
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil {
		t.Skipf("needs veth: %v", err)
	}
	setLink(t, peer, true)
	setLink(t, name, true)
}

func setLink(t testing.TB, name string, up bool) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	set := netlink.LinkSetDown
	if up {
		set = netlink.LinkSetUp
	}
	if err := set(l); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func deleteLink(t testing.TB, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
}

// program redirects every frame of the device to the socket of its queue and passes it where there is none.
type program struct {
	xskmap *ebpf.Map
	link   link.Link
	key    uint32
}

func attach(t testing.TB, ifname, mode string) *program {
	t.Helper()
	xskmap, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	if err != nil {
		t.Skipf("needs XSKMAP: %v", err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:    ebpf.XDP,
		License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), // xdp_md.rx_queue_index
			asm.LoadMapPtr(asm.R1, xskmap.FD()),
			asm.Mov.Imm(asm.R3, 2), // XDP_PASS
			asm.FnRedirectMap.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		xskmap.Close()
		t.Skipf("needs XDP: %v", err)
	}
	defer prog.Close()
	l, err := netlink.LinkByName(ifname)
	if err != nil {
		t.Fatal(err)
	}
	flags := link.XDPDriverMode
	if mode == ModeGeneric {
		flags = link.XDPGenericMode
	}
	at, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index, Flags: flags})
	if err != nil {
		t.Fatalf("attach to %s in mode %s: %v", ifname, mode, err)
	}
	p := &program{xskmap: xskmap, link: at}
	t.Cleanup(p.close)
	return p
}

func (p *program) register(t testing.TB, q *Queue) {
	t.Helper()
	if err := p.xskmap.Put(p.key, uint32(q.SocketFD())); err != nil {
		t.Fatalf("register %s in the XSKMAP: %v", q.dev.name, err)
	}
}

func (p *program) close() {
	p.link.Close()
	p.xskmap.Close()
}

// far is a packet socket on the other end of a veth: a host that sends and receives whole frames.
type far struct{ fd int }

func openFar(t testing.TB, ifname string) *far {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &far{fd}
	t.Cleanup(f.close)
	for _, o := range [][3]int{
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			t.Fatal(err)
		}
	}
	f.bind(t, ifname)
	return f
}

func (f *far) bind(t testing.TB, ifname string) {
	t.Helper()
	l, err := netlink.LinkByName(ifname)
	if err != nil {
		t.Fatal(err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(f.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
}

func (f *far) close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

func (f *far) inject(b []byte) bool {
	_, err := unix.Write(f.fd, b)
	return err == nil
}

func (f *far) take(b []byte) (int, bool) {
	n, err := unix.Read(f.fd, b)
	return n, err == nil && n > 0
}

// umem makes a memory that panics on a chunk handed over twice and checks at the end that every chunk came back.
func testUmem(t testing.TB, o UmemOptions) *Umem {
	t.Helper()
	if o.Chunks == 0 {
		o.Chunks = 2048
	}
	o.Owners = true
	u, err := NewUmem(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, q := range u.queues {
			if q != nil {
				q.Close()
			}
		}
		if free := u.pool.Free(); free != o.Chunks && !t.Failed() {
			t.Errorf("%d of %d chunks came back", free, o.Chunks)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// port is a queue with its program and far end.
type port struct {
	*Queue
	*program
	far *far
}

// openPort makes the pair name, name+"p" and opens a queue on the former.
func openPort(t testing.TB, u *Umem, name string, o Options) *port {
	t.Helper()
	addVeth(t, name, name+"p")
	if o.RingSize == 0 {
		o.RingSize = 256
	}
	mode := o.Attached
	if mode == "" {
		mode = o.Mode
	}
	p := &port{program: attach(t, name, mode), far: openFar(t, name+"p")}
	q, err := Open(u, name, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	p.Queue = q
	p.register(t, q)
	return p
}

// Close resolves to the queue's.
func (p *port) Close() error { return p.Queue.Close() }

// testFrame is a frame that the kernel has no use for, numbered n.
func testFrame(n uint32, size int) []byte {
	b := make([]byte, size)
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	binary.BigEndian.PutUint32(b[14:], n)
	return b
}

// eventually calls f until it is true, for a few seconds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

// conserveT is what rapid's T and testing's have in common.
type conserveT interface {
	Helper()
	Fatalf(string, ...any)
}

// conserve checks that no chunk is lost or doubled: free, in queues and in hands are all there are, and the owner bytes agree.
func conserve(t conserveT, u *Umem, hands int) {
	t.Helper()
	held := 0
	for _, q := range u.queues {
		if q == nil {
			continue
		}
		held += q.Held()
		own := 0
		for _, o := range u.owner {
			if o == q.id {
				own++
			}
		}
		if own != q.Held() {
			t.Fatalf("%s holds %d chunks, but owns %d", q.dev.name, q.Held(), own)
		}
	}
	if free := u.pool.Free(); free+held+hands != u.pool.Chunks() {
		t.Fatalf("%d chunks free + %d in queues + %d in hands, want %d", free, held, hands, u.pool.Chunks())
	}
}

// place copies b into a free chunk.
func place(t testing.TB, u *Umem, b []byte) packet.Desc {
	t.Helper()
	addr, ok := u.pool.Get()
	if !ok {
		t.Fatal("no free chunk")
	}
	d := packet.Desc{Addr: addr + packet.Headroom, Len: uint32(len(b))}
	copy(u.pool.Bytes(d), b)
	return d
}
