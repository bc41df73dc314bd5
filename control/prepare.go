package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"weir/control/host"
)

// runDir is where a running weir notes what it has added to the host.
const runDir = "/run/weir"

// Prepare makes what only root can and a weir of another user needs: its directory in /run, a BPF file system that it can pin in, and DefaultSocket as
// a link into the directory. Done again it changes nothing but owners, of what a weir that was root's has left.
func Prepare(uid, gid int) error {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return err
	}
	if err := host.MountBPFFS(host.OwnBPFFS, uid, gid); err != nil {
		return err
	}
	if err := host.GiveTree(runDir, uid, gid); err != nil {
		return err
	}
	return linkSocket(DefaultSocket, filepath.Join(runDir, filepath.Base(DefaultSocket)))
}

// linkSocket makes path a link to where the socket will be. A socket on which a weir answers stays: the next one is to say so.
func linkSocket(path, to string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&os.ModeSymlink != 0:
		if was, err := os.Readlink(path); err == nil && was == to {
			return nil
		}
		return fmt.Errorf("%s: a link to somewhere else is in the way", path)
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("admin socket %s: a file of that name is in the way", path)
	default:
		if _, err := peerPID(path); err == nil {
			return nil
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("admin socket: stale: %w", err)
		}
	}
	return os.Symlink(to, path)
}
