package control

import (
	"os"

	"golang.org/x/sys/unix"
)

// tableFile is the memory of the connection table: a file without a name, so that it can be handed on to another process.
func tableFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("weir-conntrack", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "weir-conntrack"), nil
}
