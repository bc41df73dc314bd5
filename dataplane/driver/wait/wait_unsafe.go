package wait

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollWait is epoll_pwait2(2), which unlike epoll_wait takes less than a millisecond (Linux 5.11).
func epollWait(epoll int, events []unix.EpollEvent, limit *unix.Timespec) (n int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(limit)), 0, 0)
	return int(r), errno
}

// signalSet has one signal in it: the kernel's sigset_t.
func signalSet(number int) uint64 { return 1 << (number - 1) }

const signalSetSize = 8

// maskSignal blocks or unblocks one signal in the calling thread's mask. Raw: the mask is the thread's, and the thread must not be left
// in between.
func maskSignal(how, number int) unix.Errno {
	set := signalSet(number)
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, uintptr(how), uintptr(unsafe.Pointer(&set)), 0, signalSetSize, 0, 0)
	return errno
}

// setOwner directs the signals of fd to one thread.
func setOwner(fd, thread int) unix.Errno {
	const ownerTID = 0 // F_OWNER_TID
	owner := struct{ kind, id int32 }{ownerTID, int32(thread)}
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner)))
	return errno
}

// band is what a descriptor's signal says.
type band struct {
	fd     int // -1: the signal is not a descriptor's
	events int // as in pollfd.revents
}

// siginfo is the kernel's siginfo_t, as far as SIGPOLL fills it, on 64-bit machines.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	band               int64
	fd                 int32
	_                  [128 - 28]byte
}

// takeSignal waits for the blocked signal at most for limit, or without limit if that is nil, and takes it.
func takeSignal(number int, limit *unix.Timespec) (band, unix.Errno) {
	const siUser = 0
	set := signalSet(number)
	var info siginfo
	_, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&info)),
		uintptr(unsafe.Pointer(limit)), signalSetSize, 0, 0)
	if errno != 0 {
		return band{fd: -1}, errno
	}
	if info.code <= siUser { // by tgkill, kill or sigqueue
		return band{fd: -1}, 0
	}
	return band{fd: int(info.fd), events: int(info.band)}, 0
}
