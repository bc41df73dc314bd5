package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"weir/control"
)

// weirPorts is the part that all of the daemon's configurations have: its CPUs, and the two devices.
func weirPorts(cpus string) string {
	return fmt.Sprintf(`version: 1
engine:
  workers: {cpus: %q}
  wait: adaptive
  state_dir: none
ports:
  - {name: wan, interface: d0, xdp_send: live}
  - {name: lan, interface: d1, xdp_send: live}
`, cpus)
}

// weirConfig is the daemon's configuration: NAT for UDP and TCP, round robin, as nftables is told. It sends live frames where the far end takes them.
func weirConfig(cpus string, conns int, weights [servers]int) string {
	text := weirPorts(cpus) + fmt.Sprintf("conntrack: {max_connections: %d}\nservices:\n", conns)
	for _, s := range []struct {
		name, protocol string
		vip, port      int
	}{{"dns", "udp", vipPort, port}, {"web", "tcp", vipHTTP, httpPort}, {"stream", "tcp", iperfPort, iperfPort}} {
		text += fmt.Sprintf("  - name: %s\n    vip: %s\n    port: %d\n    protocol: %s\n    scheduler: wrr\n    forward: nat\n    backends:\n", s.name, vip, s.vip, s.protocol)
		for i, w := range weights {
			text += fmt.Sprintf("      - {address: %s, port: %d, weight: %d}\n", nth(i), s.port, w)
		}
	}
	return text
}

func startWeir(s *session, b *bed) (*running, error) {
	return startWeirWith(s, b, weirConfig(fmt.Sprint(s.CPUs[1]), 1<<20, [servers]int{1, 1}))
}

// startWeirBy has weir's ports send otherwise than by live frames: by the rings of their sockets, as the bare forwarder and testpmd do, or by another driver.
func startWeirBy(port string) func(*session, *bed) (*running, error) {
	return func(s *session, b *bed) (*running, error) {
		return startWeirWith(s, b, strings.ReplaceAll(weirConfig(fmt.Sprint(s.CPUs[1]), 1<<20, [servers]int{1, 1}), "xdp_send: live", port))
	}
}

// startWeirWith starts the daemon with a configuration and waits until it answers.
func startWeirWith(s *session, b *bed, config string) (*running, error) {
	file, socket := filepath.Join(s.dir, "weir.yaml"), filepath.Join(s.dir, "weir.sock")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	client := control.NewClient(socket)
	mode := ""
	r, err := spawn(b.dut, func() bool {
		var ports []control.PortView
		if client.Get("/ports", &ports) != nil || len(ports) == 0 {
			return false
		}
		if mode = ports[0].Driver; ports[0].Mode != mode {
			mode += " " + ports[0].Mode
		}
		return true
	}, s.Weir, "run", "-c", file, "--socket", socket, "--log", "warn")
	if err != nil {
		return nil, err
	}
	r.target, r.mode, r.url = toVIP(), mode, fmt.Sprintf("http://%s:%d/", vip, vipHTTP)
	return r, nil
}
