package host

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Advice is a setting of the host that stands in the way of something. weir changes none of these: they are the operator's.
type Advice struct {
	Key   string // as sysctl(8) takes it
	Value string // as it is
	Want  string // as it should be; empty if that depends
	Why   string // what goes wrong
	Hint  bool   // balanced traffic is not concerned
}

// Cure is the command that sets it right; empty if that depends.
func (a Advice) Cure() string {
	if a.Want == "" {
		return ""
	}
	return "sysctl -w " + a.Key + "=" + a.Want
}

// String is one line with the cure in it.
func (a Advice) String() string {
	s := fmt.Sprintf("%s is %s: %s", a.Key, a.Value, a.Why)
	if cure := a.Cure(); cure != "" {
		s += " (cure: " + cure + ")"
	}
	return s
}

// Advise looks at the host's settings for what hinders a balancer with these ports. It reads only.
//
// The balanced packets themselves ask for nothing: they do not pass the kernel's IP layer, so ip_forward may be 0. What does pass it
// is the traffic that weir leaves to the kernel: ARP and ND for VIPs, health checks, what is punted, and a server's own connections.
func (h *Host) Advise(ports []Port) []Advice {
	var out []Advice
	number := func(key string) (int, string) { n := h.sysctlInt(key); return n, fmt.Sprint(n) }
	// For these the larger one of "all" and the device's holds (IN_DEV_MAXCONF), so each of the two is named that is too large.
	larger := func(setting, device string, limit int, want, why string) {
		for _, conf := range []string{"all", device} {
			key := "net/ipv4/conf/" + conf + "/" + setting
			if n, v := number(key); n > limit {
				out = append(out, Advice{Key: key, Value: v, Want: want, Why: why})
			}
		}
	}
	links, _ := h.Links() // without them there is less to say
	m := mapPorts(links, ports)
	for i := range ports {
		at := slices.IndexFunc(links, func(l Link) bool { return l.Index == m.Ifindex(i) })
		if at < 0 {
			continue // no device of the host has this port's addresses
		}
		d := links[at].Name
		larger("arp_ignore", d, 0, "0", "ARP requests on "+d+" for IPv4 VIPs on lo stay unanswered")
		larger("drop_gratuitous_arp", d, 0, "0", "a gateway's move to another MAC is noticed late")
		all, _ := number("net/ipv4/conf/all/rp_filter")
		own, _ := number("net/ipv4/conf/" + d + "/rp_filter")
		if max(all, own) == 1 { // the larger one holds: a 2 in either is loose
			key := "net/ipv4/conf/" + d + "/rp_filter"
			if all == 1 {
				key = "net/ipv4/conf/all/rp_filter"
			}
			out = append(out, Advice{Key: key, Value: "1", Want: "2",
				Why: "what the kernel gets on " + d + " from an address that it would route elsewhere is dropped (asymmetric routes, answers to health checks)"})
		}
		if n, v := number("net/ipv6/conf/" + d + "/disable_ipv6"); n != 0 {
			out = append(out, Advice{Key: "net/ipv6/conf/" + d + "/disable_ipv6", Value: v, Want: "0", Why: "IPv6 VIPs cannot be bound to " + d + ", ND is not answered"})
		}
		fwd, _ := number("net/ipv6/conf/" + d + "/forwarding")
		if ra, v := number("net/ipv6/conf/" + d + "/accept_ra"); fwd != 0 && ra == 1 {
			out = append(out, Advice{Key: "net/ipv6/conf/" + d + "/accept_ra", Value: v, Want: "2", Why: "with forwarding on, the default route of router advertisements is not taken"})
		}
	}
	out = append(out, h.redirects(links, m)...)
	if n, v := number("net/ipv6/conf/lo/disable_ipv6"); n != 0 {
		out = append(out, Advice{Key: "net/ipv6/conf/lo/disable_ipv6", Value: v, Want: "0", Why: "IPv6 VIPs cannot be bound to lo"})
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if n, v := number(key); n == 0 {
			out = append(out, Advice{Key: key, Value: v, Want: "1", Hint: true,
				Why: "balanced traffic does not need it, but servers with this host as their gateway cannot make connections of their own"})
		}
	}
	if n := h.policyRules(); n > 0 {
		out = append(out, Advice{Key: "ip rule", Value: fmt.Sprintf("%d more than the default", n),
			Why: "weir routes by the main table alone; what the rules send to other tables leaves by the main table's route"})
	}
	return dedupe(out)
}

// redirects is what ICMP redirects (RFC 792) would do. With one device for both sides the kernel, which forwards what servers send on their own behalf,
// tells them of a shorter way to that destination; their answers to a client there would then go past us.
func (h *Host) redirects(links []Link, m PortMap) (out []Advice) {
	wires := slices.Clone(m.wire)
	slices.Sort(wires)
	if len(slices.Compact(wires)) != 1 || h.sysctlInt("net/ipv4/ip_forward") == 0 {
		return nil
	}
	for i := range m.l3 {
		at := slices.IndexFunc(links, func(l Link) bool { return l.Index == m.l3[i] })
		if at < 0 {
			continue
		}
		for _, conf := range []string{"all", links[at].Name} { // sent if either says so (IN_DEV_ORCONF)
			if key := "net/ipv4/conf/" + conf + "/send_redirects"; h.sysctlInt(key) != 0 {
				out = append(out, Advice{Key: key, Value: "1", Want: "0",
					Why: "servers are told of a way to clients on " + links[at].Name + " that leads past weir, and answer by it"})
			}
		}
	}
	return out
}

// dedupe drops what is said of "all" once for every port.
func dedupe(in []Advice) []Advice {
	seen := make(map[string]bool)
	var out []Advice
	for _, a := range in {
		if !seen[a.Key] {
			seen[a.Key] = true
			out = append(out, a)
		}
	}
	return out
}

// policyRules counts the rules that look up tables other than local, main and default, of both families.
func (h *Host) policyRules() int {
	count := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		got := 0
		header := append(raw{family}, make([]byte, 11)...) // struct fib_rule_hdr
		err := h.dump(unix.RTM_GETRULE, func() { got = 0 }, func(msg []byte) {
			if len(msg) < len(header) {
				return
			}
			table := uint32(msg[4])
			attrs(msg[len(header):], func(typ uint16, v []byte) {
				if typ == unix.FRA_TABLE {
					table = u32(v)
				}
			})
			if table != unix.RT_TABLE_LOCAL && table != unix.RT_TABLE_MAIN && table != unix.RT_TABLE_DEFAULT {
				got++
			}
		}, header)
		if err == nil { // a kernel without policy routing has no rules to dump
			count += got
		}
	}
	return count
}
