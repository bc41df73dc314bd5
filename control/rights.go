package control

import (
	"weir/control/config"
	"weir/control/privilege"
)

// checkRights names every right that the process lacks. The error is EPERM.
func checkRights(cfg *config.Config) error { return privilege.Check(leastLocked(cfg)) }

// leastLocked is the frame memory in bytes that one worker has: the kernel locks it for AF_XDP sockets. More workers have more.
func leastLocked(cfg *config.Config) uint64 {
	devices := map[string]bool{}
	xdp := false
	for i := range cfg.Ports {
		devices[cfg.Ports[i].Interface] = true
		xdp = xdp || cfg.Ports[i].Driver == "af_xdp"
	}
	if !xdp {
		return 0
	}
	return uint64(4*len(devices)+2) * ringSize * 2048
}
