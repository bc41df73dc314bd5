package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultBPFFS is where distributions mount the BPF file system. Root alone may enter it.
const DefaultBPFFS = "/sys/fs/bpf"

// OwnBPFFS is where weir has one of its own, if it runs as another user.
const OwnBPFFS = "/run/weir/bpf"

// ErrNoBPFFS says that nothing can be pinned: the steering program and its maps go with the process.
var ErrNoBPFFS = errors.New("no BPF file system is mounted where weir can write; mount one: mount -t bpf bpf " + DefaultBPFFS +
	" (`ip netns exec` hides it: use `nsenter --net=/run/netns/NAME`)")

// FindBPFFS returns a directory on a BPF file system in which this process can pin: want if it is not empty, else OwnBPFFS, else
// DefaultBPFFS, else any other mount. Without one the error is ErrNoBPFFS, worded for want.
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
	for _, dir := range append([]string{OwnBPFFS, DefaultBPFFS}, bpfMounts(string(mounts))...) {
		if unfit(dir) == nil {
			return dir, nil
		}
	}
	return "", ErrNoBPFFS
}

// MountBPFFS mounts one at dir, unless there is one, and makes it that user's. The kernel takes the owner as an option from Linux 6.8 on, so it is
// changed afterwards, which it always takes.
func MountBPFFS(dir string, uid, gid int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fail("statfs", dir, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700"); err != nil {
			return fmt.Errorf("mount -t bpf bpf %s: %w", dir, err)
		}
	}
	return GiveTree(dir, uid, gid)
}

// GiveTree makes a directory and all that is in it a user's, links themselves and not what they lead to. One that is his already is left alone: root
// must not walk a tree in which another may put links while he does.
func GiveTree(dir string, uid, gid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil || int(st.Uid) == uid && int(st.Gid) == gid {
		return fail("stat", dir, err)
	}
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has gone meanwhile
		}
		if err == nil && path != dir && d.IsDir() && d.Name() == filepath.Base(OwnBPFFS) {
			return fs.SkipDir // another file system
		}
		paths = append(paths, path)
		return err
	})
	for _, path := range slices.Backward(paths) { // the directory last: until then its inhabitants can be changed by root alone
		if e := os.Lchown(path, uid, gid); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
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
