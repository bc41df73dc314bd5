package judge

import (
	"fmt"
	"strings"
)

// The network between which a balancer stands; the kernel's bed and weir's are the same.
const (
	clientMAC   = "02:00:00:00:00:0c" // the router to the clients
	serverCount = 10                  // 198.18.1.10 and up, 2001:db8:1::10 and up
)

// ourMACs are the balancer's, by side.
var ourMACs = [2]string{"02:00:00:00:01:0c", "02:00:00:00:01:05"}

// serverMAC tells servers apart where their address is not in the packet.
func serverMAC(i int) string { return fmt.Sprintf("02:00:00:00:02:%02x", i) }

// MACs are the addresses of a frame that comes in: who sends, and the balancer.
func MACs(side int) (from, to string) {
	if side == Server {
		return serverMAC(0), ourMACs[Server]
	}
	return clientMAC, ourMACs[Client]
}

func serverAddress(i int, v6 bool) string {
	if v6 {
		return fmt.Sprintf("2001:db8:1::%d", 10+i)
	}
	return fmt.Sprintf("198.18.1.%d", 10+i)
}

func (r *Recording) mtu(side int) int {
	if n := r.MTU[sides[side]]; n != 0 {
		return n
	}
	return 1500
}

// yaml is the bed with these services as weir's configuration. The way through YAML makes every edit a reload.
func (r *Recording) yaml(services []Service) string {
	var s strings.Builder
	fmt.Fprintf(&s, `version: 1
ports:
  - {name: client, driver: mem, mac: "%s", addresses: [198.18.0.1/24, "2001:db8::1/64"], mtu: %d}
  - {name: server, driver: mem, mac: "%s", addresses: [198.18.1.1/24, "2001:db8:1::1/64"], mtu: %d}
routes:
  - {to: 198.18.128.0/17, via: 198.18.0.2}
  - {to: "2001:db8:c::/48", via: "2001:db8::2"}
limits: {answers: 1000000/s}
neighbors:
  - {address: 198.18.0.2, mac: "%[5]s", port: client}
  - {address: "2001:db8::2", mac: "%[5]s", port: client}
`, ourMACs[Client], r.mtu(Client), ourMACs[Server], r.mtu(Server), clientMAC)
	for i := range serverCount {
		for _, v6 := range []bool{false, true} {
			fmt.Fprintf(&s, "  - {address: \"%s\", mac: \"%s\", port: server}\n", serverAddress(i, v6), serverMAC(i))
		}
	}
	s.WriteString(r.conntrack())
	s.WriteString("services:\n")
	for i := range services {
		services[i].yaml(&s)
	}
	if len(services) == 0 {
		s.WriteString("  []\n")
	}
	return s.String()
}

// conntrack are the options and timeouts that the kernel has for all services.
func (r *Recording) conntrack() string {
	keys := []string{"max_connections: 4096"}
	for _, name := range []string{"sloppy_tcp", "expire_nodest_conn", "expire_quiescent_template"} {
		if r.Options[name] == 1 {
			keys = append(keys, name+": true")
		}
	}
	if mode, ok := r.Options["conn_reuse_mode"]; ok {
		keys = append(keys, fmt.Sprintf("conn_reuse_mode: %d", mode))
	}
	if t := r.Timeouts; t != nil {
		var set []string
		for _, x := range []struct {
			key     string
			seconds int
		}{{"tcp_established", t.TCP}, {"tcp_fin_wait", t.TCPFin}, {"udp", t.UDP}} {
			if x.seconds > 0 {
				set = append(set, fmt.Sprintf("%s: %ds", x.key, x.seconds))
			}
		}
		keys = append(keys, "timeouts: {"+strings.Join(set, ", ")+"}")
	}
	return "conntrack: {" + strings.Join(keys, ", ") + "}\n"
}

func (v *Service) yaml(s *strings.Builder) {
	fmt.Fprintf(s, "  - vip: \"%s\"\n    port: %d\n    protocol: %s\n    scheduler: %s\n    flags: [%s]\n", v.VIP, v.Port, v.Protocol, v.Scheduler, strings.Join(v.Flags, ", "))
	if v.OnePacket {
		s.WriteString("    one_packet: true\n")
	}
	if p := v.Persistence; p != nil {
		key, prefix := "prefix", p.Prefix
		if strings.Contains(v.VIP, ":") {
			key = "prefix6"
		}
		fmt.Fprintf(s, "    persistence: {timeout: %ds", p.TimeoutS)
		if prefix > 0 {
			fmt.Fprintf(s, ", %s: %d", key, prefix)
		}
		s.WriteString("}\n")
	}
	s.WriteString("    backends:\n")
	if len(v.Backends) == 0 {
		s.WriteString("      []\n")
	}
	for _, x := range v.Backends {
		fmt.Fprintf(s, "      - {address: \"%s\", port: %d, weight: %d, upper_threshold: %d, lower_threshold: %d", x.Address, x.Port, x.Weight, x.Upper, x.Lower)
		if x.Forward != "" && x.Forward != "nat" {
			fmt.Fprintf(s, ", forward: %s", x.Forward)
		}
		if x.TunnelPort != 0 {
			fmt.Fprintf(s, ", tunnel_port: %d", x.TunnelPort)
		}
		s.WriteString("}\n")
	}
}
