package main_test

import (
	"fmt"
	"strings"
	"testing"

	"weir/control/host/testnet"
)

// TestMasquerade has clients beyond the balancer, on the servers' own link, and a server that calls its own VIP. The server must see the
// balancer's address as the kernel's own masquerading shows it: each case is put to nftables first.
func TestMasquerade(t *testing.T) {
	needs(t, "nft")
	f := newForwardBed(t, options{})
	f.serve(1)
	for _, s := range []*testnet.Space{f.client, f.lb, f.servers[0]} {
		for key, value := range map[string]string{ // the kernel's balancer would tell of a shorter way
			"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0", "ipv4/conf/all/accept_redirects": "0",
			"ipv6/conf/all/accept_redirects": "0", "ipv6/conf/default/accept_redirects": "0",
		} {
			must(t, s.Sysctl("net/"+key, value))
		}
	}
	// One VIP is beyond the balancer for the client on the far side, the other for those on the servers' link.
	must(t, f.client.Route("203.0.113.1/32", wan4))
	must(t, f.client.Route("203.0.113.2/32", lan4))
	must(t, f.client.Route("2001:db8:a::1/128", wan6))
	must(t, f.client.Route("2001:db8:a::2/128", lan6))
	outside, link := "client outside", "client on the servers' link"
	for i, fam := range families {
		lan, server := []string{lan4, lan6}[i], []string{server4(0), server6(0)}[i]
		client := []string{client4, client6}[i]
		vips := []string{[]string{"203.0.113.1", "2001:db8:a::1"}[i], []string{"203.0.113.2", "2001:db8:a::2"}[i]}
		except := []string{"198.18.0.0/24", "2001:db8::/64"}[i]
		saddr := []string{"ip saddr", "ip6 saddr"}[i]
		only := server + []string{"/32", "/128"}[i]
		for _, tc := range []struct {
			masquerade string // ours
			rule       string // that of nftables
			seen       map[string]string
		}{
			{"always", "masquerade", map[string]string{outside: lan, link: lan, "s1": lan}},
			{"hairpin", `iifname "lan" oifname "lan" masquerade`, map[string]string{outside: client, link: lan, "s1": lan}},
			{"{except: [" + except + "]}", saddr + " != " + except + " masquerade", map[string]string{outside: client, link: lan, "s1": lan}},
			{"{except: [" + only + "]}", saddr + " != " + server + " masquerade", map[string]string{outside: lan, link: lan}},
		} {
			t.Run(fam.name+" "+tc.masquerade, func(t *testing.T) {
				f := f.with(t)
				ask := func(who string) {
					t.Helper()
					for from, want := range tc.seen {
						space, vip := f.client, vips[1]
						switch from {
						case outside:
							vip = vips[0]
						case "s1":
							space = f.servers[0]
						}
						r := command(t, space.Command("curl", "-sS", "--fail", "--globoff", "--max-time", "3", "http://"+hostPort(vip, portWeb)+"/who"))
						if r.code != 0 || r.out != "s1 "+want+"\n" {
							t.Errorf("%s: %s: the server sees %q, want %s (%s)", who, from, r.out, want, r.errors)
						}
					}
				}
				f.kernelNAT(vips, server, tc.rule)
				ask("nftables")
				in(t, f.lb, "nft", "flush", "ruleset")
				f.kernelForwards("0")
				var services string
				for _, vip := range vips {
					services += fmt.Sprintf("  - {vip: %q, port: %d, masquerade: %q, backends: [{address: %q}]}\n", vip, portWeb, tc.masquerade, server)
				}
				services = strings.NewReplacer(`"{`, "{", `}"`, "}").Replace(services)
				d := f.start(f.config("services:", services))
				ask("weir")
				if s := d.settled(); s.Verdicts.Dropped+s.Verdicts.Punted != 0 {
					t.Errorf("verdicts %+v, %s", s.Verdicts, d.cli("drops"))
				}
				if code := d.stop(); code != 0 {
					t.Errorf("SIGTERM: exit %d", code)
				}
			})
		}
	}
}

// kernelForwards switches routing in the balancer's kernel on or off.
func (f *forwardBed) kernelForwards(on string) {
	f.t.Helper()
	must(f.t, f.lb.Sysctl("net/ipv4/ip_forward", on))
	must(f.t, f.lb.Sysctl("net/ipv6/conf/all/forwarding", on))
}

// kernelNAT has the balancer's kernel do what weir is to do: port 80 of the VIPs goes to a server, and rule says whose source becomes the balancer.
func (f *forwardBed) kernelNAT(vips []string, server, rule string) {
	f.t.Helper()
	f.kernelForwards("1")
	daddr, to := "ip daddr", "ip to "+server
	if strings.Contains(server, ":") {
		daddr, to = "ip6 daddr", "ip6 to "+server
	}
	ruleset := fmt.Sprintf(`
table inet twin {
	chain before { type nat hook prerouting priority dstnat; %s { %s } tcp dport %d dnat %s; }
	chain after { type nat hook postrouting priority srcnat; ct status dnat %s; }
}`, daddr, strings.Join(vips, ", "), portWeb, to, rule)
	c := f.lb.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(ruleset)
	if out, err := c.CombinedOutput(); err != nil {
		f.t.Skipf("nftables: %v: %s", err, out)
	}
}
