// Package privilege gives the daemon the rights that it needs, and no others.
//
// What it needs it needs for as long as it runs: a device that comes back gets its program, its sockets and its VIPs anew. So the rights are not
// dropped after the set-up but before it: Confine executes the program again, as another user if one is named, with those capabilities alone
// and with no_new_privs, so that nothing it ever executes has more. The credentials of a process are those of its threads, each its own; an execve makes
// all of them the same, which changing them one thread at a time, under a scheduler that makes threads as it likes, does not.
package privilege

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one right of capabilities(7), and what the daemon needs it for.
type Capability struct {
	Bit  uint
	Name string
	Why  string
}

// needed are the rights without which nothing works.
var needed = []Capability{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "XDP, addresses, neighbours, offloads, network settings"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "AF_XDP and packet sockets, ICMP checks"},
	{unix.CAP_BPF, "CAP_BPF", "the steering program and its maps"},
	{unix.CAP_PERFMON, "CAP_PERFMON", "the verifier lets a program without it compute no packet addresses"},
}

// kept are rights that are used where there are any.
var kept = []Capability{
	{unix.CAP_IPC_LOCK, "CAP_IPC_LOCK", "memory of AF_XDP sockets beyond `ulimit -l`"},
	{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "admin.http on a port below 1024"},
}

// roots are those that root keeps besides: it is used to reading its files wherever they are.
var roots = []Capability{
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "configuration, tokens and sockets in other users' directories"},
	{unix.CAP_CHOWN, "CAP_CHOWN", "the admin socket is of group weir"},
}

// set is a set of capabilities, by bit.
type set uint64

func of(lists ...[]Capability) (s set) {
	for _, l := range lists {
		for _, c := range l {
			s |= 1 << c.Bit
		}
	}
	return s
}

func (s set) has(bit uint) bool { return s>>bit&1 != 0 }

// sets are the calling thread's.
type sets struct{ effective, permitted, inheritable set }

func current() (s sets, err error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&hdr, &d[0]); err != nil {
		return s, os.NewSyscallError("capget", err)
	}
	join := func(low, high uint32) set { return set(low) | set(high)<<32 }
	return sets{join(d[0].Effective, d[1].Effective), join(d[0].Permitted, d[1].Permitted), join(d[0].Inheritable, d[1].Inheritable)}, nil
}

// apply makes s the calling thread's.
func (s sets) apply() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := [2]unix.CapUserData{
		{Effective: uint32(s.effective), Permitted: uint32(s.permitted), Inheritable: uint32(s.inheritable)},
		{Effective: uint32(s.effective >> 32), Permitted: uint32(s.permitted >> 32), Inheritable: uint32(s.inheritable >> 32)},
	}
	return os.NewSyscallError("capset", unix.Capset(&hdr, &d[0]))
}

// Check names every right that the daemon needs and lacks. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in the kernel. lock is the memory
// in bytes that sockets will lock at least. The error is EPERM.
func Check(lock uint64) error {
	now, err := current()
	if err != nil {
		return err
	}
	var missing []string
	lacks := func(c Capability) { missing = append(missing, fmt.Sprintf("%s (%s)", c.Name, c.Why)) }
	for _, c := range needed {
		admin := (c.Bit == unix.CAP_BPF || c.Bit == unix.CAP_PERFMON) && now.effective.has(unix.CAP_SYS_ADMIN)
		if !now.effective.has(c.Bit) && !admin {
			lacks(c)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil && limit.Cur < lock && !now.effective.has(unix.CAP_IPC_LOCK) {
		lacks(Capability{Name: "CAP_IPC_LOCK", Why: fmt.Sprintf("or a limit of locked memory, ulimit -l, of more than %d KiB; it is %d KiB", lock>>10, limit.Cur>>10)})
	}
	if len(missing) > 0 {
		return fmt.Errorf("run it as root, or give it %s: %w", strings.Join(missing, ", "), unix.EPERM)
	}
	return nil
}

// Names are the rights that the process has, in the order of their numbers, and those of which nothing is known here as numbers.
func Names() (names []string) {
	now, err := current()
	if err != nil {
		return nil
	}
	for bit := range uint(64) {
		if now.effective.has(bit) {
			names = append(names, name(bit))
		}
	}
	return names
}

func name(bit uint) string {
	for _, l := range [][]Capability{needed, kept, roots} {
		for _, c := range l {
			if c.Bit == bit {
				return c.Name
			}
		}
	}
	return fmt.Sprintf("cap_%d", bit)
}
