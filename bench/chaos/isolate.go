package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"weir/control/host"
)

// insideKey is in the environment of a process that Isolate has started.
const insideKey = "WEIR_CHAOS_INSIDE"

// Isolate runs this program again, in a mount namespace of its own with a BPF file system in it, and exits as that one does: so pins outlive a balancer,
// never meet those of others, and are gone with the run. It returns in the program that is run again, and where a container forbids it.
func Isolate() {
	if os.Getenv(insideKey) == "" && os.Geteuid() == 0 {
		runtime.LockOSThread() // Pdeathsig is sent when the thread ends, not the process
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), insideKey+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		if c.Start() == nil {
			_ = c.Wait()
			os.Exit(c.ProcessState.ExitCode())
		}
		runtime.UnlockOSThread()
		return
	}
	// Of the mounts made here only this one is private; namespaces in /run/netns stay visible from outside.
	if unix.Mount("", "/sys", "", unix.MS_PRIVATE, "") != nil {
		_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err := unix.Mount("bpf", host.DefaultBPFFS, "bpf", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "no BPF file system of our own:", err)
	}
}
