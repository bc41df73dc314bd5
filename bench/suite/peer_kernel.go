package suite

import (
	"fmt"
	"strings"
)

// startRouting is the kernel as a router.
func startRouting(_ *session, b *bed) (*running, error) {
	if err := b.forwards(); err != nil {
		return nil, err
	}
	return &running{command: "sysctl net.ipv4.ip_forward=1", mode: "kernel", target: direct(), url: fmt.Sprintf("http://%s:%d/", server, httpPort), stop: nothing}, nil
}

// forwards gives the devices of packets receive queues for live frames; those of hosts have none to receive.
func (b *bed) forwards() error {
	if b.gen == nil {
		return nil
	}
	return b.gro("d0", "d1")
}

func nothing() error { return nil }

// nftRules translate what weir does, one server after the other.
func nftRules() string {
	var rules strings.Builder
	rules.WriteString("table ip nat {\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat;\n")
	for _, s := range []struct {
		protocol string
		vip, to  int
	}{{"udp", vipPort, port}, {"tcp", vipHTTP, httpPort}, {"tcp", iperfPort, iperfPort}} {
		fmt.Fprintf(&rules, "\t\tip daddr %s %s dport %d dnat to numgen inc mod %d map {", vip, s.protocol, s.vip, servers)
		for i := range servers {
			fmt.Fprintf(&rules, " %d : %s,", i, nth(i))
		}
		fmt.Fprintf(&rules, " }:%d\n", s.to)
	}
	rules.WriteString("\t}\n}\n")
	return rules.String()
}

func startNFT(_ *session, b *bed) (*running, error) {
	if err := b.forwards(); err != nil {
		return nil, err
	}
	if err := quietly(b.dut, nftRules(), "nft", "-f", "-"); err != nil {
		return nil, err
	}
	return &running{command: "nft: dnat to numgen inc mod 2 map {...}", mode: "kernel", target: toVIP(), url: fmt.Sprintf("http://%s:%d/", vip, vipHTTP), stop: nothing}, nil
}
