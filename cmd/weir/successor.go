package main

import (
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"weir/control/systemd"
)

// takeoverFlag makes `weir run` a takeover.
const takeoverFlag = "--takeover"

// takesOver reports whether an argument is the flag, on or off.
func takesOver(arg string) bool {
	return arg == takeoverFlag || strings.HasPrefix(arg, takeoverFlag+"=")
}

// successor begins the program that is installed where this one was, with the same arguments, to take over from this process. It is a child until this
// one ends. Whatever it says it says where this one does; its end, should it come before ours, is logged.
func successor(m *systemd.Manager, log *slog.Logger) error {
	path, err := os.Executable() // by name: another program may be there by now, which is what it is for
	if err != nil {
		return err
	}
	c := exec.Command(path, append(slices.DeleteFunc(slices.Clone(os.Args[1:]), takesOver), takeoverFlag)...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), m.Environ()...)
	if err := c.Start(); err != nil {
		return err
	}
	log.Info("upgrade: a successor begins", "kind", "takeover", "pid", c.Process.Pid, "program", path)
	go func() {
		if err := c.Wait(); err != nil {
			log.Error("upgrade: the successor ended, this process goes on", "kind", "takeover", "pid", c.Process.Pid, "err", err)
		}
	}()
	return nil
}

// again begins this program anew in this process, to start as after a crash. It returns only if it cannot.
func again(m *systemd.Manager) error {
	args := slices.DeleteFunc(slices.Clone(os.Args), takesOver)
	return os.NewSyscallError("execve", syscall.Exec("/proc/self/exe", args, append(os.Environ(), m.Environ()...)))
}
