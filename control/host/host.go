// Package host is all that weir asks of the Linux host and does to it: by netlink, by ioctl, under /proc/sys and through a TUN device.
//
// A [Host] is bound to the network namespace of the thread that opened it, and every method works there, whichever goroutine calls
// it. What is read (links, routes, neighbours) is the kernel's and stays so. What is done is small, is marked, and can be undone:
//
//	offloads, sysctls   restored by the function or Close that their setter returned
//	neighbours, VIPs    carry the protocol number [Protocol]; Release takes them away, cleanup finds what a killed weir left
//	reserved ports      bear no mark: a file says which are ours; Release and cleanup as above
//	weir0               a TUN device that is not persistent: it goes with the process
//
// Nothing here is on a packet's way but [TUN.Write]. A method that fails names the call, its object and, where one is known, the cure.
package host

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Protocol marks what weir adds to the host: the NDA_PROTOCOL of neighbours, the IFA_PROTO of addresses and the protocol of routes. It lies above the
// numbers that rtnetlink.h reserves (RTPROT_*) and that iproute2's rt_protos names; `ip neigh` shows it as "proto 87".
const Protocol = 0x57

// Host is one network namespace. Its methods may be called from any goroutine.
type Host struct {
	dev uint64
	ino uint64

	mu   sync.RWMutex
	ns   int               // file descriptor of the namespace; -1 once closed. Held by mu while it is used, as its number may become another's
	idle *nl.NetlinkSocket // one that nobody uses now, or nil: to make one for each of ten thousand addresses takes longer than to add them
}

const nsPath = "/proc/thread-self/ns/net"

// Open binds to the network namespace that the calling goroutine's thread is in. A goroutine that is not locked to its thread is in
// the namespace of the process.
func Open() (*Host, error) {
	fd, err := unix.Open(nsPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (is /proc mounted?)", nsPath, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stat %s: %w", nsPath, err)
	}
	return &Host{ns: fd, dev: st.Dev, ino: st.Ino}, nil
}

// Close lets go of the namespace. What was done to the host stays done; undo it before. Methods fail with os.ErrClosed from now on.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ns < 0 {
		return nil
	}
	err := unix.Close(h.ns)
	h.ns = -1
	if h.idle != nil {
		h.idle.Close()
		h.idle = nil
	}
	return err
}

// enter takes the calling thread into the namespace.
func (h *Host) enter() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.ns < 0 {
		return fmt.Errorf("network namespace %d: %w", h.ino, os.ErrClosed)
	}
	return fail("setns", fmt.Sprintf("network namespace %d", h.ino), unix.Setns(h.ns, unix.CLONE_NEWNET))
}

// Namespace is the inode of the namespace, as `ls -L -i /run/netns/NAME` prints it. It names the namespace until it is gone.
func (h *Host) Namespace() uint64 { return h.ino }

// in runs f on a thread that is in h's namespace. Mostly that is the caller's own thread, and then no right is needed; otherwise f
// runs on another thread, which CAP_SYS_ADMIN lets into the namespace.
func (h *Host) in(f func() error) error {
	runtime.LockOSThread()
	var st unix.Stat_t
	if err := unix.Stat(nsPath, &st); err == nil && st.Dev == h.dev && st.Ino == h.ino {
		defer runtime.UnlockOSThread()
		return f()
	}
	runtime.UnlockOSThread()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		old, err := unix.Open(nsPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open %s: %w", nsPath, err)
			return
		}
		defer unix.Close(old)
		if err := h.enter(); err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		err = f()
		// A thread that cannot go back stays locked, so that the runtime ends it with this goroutine.
		if unix.Setns(old, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// fail words a system call's error: the call, its object, the cause, and the cure where the cause has one.
func fail(call, object string, err error) error {
	if err == nil {
		return nil
	}
	cure := ""
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		cure = " (needs root, or CAP_NET_ADMIN and CAP_NET_RAW; CAP_SYS_ADMIN for another namespace)"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		cure = " (no such interface in this network namespace; see `ip link`)"
	case errors.Is(err, unix.EOPNOTSUPP):
		cure = " (the driver or the kernel does not know it)"
	case errors.Is(err, unix.EROFS):
		cure = " (mounted read-only, as in a container: set it from outside)"
	}
	return fmt.Errorf("%s %s: %w%s", call, object, err, cure)
}

// isGone says that the device of a call is not there any more.
func isGone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) }

// dumpTries bounds how often a dump that the kernel changed under us (NLM_F_DUMP_INTR) is begun anew.
const dumpTries = 5

// socket opens a netlink socket in h's namespace. Strict checking (Linux 4.20) makes the kernel heed the filters in a dump's header
// instead of ignoring them; on older ones more comes back, and the parsers filter again.
func (h *Host) socket() (*nl.NetlinkSocket, error) {
	var s *nl.NetlinkSocket
	err := h.in(func() (err error) {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fail("socket", "NETLINK_ROUTE", err)
	}
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	if err := s.SetReceiveTimeout(&nl.SocketTimeoutTv); err != nil {
		s.Close()
		return nil, fail("setsockopt", "NETLINK_ROUTE", err)
	}
	return s, nil
}

// borrowed is the idle socket, or another one.
func (h *Host) borrowed() (*nl.NetlinkSocket, error) {
	h.mu.Lock()
	s := h.idle
	h.idle = nil
	h.mu.Unlock()
	if s != nil {
		return s, nil
	}
	return h.socket()
}

// returned makes a socket on which nothing is under way the idle one, unless there is one already.
func (h *Host) returned(s *nl.NetlinkSocket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle != nil || h.ns < 0 {
		s.Close()
		return
	}
	h.idle = s
}

// request sends one message and waits for the acknowledgement. Replies, of which there are some for a get, go to each.
func (h *Host) request(typ uint16, flags int, each func(msg []byte), body ...nl.NetlinkRequestData) error {
	s, err := h.borrowed()
	if err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(int(typ), flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	req.Data = body
	err = req.ExecuteIter(unix.NETLINK_ROUTE, 0, func(msg []byte) bool {
		if each != nil {
			each(msg)
		}
		return true
	})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) { // which only the kernel's answer says, else there may be more to come on it
		s.Close()
		return err
	}
	h.returned(s)
	return err
}

// dump reads a whole table of the kernel. reset is called before each attempt, so that a dump which was interrupted by a change leaves
// nothing behind; after dumpTries of those the last is taken, as the watch tells of what changed meanwhile.
func (h *Host) dump(typ uint16, reset func(), each func(msg []byte), body ...nl.NetlinkRequestData) error {
	var err error
	for range dumpTries {
		reset()
		err = h.request(typ, unix.NLM_F_DUMP, each, body...)
		if !errors.Is(err, unix.EINTR) { // nl.ErrDumpInterrupted is one, too
			return err
		}
	}
	return nil
}

// bootID tells one boot from the next, for files that outlive the process. Empty when /proc does not say.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(b[:max(0, len(b)-1)])
}
