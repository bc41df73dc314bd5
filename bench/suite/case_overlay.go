package suite

import (
	"errors"
	"fmt"
	"time"
)

// Frames of a local port go into a VXLAN segment, to a station behind another VTEP: an outer header in front of each.
const (
	station = "02:00:00:00:05:01"
	vni     = 5001
)

var (
	weirVTEP = peer{name: weirNAT.name, start: startWeirVTEP}
	// weirRouter routes between segments.
	weirRouter = peer{name: weirNAT.name, start: startWeirRouter}
	weirTwin   = peer{name: weirAgain.name, start: startWeirVTEP}
	kernVTEP   = peer{name: "kernel bridge and vxlan", needs: []string{"bridge"}, start: startKernelVTEP}
)

func intoSegment() []string {
	return []string{"--dst-mac", station, "--dst", "172.16.0.2", "--src", "172.16.0.1", "--dst-port", fmt.Sprint(port)}
}

func vtepConfig(cpu int) string {
	return weirPorts(fmt.Sprint(cpu)) + fmt.Sprintf(`vxlan:
  segments:
    - vni: %d
      vtep: %s
      peers: [%s]
      access: [{port: wan}]
      fdb: [{mac: %q, vtep: %s}]
`, vni, gatewayDut, server, station, server)
}

func startWeirVTEP(s *session, b *bed) (*running, error) {
	r, err := startWeirWith(s, b, vtepConfig(s.CPUs[1]))
	if err == nil {
		r.target = intoSegment()
	}
	return r, err
}

// routerConfig has two segments with a port each and a gateway between them.
func routerConfig(cpu int) string {
	text := weirPorts(fmt.Sprint(cpu)) + "vxlan:\n  segments:\n"
	for i, port := range []string{"wan", "lan"} {
		text += fmt.Sprintf("    - {vni: %d, vtep: %s, access: [{port: %s}], gateway: {address: %s, mac: %q, reaches: [%d]}}\n",
			vni+i, gatewayDut, port, fmt.Sprintf("172.%d.255.1/16", 16+i), segmentMAC(i), vni+1-i)
	}
	return text
}

// segmentMAC is the gateway's address in the i-th segment.
func segmentMAC(i int) string { return fmt.Sprintf("02:00:00:00:50:%02x", i) }

func startWeirRouter(s *session, b *bed) (*running, error) {
	const to = "172.17.0.2" // its host answers ARP
	if err := b.gen.Address("g1", to+"/16"); err != nil {
		return nil, err
	}
	r, err := startWeirWith(s, b, routerConfig(s.CPUs[1]))
	if err == nil {
		r.target = []string{"--dst-mac", segmentMAC(0), "--src", "172.16.0.1", "--dst", to, "--dst-port", fmt.Sprint(port)}
	}
	return r, err
}

func startKernelVTEP(_ *session, b *bed) (*running, error) {
	add := fmt.Sprintf("link add vx0 type vxlan id %d local %s dstport 4789 nolearning", vni, gatewayDut)
	err := errors.Join(b.forwards(), b.dut.IP(add))
	for _, line := range []string{"link add br0 type bridge", "link set vx0 master br0", "link set d0 master br0", "link set vx0 up", "link set br0 up"} {
		err = errors.Join(err, b.dut.IP(line))
	}
	err = errors.Join(err, quietly(b.dut, "", "bridge", "fdb", "append", station, "dev", "vx0", "dst", server),
		quietly(b.dut, "", "bridge", "fdb", "add", station, "dev", "vx0", "master", "static"))
	if err != nil {
		return nil, err
	}
	return &running{command: "ip " + add, mode: "kernel", target: intoSegment(), stop: nothing}, nil
}

// overlay measures encapsulation.
func (s *session) overlay() error {
	peers := s.available(&weirVTEP, &kernVTEP, &weirTwin)
	if s.Quick {
		peers = s.available(&weirVTEP, &kernVTEP)
	}
	var failed []error
	for s.results.round = range s.runs(enoughPairs) {
		for _, p := range turn(peers, s.results.round) {
			failed = append(failed, s.with(p, 1, func(b *bed, r *running) error {
				if err := s.warm(b, r, flowsUsual); err != nil {
					return err
				}
				for _, size := range []string{"64", "512"} {
					t, err := s.flooded(b, r, load{size: size, flows: flowsUsual, length: s.length(700 * time.Millisecond)})
					if err != nil {
						return err
					}
					if t.Received == 0 {
						return fmt.Errorf("nothing came through: %s", t.command)
					}
					s.results.add("overlay", "encapsulate "+size, p.name, "pps", t.ReceivedPPS, r, t.command)
				}
				return nil
			}))
		}
	}
	for _, size := range []string{"64", "512"} {
		s.results.compare("overlay", "encapsulate "+size, "pps", nil, &kernVTEP)
	}
	return errors.Join(failed...)
}
