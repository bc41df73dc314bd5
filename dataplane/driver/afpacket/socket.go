package afpacket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// sockets of a queue. There are two, because one with PACKET_VNET_HDR wants that header before each frame it sends as well.
type sockets struct {
	rx, tx int
	index  int32 // of the device
	mtu    int
}

var noSockets = sockets{rx: -1, tx: -1}

const (
	ethernetHeader = 14
	vlanTag        = 4
	sendBuffer     = 4 << 20 // bytes; the default is some 200 small frames
	blockBytes     = 64 << 10
)

// open makes both sockets and the ring. The receiving socket hears nothing until it is bound to the device; bound at once, it would
// hear all devices until its options are set.
func (q *Queue) open() (err error) {
	s, joined := noSockets, false
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.rx, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return q.fault("socket", err)
	}
	if s.tx, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return q.fault("socket", err)
	}
	flags := uint16(0)
	if s.index, flags, s.mtu, err = device(s.rx, q.name); err != nil {
		return q.fault("look up", err)
	}
	for _, o := range []struct {
		name       string
		fd, option int
		value      int
	}{
		{"PACKET_VERSION", s.rx, unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", s.rx, unix.PACKET_VNET_HDR, 1}, // says where a checksum is missing, and what is merged
		{"PACKET_IGNORE_OUTGOING", s.rx, unix.PACKET_IGNORE_OUTGOING, 1},
		{"PACKET_QDISC_BYPASS", s.tx, unix.PACKET_QDISC_BYPASS, btoi(!q.opts.Qdisc)},
	} {
		err := unix.SetsockoptInt(o.fd, unix.SOL_PACKET, o.option, o.value)
		if err != nil && !(o.option == unix.PACKET_IGNORE_OUTGOING && err == unix.ENOPROTOOPT) { // Linux before 4.20: Receive skips them
			return q.fault("setsockopt "+o.name, err)
		}
	}
	if unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // as far as net.core.wmem_max allows; a smaller one sends in smaller bursts
	}

	room := min(s.mtu+ethernetHeader+vlanTag, q.chunkRoom()) // the longest frame, without the tag that is put aside
	slot := 1 << bits.Len(uint(slotHead+room-1))
	block := max(slot, min(blockBytes, slot*q.opts.RingFrames))
	req := unix.TpacketReq{Block_size: uint32(block), Block_nr: uint32(slot * q.opts.RingFrames / block),
		Frame_size: uint32(slot), Frame_nr: uint32(q.opts.RingFrames)}
	if err := unix.SetsockoptTpacketReq(s.rx, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return q.fault(fmt.Sprintf("setsockopt PACKET_RX_RING of %d frames of %d bytes", q.opts.RingFrames, slot), err)
	}
	mem, err := unix.Mmap(s.rx, 0, slot*q.opts.RingFrames, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return q.fault("mmap the ring", err)
	}
	defer func() {
		if err != nil {
			unix.Munmap(mem)
		}
	}()

	addr := unix.SockaddrLinklayer{Ifindex: int(s.index), Protocol: htons(unix.ETH_P_ALL)}
	if err := unix.Bind(s.rx, &addr); err != nil {
		return q.fault("bind", err)
	}
	addr.Protocol = 0 // hears nothing
	if err := unix.Bind(s.tx, &addr); err != nil {
		return q.fault("bind", err)
	}
	if q.opts.Promiscuous {
		m := unix.PacketMreq{Ifindex: s.index, Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(s.rx, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return q.fault("setsockopt PACKET_ADD_MEMBERSHIP", err)
		}
	}
	if isUp(flags) { // a socket of a device that is down cannot join; look does it later
		if err := q.join(s.rx); err != nil {
			return err
		}
		joined = true
	}
	q.sock, q.joined = s, joined
	q.rx = newRxRing(mem, slot, room)
	return nil
}

// join joins the fanout group if there is one.
func (q *Queue) join(fd int) error {
	if q.opts.Fanout == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(q.opts.Fanout)|q.opts.FanoutMode<<16); err != nil {
		return q.fault(fmt.Sprintf("setsockopt PACKET_FANOUT group %d", q.opts.Fanout), err)
	}
	return nil
}

// shut closes what open made. What is in the ring is lost.
func (q *Queue) shut() error {
	q.counter.unread.Add(q.rx.waiting())
	mem := q.rx.mem
	q.rx = rxRing{}
	err := q.sock.close()
	q.sock, q.joined = noSockets, false
	if mem != nil {
		err = errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(mem)))
	}
	return err
}

func (s *sockets) close() (err error) {
	for _, fd := range []int{s.rx, s.tx} {
		if fd >= 0 {
			err = errors.Join(err, os.NewSyscallError("close", unix.Close(fd)))
		}
	}
	*s = noSockets
	return err
}

// device looks a device up by name.
func device(fd int, name string) (index int32, flags uint16, mtu int, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, 0, 0, err
	}
	if err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, 0, 0, err
	}
	index = int32(ifr.Uint32())
	if err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return 0, 0, 0, err
	}
	flags = ifr.Uint16()
	if err = unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr); err != nil {
		return 0, 0, 0, err
	}
	return index, flags, int(ifr.Uint32()), nil
}

// isUp says whether the device is switched on and has a carrier.
func isUp(flags uint16) bool { return flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0 }

// fault names call, object and cure of a failed system call.
func (q *Queue) fault(call string, err error) error {
	cure := ""
	switch {
	case errors.Is(err, unix.EPERM):
		cure = " (CAP_NET_RAW is missing: run as root, or setcap cap_net_raw+ep)"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		cure = " (no such device in this network namespace: ip link)"
	case errors.Is(err, unix.ENOMEM):
		cure = " (a smaller ring needs less memory)"
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT):
		cure = " (this kernel has no packet sockets: modprobe af_packet)"
	case call != "bind" && errors.Is(err, unix.EINVAL) && q.opts.Fanout != 0:
		cure = " (is the group used on another device or in another mode?)"
	}
	return fmt.Errorf("%s for %s: %w%s", call, q.name, err, cure)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// htons puts a number into network byte order, as the kernel wants protocol numbers.
func htons(v uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}) }

// chunkRoom is the length of the longest frame that a chunk holds, in bytes.
func (q *Queue) chunkRoom() int { return q.pool.ChunkSize() - packet.Headroom }
