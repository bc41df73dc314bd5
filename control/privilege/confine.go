package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// confined is in the environment of a program that Confine has executed.
const confined = "WEIR_CONFINED"

// Confine has the program go on with no more rights than it needs, as user if that is not empty, which takes root. It executes the program anew, in
// the same process and with the same arguments, and returns nil in there; what comes before it is done twice. prepare, if not nil, is
// called first, with all the rights that there are and the user's and the group's number.
//
// Who has none of the rights goes on as he is: Check tells him.
func Confine(as string, prepare func(uid, gid int) error) error {
	if os.Getenv(confined) != "" {
		return os.Unsetenv(confined)
	}
	now, err := current()
	if err != nil {
		return err
	}
	uid, gid, groups := os.Geteuid(), os.Getegid(), []int(nil)
	change := false
	if as != "" {
		id, err := lookup(as)
		if err != nil {
			return err
		}
		if change = id.uid != uid; change && (!now.permitted.has(unix.CAP_SETUID) || !now.permitted.has(unix.CAP_SETGID)) {
			return fmt.Errorf("--user %s: CAP_SETUID and CAP_SETGID are missing: %w", as, unix.EPERM)
		}
		if change {
			uid, gid, groups = id.uid, id.gid, id.groups
			if prepare != nil {
				if err := prepare(uid, gid); err != nil {
					return err
				}
			}
		}
	}
	keep := now.permitted & of(needed, kept)
	if uid == 0 {
		keep |= now.permitted & of(roots)
	}
	if unlocked() {
		keep &^= 1 << unix.CAP_IPC_LOCK
	}
	if keep == 0 {
		return nil
	}
	none, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && none == 1 && !change && now.permitted == keep {
		return nil // the service manager has done it
	}
	path, err := executable()
	if err != nil {
		return err
	}
	// From here on this thread alone is another; execve makes it the only one.
	runtime.LockOSThread()
	if err := drop(now, keep, change, uid, gid, groups); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	err = syscall.Exec(path, os.Args, append(os.Environ(), confined+"=1"))
	return fmt.Errorf("execute %s as user %d: %w (must this user be able to reach and to execute it?)", path, uid, err)
}

// drop leaves the calling thread the rights in keep, as user uid if change says so.
func drop(now sets, keep set, change bool, uid, gid int, groups []int) error {
	if now.effective.has(unix.CAP_SETPCAP) {
		for bit := uintptr(0); bit < 64; bit++ {
			if !keep.has(uint(bit)) {
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, bit, 0, 0, 0); errors.Is(err, unix.EINVAL) {
					break // one beyond the last that the kernel knows
				} else if err != nil {
					return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
				}
			}
		}
	}
	if change {
		// Raw, as Go's own would change all threads, and those of a program that is linked with C not at all.
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl PR_SET_KEEPCAPS", err)
		}
		if err := setIDs(uid, gid, groups); err != nil {
			return err
		}
	}
	if err := (sets{keep, keep, keep}).apply(); err != nil {
		return err
	}
	if uid != 0 { // root's come back by themselves, as far as the bounding set has them
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl PR_CAP_AMBIENT_CLEAR_ALL", err)
		}
		for bit := uint(0); bit < 64; bit++ {
			if keep.has(bit) {
				if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(bit), 0, 0); err != nil {
					return fmt.Errorf("prctl PR_CAP_AMBIENT_RAISE %s: %w", name(bit), err)
				}
			}
		}
	}
	return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// unlocked raises the limit of locked memory if that is allowed, and reports whether there is none now.
func unlocked() bool {
	infinite := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &infinite)
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == unix.RLIM_INFINITY
}

// identity is a user's number, that of his group, and those of all his groups.
type identity struct {
	uid, gid int
	groups   []int
}

// Lookup finds a user's number and that of his group.
func Lookup(name string) (uid, gid int, err error) {
	id, err := lookup(name)
	return id.uid, id.gid, err
}

func lookup(name string) (id identity, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return id, fmt.Errorf("--user %s: %w", name, err)
	}
	if id.uid, err = strconv.Atoi(u.Uid); err != nil {
		return id, fmt.Errorf("--user %s: user %s: %w", name, u.Uid, err)
	}
	if id.gid, err = strconv.Atoi(u.Gid); err != nil {
		return id, fmt.Errorf("--user %s: group %s: %w", name, u.Gid, err)
	}
	all, err := u.GroupIds()
	if err != nil {
		return id, fmt.Errorf("--user %s: its groups: %w", name, err)
	}
	for _, g := range all {
		n, err := strconv.Atoi(g)
		if err != nil {
			return id, fmt.Errorf("--user %s: group %s: %w", name, g, err)
		}
		id.groups = append(id.groups, n)
	}
	return id, nil
}

// executable is the path of this program. One that has been replaced since it was started is executed as it was.
func executable() (string, error) {
	const self = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	named, err := os.Stat(path)
	ours, err2 := os.Stat(self)
	if err != nil || err2 != nil || !os.SameFile(named, ours) {
		return self, nil
	}
	return path, nil
}
