package main_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"weir/control"
)

// TestExplain asks which server a client will get before the client comes, for every scheduler, and what the command shows.
func TestExplain(t *testing.T) {
	b := newBed(t, options{servers: 3})
	b.echoes(8000)
	var services strings.Builder
	schedulers := []string{"rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "fo", "ovf", "lblc", "lblcr", "twos"}
	for i, s := range schedulers {
		services.WriteString(b.service(vip4, fmt.Sprintf("name: %s, port: %d, protocol: tcp, scheduler: %s", s, 1000+i, s), 8000, 3, 1, 2))
	}
	d := b.start(b.config("services:", services.String()))
	const from = 20000
	for i, s := range schedulers {
		for n := range 4 {
			to := hostPort(vip4, 1000+i)
			v := view[control.ExplainView](d, "explain", "tcp", fmt.Sprintf("198.18.0.2:%d", from+10*i+n), to)
			c, err := dialFrom(b.client, "tcp", fmt.Sprintf("198.18.0.2:%d", from+10*i+n), to)
			must(t, err)
			defer c.Close()
			must(t, pingPong(c, dialLimit))
			local := c.LocalAddr().(*net.TCPAddr).AddrPort()
			got := view[[]control.ConnView](d, "conns", "--service", s, "--client", local.String())
			if len(got) != 1 || v.Backend == nil || got[0].Backend.Addr() != v.Backend.Address || v.Fate != "scheduled" {
				t.Errorf("%s, connection %d: explain says %+v (%s: %s), it went to %+v", s, n, v.Backend, v.Fate, v.Why, got)
			}
		}
	}
	d.settled()
	out := d.cli("explain", "tcp", "198.18.0.2:30000", hostPort(vip4, 1003))
	for _, line := range []string{
		"tcp 198.18.0.2:30000 -> 198.18.9.9:1003: scheduled, server 198.18.1.13:8000\n",
		"  why      the lowest (256 x active + inactive) / weight, the first of equals\n",
		"  service  wlc: tcp 198.18.9.9:1003, wlc\n",
		"  server   198.18.1.13:8000 by nat, sees the client's address\n",
		"  way      port lan, next hop 198.18.1.13\n",
		"\nwlc: the lowest (256 x active + inactive) / weight, the first of equals\n",
		"BACKEND           ADDRESS           WEIGHT  ACTIVE  INACT  COST",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("there is no %q in\n%s", line, out)
		}
	}
	out = d.cli("explain", "tcp", fmt.Sprintf("198.18.0.2:%d", from+30), hostPort(vip4, 1003))
	if !strings.Contains(out, ": connection, server ") || !strings.Contains(out, "  connection  to 198.18.1.") || !strings.Contains(out, "ESTABLISHED") {
		t.Errorf("a connection that there is:\n%s", out)
	}
	for _, x := range []struct {
		args []string
		code int
	}{
		{[]string{"tcp", "198.18.0.2", "198.18.9.9:80"}, 2},
		{[]string{"tcp", "198.18.0.2:1"}, 2},
		{[]string{"icmp", "198.18.0.2:1", "198.18.9.9:80"}, 1},
		{[]string{"tcp", "198.18.0.2:1", "198.18.9.9:80", "-o", "ipvsadm"}, 2},
		{[]string{"tcp", "198.18.0.2:1", "198.18.9.9:80", "--vni", "7"}, 1},
	} {
		if r := d.try(append([]string{"explain"}, x.args...)...); r.code != x.code {
			t.Errorf("explain %q: %v, want exit %d", x.args, r, x.code)
		}
	}
	if r := d.try("conns", "--service", "nobody"); r.code != 1 || !strings.Contains(r.String(), "no such service: nobody") {
		t.Errorf("conns of no service: %v", r)
	}
}
