package chaos

import (
	"fmt"
	"strings"
)

// setting is what the balancer's configuration is to say at the moment. Events change it, and the next reload, a tenth of a second later, brings it.
type setting struct {
	driver, mode string
	live         bool
	workers      int
	weights      [servers]int
	removed      [servers]bool
	draining     [servers]bool
	spare        int // services that nobody uses, so that a reload has something to do
}

// vips of the traffic's kinds; what is at which port stands in text.
const (
	portNAT, portFull, portVXLAN, portStick = 80, 81, 82, 83
	portDR                                  = tcpPort // dr keeps the port
)

// text is the configuration file.
func (s *setting) text() string {
	var t strings.Builder
	fmt.Fprintf(&t, "version: 1\nengine: {workers: %d}\nports:\n", s.workers)
	for _, p := range []string{"wan", "lan"} {
		fmt.Fprintf(&t, "  - {name: %s, interface: %s, driver: %s", p, p, s.driver)
		if s.mode != "" {
			fmt.Fprintf(&t, ", xdp_mode: %s", s.mode)
		}
		if s.live {
			t.WriteString(", xdp_send: live")
		}
		t.WriteString("}\n")
	}
	t.WriteString("conntrack: {max_connections: 65536}\nservices:\n")
	service := func(vip, head string, address func(int) string, port int, more string) {
		fmt.Fprintf(&t, "  - {vip: %q, %s, backends: [", vip, head)
		for i := range servers {
			if s.removed[i] {
				continue
			}
			state := ""
			if s.draining[i] {
				state = ", state: drain"
			}
			fmt.Fprintf(&t, "{name: s%d, address: %q, port: %d, weight: %d%s%s}, ", i+1, address(i), port, s.weights[i], more, state)
		}
		t.WriteString("]}\n")
	}
	service(vip4, fmt.Sprintf("port: %d, scheduler: wlc", portNAT), server4, tcpPort, "")
	service(vip6, fmt.Sprintf("port: %d, scheduler: wrr", portNAT), server6, tcpPort, "")
	service(vip4, fmt.Sprintf("port: %d, scheduler: wlc, forward: fullnat, fullnat: {addresses: [%s], ports: 20000-29999}", portFull, local4), server4, tcpPort, "")
	service(vip4, fmt.Sprintf("port: %d, scheduler: wrr, forward: dr", portDR), server4, tcpPort, "")
	service(vip4, fmt.Sprintf("port: %d, scheduler: wrr, forward: vxlan", portVXLAN), tenant4, tcpPort, fmt.Sprintf(", vni: %d", vni))
	service(vip4, fmt.Sprintf("port: %d, scheduler: wrr, persistence: {timeout: 300s}", portStick), server4, tcpPort, "")
	service(vip4, fmt.Sprintf("port: %d, protocol: udp, scheduler: wrr", udpPort), server4, udpPort, "")
	// Without the flag a new client of a server of weight 0 is refused, as by IPVS.
	service(vip6, fmt.Sprintf("port: %d, protocol: udp, scheduler: mh, flags: [mh-fallback]", udpPort), server6, udpPort, "")
	for i := range s.spare {
		service(vip4, fmt.Sprintf("port: %d, scheduler: rr", 1000+i), server4, tcpPort, "")
	}
	fmt.Fprintf(&t, "vxlan:\n  segments:\n    - vni: %d\n      vtep: %s\n      peers: [%s, %s, %s]\n      gateway: {address: %s/24, mac: %q}\n",
		vni, lan4, server4(0), server4(1), server4(2), gateway, gatewayMAC)
	return t.String()
}
