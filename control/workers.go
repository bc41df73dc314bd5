package control

import (
	"fmt"
	"runtime"

	"weir/control/config"
	"weir/control/host"
)

// workerCPUs are the cores of the workers, -1 for one that is pinned to none. Automatic is one worker for each receive queue that the first
// AF_XDP port has in use; ports that have others are refused later, with the command that sets them.
func workerCPUs(cfg *config.Config) ([]int, error) {
	w := &cfg.Engine.Workers
	if len(w.CPUs) > 0 {
		return w.CPUs, nil
	}
	n := w.Count
	if n == 0 {
		var err error
		if n, err = receiveQueues(cfg); err != nil {
			return nil, err
		}
	}
	cpus := make([]int, n)
	for i := range cpus {
		cpus[i] = -1
		if all := runtime.NumCPU(); n < all {
			cpus[i] = all - n + i // the last cores: the first ones have the most interrupts, and control needs one for itself
		}
	}
	return cpus, nil
}

// receiveQueues is the number of receive queues that the first AF_XDP port has in use, 1 if there is no such port.
func receiveQueues(cfg *config.Config) (int, error) {
	h, err := host.Open()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	for i := range cfg.Ports {
		if cfg.Ports[i].Driver != "af_xdp" {
			continue
		}
		l, err := h.Link(cfg.Ports[i].Interface)
		if err != nil {
			return 0, fmt.Errorf("ports[%d] %s: %w", i, cfg.Ports[i].Name, err)
		}
		return max(l.Channels.Rx, 1), nil
	}
	return 1, nil
}
