package privilege

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Shed calls start on a thread that has no capabilities, so that a program which start begins has none: those that this program was given for others to
// inherit (ambient ones) would else be any checking script's. Root's children are root, whatever is done here, so for root it just calls start.
func Shed(start func() error) error {
	if os.Geteuid() == 0 {
		return start()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()            // and not unlocked: the thread ends with the goroutine, as it is of no use to others any more
		if unix.Gettid() == os.Getpid() { // the first thread cannot end, and is who /proc shows as the process
			done <- Shed(start) // on another one, as this one is taken
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			done <- os.NewSyscallError("prctl PR_CAP_AMBIENT_CLEAR_ALL", err)
			return
		}
		if err := (sets{}).apply(); err != nil {
			done <- err
			return
		}
		done <- start()
	}()
	return <-done
}
