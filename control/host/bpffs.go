package host

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultBPFFS is where distributions mount the BPF file system.
const DefaultBPFFS = "/sys/fs/bpf"

// ErrNoBPFFS says that nothing can be pinned: the steering program and its maps go with the process.
var ErrNoBPFFS = errors.New("no BPF file system is mounted where weir can write; mount one: mount -t bpf bpf " + DefaultBPFFS +
	" (`ip netns exec` hides it: use `nsenter --net=/run/netns/NAME`)")

// FindBPFFS returns a directory on a BPF file system in which this process can pin: want if it is not empty, else DefaultBPFFS, else
// any other mount. Without one the error is ErrNoBPFFS, worded for want.
func FindBPFFS(want string) (string, error) {
	if want != "" {
		if why := unfit(want); why != nil {
			return "", fmt.Errorf("bpffs %s: %w: %w", want, why, ErrNoBPFFS)
		}
		return want, nil
	}
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		mounts = nil // without /proc the default may still be there
	}
	for _, dir := range append([]string{DefaultBPFFS}, bpfMounts(string(mounts))...) {
		if unfit(dir) == nil {
			return dir, nil
		}
	}
	return "", ErrNoBPFFS
}

// unfit says why nothing can be pinned in dir, or nil.
func unfit(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return errors.New("not a BPF file system")
	}
	return unix.Access(dir, unix.W_OK|unix.X_OK)
}

// bpfMounts are the mount points of type bpf in a mountinfo file (proc(5)), which escapes blanks in octal.
func bpfMounts(mountinfo string) []string {
	var out []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if len(f) > 4 && dash > 4 && len(f) > dash+1 && f[dash+1] == "bpf" {
			out = append(out, unescape.Replace(f[4]))
		}
	}
	return out
}
