package control

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// rights are the capabilities that a daemon needs, and what for.
var rights = []struct {
	bit  uint
	name string
	why  string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "XDP, addresses, neighbours"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "AF_XDP and packet sockets"},
	{unix.CAP_BPF, "CAP_BPF", "the steering program"},
}

// checkRights names every capability that the process lacks. CAP_SYS_ADMIN stands for CAP_BPF, as in the kernel. The error is EPERM.
func checkRights() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	has := func(bit uint) bool { return data[bit/32].Effective>>(bit%32)&1 != 0 }
	var missing []string
	for _, r := range rights {
		if !has(r.bit) && !(r.bit == unix.CAP_BPF && has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, fmt.Sprintf("%s (%s)", r.name, r.why))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("run it as root, or give it %s: %w", strings.Join(missing, ", "), unix.EPERM)
	}
	return nil
}
