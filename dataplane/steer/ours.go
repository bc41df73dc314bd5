package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// xdpName is what the kernel calls our XDP program (`ip link`, `bpftool prog`).
const xdpName = "weir_steer"

// Ours reports whether the program of that number is a steering program, be it a dead weir's. It needs CAP_BPF, or CAP_SYS_ADMIN on older kernels.
func Ours(id uint32) (bool, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return false, fmt.Errorf("whose XDP program %d is: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return false, fmt.Errorf("whose XDP program %d is: %w", id, err)
	}
	return info.Name == xdpName, nil
}
