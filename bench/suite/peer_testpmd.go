package suite

import (
	"errors"
	"fmt"
	"strings"
)

// testpmd is DPDK's own forwarder with MAC rewriting, on one core, over the vdevs of a driver. It polls without pause.
func testpmd(driver string) func(*session, *bed) (*running, error) {
	return func(s *session, b *bed) (*running, error) {
		if driver == "net_af_packet" {
			// A packet socket takes copies: the kernel must not forward each frame as well. And in a bed of hosts it must not merge them: testpmd has room for single ones.
			err := b.dut.Sysctl("net/ipv4/ip_forward", "0")
			if b.gen != nil {
				err = errors.Join(err, b.gro("d0", "d1"))
			}
			if err != nil {
				return nil, err
			}
		}
		args := []string{"--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--no-shconf"}
		for i := range 2 {
			args = append(args, fmt.Sprintf("--vdev=%s%d,iface=d%d", driver, i, i))
		}
		args = append(args, "-l", fmt.Sprintf("%d,%d", s.CPUs[0], s.CPUs[1]), "--main-lcore", fmt.Sprint(s.CPUs[0]), "--", "--forward-mode=mac",
			"--eth-peer=0,"+macG0, "--eth-peer=1,"+macG1, "--no-mlockall", "--nb-cores=1", "--total-num-mbufs=32768", "--auto-start", "-i")
		r, err := spawnSaying(b, "testpmd>", "dpdk-testpmd", args...)
		if err != nil {
			return nil, err
		}
		r.target, r.mode = direct(), strings.TrimPrefix(driver, "net_")+" vdev"
		return r, nil
	}
}
